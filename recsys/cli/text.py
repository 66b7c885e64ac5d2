"""The command that measures the text tower alone."""

from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.options import BundlePath, Config, Json
from recsys.cli.output import console, interval, print_json, print_rows
from recsys.data.files import make_folder, writing

if TYPE_CHECKING:
    from recsys.bundle import Bundle
    from text.dataset import Samples
    from text.report.results import Estimate, TextReport


def build_app() -> typer.Typer:
    """Return the commands under ``recsys text``."""
    app = typer.Typer(help="Measure the text tower.", no_args_is_help=True)
    app.callback()(_group)  # without it, typer drops the group around a single command
    app.command("report")(report)
    return app


def _group() -> None:
    """Measure the text tower."""


def report(
    bundle: BundlePath,
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder to write text.html and text.json to.")],
    before: Annotated[
        bool, typer.Option(help="Also measure the encoder as it was before fine-tuning.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure search and classification by the text tower, on the bundle's items."""
    from recsys import Bundle
    from recsys.config import load_config
    from text.networks.build import build_encoder
    from text.report import evaluate_encoder, write_report
    from vision.device import resolve_device

    settings = load_config(config)
    opened = Bundle(bundle)
    encoder, samples = opened.text, _samples(opened)
    make_folder(out)
    measure = partial(
        evaluate_encoder,
        samples=samples,
        device=resolve_device(settings.device),
        progress=not as_json,
    )
    measured, earlier = measure(encoder), None
    if before:
        words = [*samples.texts, *samples.category_texts]
        earlier = measure(build_encoder(settings.text, words, seed=settings.seed))
    with writing(out):
        page = write_report(measured, out, before=earlier)
    if as_json:
        print_json({"report": page, **_figures(measured), "before": earlier and _figures(earlier)})
        return
    if earlier is not None:
        _print_figures("before fine-tuning", earlier)
    _print_figures("text tower", measured)
    console.print(f"report {page}")


def _samples(bundle: "Bundle") -> "Samples":
    """Return the bundle's texts, with the pairs viewed or bought together after the split."""
    from recsys.training.labels import item_labels
    from recsys.training.pairs import item_pairs
    from recsys.training.samples import text_samples

    held_out = None
    if bundle.split_us is not None:
        held_out = bundle.interactions.since(bundle.split_us)
    return text_samples(bundle.items, item_labels(bundle.items), item_pairs(held_out, seed=0))


def _figures(measured: "TextReport") -> dict[str, object]:
    """Return the figures of the printed tables, as JSON values."""
    values = asdict(measured)
    return {name: values[name] for name in ("searches", "scripts", "targets")}


def _print_figures(title: str, measured: "TextReport") -> None:
    searches = [
        (name, one.n_queries, _cell(one.hit_rate), _cell(one.mrr))
        for name, one in measured.searches.items()
    ]
    print_rows(
        f"{title}, search by", ("query", "texts", "hit rate at 10 [95 %]", "MRR [95 %]"), searches
    )
    targets = [
        (name, one.n_texts, _cell(one.accuracy), _cell(one.macro_f1))
        for name, one in measured.targets.items()
    ]
    if targets:
        print_rows(
            f"{title}, classes by nearest mean",
            ("target", "texts", "accuracy [95 %]", "macro-F1 [95 %]"),
            targets,
        )


def _cell(estimate: "Estimate") -> str:
    from recsys.evaluation import bootstrap

    return interval(bootstrap.Estimate(*astuple(estimate)))
