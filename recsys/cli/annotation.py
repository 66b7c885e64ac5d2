"""Commands that fill gaps in a catalogue: annotate, category, variants."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recsys.cli.options import BundlePath, ImagesRoot, Json, check_suffix, with_options
from recsys.cli.output import console, print_json, progress_bar
from recsys.data.files import whole_file
from recsys.errors import InvalidArgumentError

if TYPE_CHECKING:
    from recsys import Bundle


@dataclass(frozen=True)
class Certainty:
    """What is guessed or read, how probable it must be, and what calibrates the probabilities."""

    min_probability: Annotated[
        float, typer.Option(help="Lowest probability of a guess; less certain cells stay empty.")
    ] = 0.5
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Configuration file whose val photos calibrate the probabilities."),
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Text file with a word in each line: say which of these a picture shows, by "
            "comparing pictures with words, instead of what the tower learned."
        ),
    ] = None
    read_words: Annotated[
        bool,
        typer.Option(
            "--read-words", help="Also read the words on each picture; needs the extra ocr."
        ),
    ] = False


@with_options
def annotate(
    bundle: BundlePath,
    table: Annotated[
        Path,
        typer.Option("--items", "--photos", help="Items or photos table to annotate, or a glob."),
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write, with a row for each picture.")],
    certainty: Certainty,
    images_root: ImagesRoot = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Device that the vision tower runs on.")
    ] = "cpu",
    as_json: Json = False,
) -> None:
    """Guess the category, attributes and colours of items from their pictures."""
    from recsys import Bundle
    from recsys.curation.annotation import AnnotateOptions, annotate_table, read_words
    from vision.device import resolve_device

    if certainty.classes is not None and certainty.calibrate is not None:
        raise InvalidArgumentError("calibrate is for what the tower learned: leave out --classes")
    if certainty.classes is not None and certainty.read_words:
        raise InvalidArgumentError("read-words goes with what the tower learned: leave out one")
    opened, place = Bundle(bundle), str(resolve_device(device))
    temperatures = _fit(opened, certainty.calibrate, device=place, progress=not as_json)
    options = AnnotateOptions(
        images_root=images_root,
        min_probability=certainty.min_probability,
        temperatures=temperatures,
        words=read_words(certainty.classes) if certainty.classes is not None else None,
        read_words=certainty.read_words,
        device=place,
    )
    with progress_bar(visible=not as_json) as advance:
        report = annotate_table(opened, table, out, options, progress=advance)
    if as_json:
        print_json({"rows": report.n_valid, "failed": report.counts(), "file": out})
        return
    for line in report.lines():
        console.print(f"  {line}", highlight=False)
    console.print(f"{report.n_valid:,} of {report.n_rows:,} pictures annotated in {out}")


def _fit(
    bundle: "Bundle", config: Path | None, *, device: str, progress: bool
) -> dict[str, float] | None:
    """Return temperatures fitted on a shop's val photos; None without a configuration."""
    if config is None:
        return None
    from recsys.cli.vision.inputs import load_samples, required
    from recsys.config import load_config
    from recsys.curation.annotation import fit_temperatures

    samples = load_samples(load_config(config), progress=progress).validation
    photos = required(samples, config, "photos whose split is val")
    return fit_temperatures(bundle.vision.to(device), photos)


def build_category_app() -> typer.Typer:
    """Return the commands under ``recsys category``."""
    app = typer.Typer(help="Change the categories that a bundle knows.", no_args_is_help=True)
    app.callback()(lambda: None)  # else typer makes the only command the group itself
    app.command("add")(add)
    return app


def add(
    bundle: BundlePath,
    name: Annotated[str, typer.Argument(help="Category path, such as 'Home > Vases'.")],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE...", help="Image files of the category.")
    ],
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Device that the vision tower runs on.")
    ] = "cpu",
    as_json: Json = False,
) -> None:
    """Add a category from a few pictures, without training; the new bundle becomes the latest."""
    from recsys.curation.categories import add_category

    added = add_category(bundle, name, pictures, device=device)
    if as_json:
        print_json(
            {"category": added.category, "pictures": added.n_pictures, "bundle": added.bundle}
        )
        return
    path = " > ".join(added.category)
    console.print(f"{path}: added from {added.n_pictures} pictures", highlight=False)
    console.print(f"bundle {added.bundle}")


def variants(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(help="Parquet file to write the groups to.")],
    as_json: Json = False,
) -> None:
    """Find items that are the same product in another colour or size."""
    from recsys import Bundle
    from recsys.curation.variants import find_variants

    check_suffix(out, ".parquet")
    opened = Bundle(bundle)
    found = find_variants(opened.items, opened.item_embeddings)
    with whole_file(out) as scratch:
        found.write_parquet(scratch)
    n_groups = found["group"].n_unique()
    if as_json:
        print_json({"groups": n_groups, "items": len(found), "file": out})
        return
    console.print(f"{len(found):,} items are variants of {n_groups:,} products, in {out}")
