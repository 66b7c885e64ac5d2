"""Training from a configuration to a sealed bundle, in stages that are skipped if unchanged."""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from recsys.bundle import Contents, RankingPart, ranking_settings, write_bundle
from recsys.catalogue.store import category_codes
from recsys.config import TrainConfig, write_config
from recsys.data import dataset as datasets
from recsys.data.dataset import Dataset
from recsys.data.files import make_folder, whole_file
from recsys.data.pictures import picture_fault
from recsys.data.progress import Progress
from recsys.data.tables import Tables
from recsys.identification.heads import HeadsPart
from recsys.identification.stored import IdentificationPart
from recsys.ranking.rankers import NETWORK, TREES
from recsys.training.common_space import find_common_space, keeps_weights
from recsys.training.cuts import held_out_users
from recsys.training.heads import keep_heads
from recsys.training.identification import (
    LabelledPhotos,
    calibrate,
    fuse_without_halves,
    gallery_of,
    load_photos,
    observe,
    product_classes,
    run_photos,
)
from recsys.training.inputs import Material, ShopData, read_shop
from recsys.training.known import count_events
from recsys.training.pictures import Pictures, kept_squares
from recsys.training.samples import labelled_photos, picture_paths
from recsys.training.served import check_serving, write_served
from recsys.training.stack import FusedItems, Stack, fuse_items, train_stack
from recsys.training.stages import STAGES, Runtime, Stage, Workspace
from recsys.training.text_start import decide_text_start
from recsys.training.tower_errors import translate_tower_errors
from recsys.training.towers import TrainedTowers, align, embed, train_text, train_vision
from recsys.training.tuning import Tuning, check_tuning, tune_settings
from recsys.training.words import choose_words
from vision.device import Device, resolve_device
from vision.tower import VisionTower

TUNED = "tuned.toml"  # beside the bundles


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Args:
        bundle: Folder of the sealed bundle.
        ablations: Folders of the bundles that were trained on one modality, by name.
        dataset: Validated tables.
        stages: Stages in the order in which they ran.
        left_out: Parts that were not trained, each with the reason.
        tuning: Search for settings, if one was wanted.
    """

    bundle: Path
    ablations: Mapping[str, Path]
    dataset: Dataset
    stages: tuple[Stage, ...]
    left_out: tuple[str, ...]
    tuning: Tuning | None = None


@translate_tower_errors()
def train(
    config: TrainConfig,
    out: str | Path,
    *,
    tables: Tables | None = None,
    strict: bool = False,
    tune: int | None = None,
    progress: bool = False,
    announce: Callable[[str], None] = lambda stage: None,
) -> Run:
    """Train on a shop's tables and seal a bundle under ``out``.

    >>> run = train(load_config("shop.toml"), "runs/shop")
    >>> Recommender.load(run.bundle).recommend("user-17")

    Args:
        config: Settings, as ``load_config`` returns them.
        out: Folder of the bundles and of the stages.
        tables: Files or DataFrames to train on; None takes the tables that ``config`` names.
        strict: Whether to raise if any row is bad, instead of leaving bad rows out.
        tune: Number of trials of a search for settings of fusion, users and ranker; the chosen
            settings are written to ``tuned.toml`` in ``out``. None trains with those given.
        progress: Whether to show progress bars.
        announce: Called with the name of each stage before it runs.

    Raises:
        ConfigError: If tables are neither passed nor configured, or both.
        DataError: If a table cannot be used, or there are neither titles nor pictures.
        FileAccessError: If ``out`` cannot be written.
        RecsysError: If training cannot continue; its cause may be an error of a tower.
    """
    out = Path(out)
    with _running(config, out, announce, progress=progress) as runtime:
        make_folder(out)
        check_serving(config.serving)
        announce("check")
        with _checking(visible=progress) as advance:
            dataset = load_tables(config, tables, strict=strict, progress=advance)
        shop = read_shop(dataset, config)
        if tune is not None:
            check_tuning(shop, tune)
            write_config(config)  # raises what would else be raised after the search
        left_out = _sentences(shop)
        vision = train_vision(shop, config.vision, runtime)
        start = decide_text_start(shop, config.text, runtime)
        config = config.model_copy(update={"text": start.config})
        text = train_text(shop, config.text, runtime)
        towers = align(shop, vision, text, config, runtime)
        heads = keep_heads(shop, towers, config.annotation, runtime)
        material = embed(shop, towers, runtime)
        items = None if shop.behaviour is None else count_events(shop.behaviour, runtime)
        tuning = None
        if tune is not None and items is not None:
            tuning = tune_settings(
                material, items, config, runtime, n_trials=tune, announce=announce
            )
            config = tuning.config
            _write_tuned(tuning, out)
        stack = train_stack(material, items, config, runtime)
        identification = _identify(material, towers.vision, stack.fused, config, runtime)
        served = write_served(shop, towers, config.serving, runtime)
        announce("bundle")
        contents = _with_towers(_contents(material, stack, config, left_out), towers, heads, config)
        contents = replace(contents, identification=identification, text_start=start.compared)
        bundle = write_bundle(replace(contents, served=served), out)
        ablations = _ablations(material, stack, config, runtime, left_out)
    return Run(bundle, ablations, dataset, tuple(runtime.workspace.stages), left_out, tuning)


def _write_tuned(tuning: Tuning, out: Path) -> None:
    """Write the configuration that trains the bundle again without a search."""
    with whole_file(out / TUNED) as path:
        lines = textwrap.wrap(f"Chosen by a search: {tuning.sentence}.", 98)
        comment = "".join(f"# {line}\n" for line in lines)
        path.write_text(f"{comment}\n{write_config(tuning.config)}", "utf-8")


@contextmanager
def _running(
    config: TrainConfig, out: Path, announce: Callable[[str], None], *, progress: bool
) -> Iterator[Runtime]:
    """Yield how the stages are executed; the pixels that they share are removed afterwards."""
    workspace = Workspace(out / STAGES, announce=announce)
    with Pictures(workspace.root, kept_squares(config)) as pictures:
        yield Runtime(
            workspace=workspace,
            device=cast(Device, resolve_device(config.device).type),
            seed=config.seed,
            progress=progress,
            read=pictures.read,
        )


def _ablations(
    material: Material,
    whole: Stack,
    config: TrainConfig,
    runtime: Runtime,
    left_out: tuple[str, ...],
) -> dict[str, Path]:
    """Return the bundles that use one modality each, by name; they rank as the whole does."""
    present = material.modalities.present
    modalities = [name for name, having in present.items() if having.sum() > 1]
    if not config.evaluation.ablations or len(modalities) < 2:
        return {}
    bundles, config = {}, _same_ranker(config, whole)
    for modality in modalities:
        alone = material.only(modality)
        stack = train_stack(
            alone, whole.items, config, runtime, suffix=f"-{modality}", served=False
        )
        contents = _contents(alone, stack, config, left_out)
        bundles[f"{modality}-only"] = write_bundle(contents, runtime.workspace.root / modality)
    return bundles


def _same_ranker(config: TrainConfig, stack: Stack) -> TrainConfig:
    """Return the settings by which an ablation ranks as the whole does, with nothing to choose."""
    chosen = stack.ranking.choice.all if stack.ranking is not None else None
    if chosen not in (TREES, NETWORK):
        return config
    ranker = config.ranker.model_copy(update={"kind": chosen})
    return config.model_copy(update={"ranker": ranker})


@contextmanager
def _checking(*, visible: bool) -> Iterator[Progress | None]:
    """Yield a callback that draws a progress bar for each table's pictures, or None."""
    if not visible:
        yield None
        return
    bar: Tqdm | None = None

    def advance(task: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None or total != bar.total or done < bar.n:  # a new table
            if bar is not None:
                bar.close()
            bar = Tqdm(desc=task, total=total)
        bar.update(done - bar.n)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()


def load_tables(
    config: TrainConfig,
    tables: Tables | None = None,
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Return the validated tables; ``Dataset.quarantine`` has the rows that were left out.

    Args:
        config: Settings, as ``load_config`` returns them.
        tables: Files or DataFrames to load; None takes the tables that ``config`` names.
        strict: Whether to raise if any row is bad.
        progress: Called after each checked picture.

    Raises:
        ConfigError: If tables are neither passed nor configured, or both.
        DataError: If a table cannot be used, or if ``strict`` and a row is bad.
    """
    return datasets.load_dataset(
        datasets.choose_tables(config.data, tables),
        now=datetime.now(UTC),
        strict=strict,
        check_image=picture_fault,
        progress=progress,
    )


def check_tables(config: TrainConfig, *, progress: Progress | None = None) -> Dataset:
    """Return what validation finds in the configured tables, even if no row can be used."""
    return datasets.check_tables(
        datasets.choose_tables(config.data, None),
        now=datetime.now(UTC),
        check_image=picture_fault,
        progress=progress,
    )


@translate_tower_errors()
def check_training(dataset: Dataset, config: TrainConfig) -> tuple[str, ...]:
    """Return what the tables cannot train, each with the reason, without training anything.

    Args:
        dataset: Validated tables, each with a valid row.
        config: Settings, as ``load_config`` returns them.

    Raises:
        RecsysError: If training would refuse the tables or the settings, or this machine lacks the
            configured device.
    """
    resolve_device(config.device)
    check_serving(config.serving)
    return _sentences(read_shop(dataset, config))


def _sentences(shop: ShopData) -> tuple[str, ...]:
    return tuple(f"{part}: {reason}" for part, reason in shop.left_out.items())


def _contents(
    material: Material, stack: Stack, config: TrainConfig, left_out: tuple[str, ...]
) -> Contents:
    """Return the contents of a bundle without towers and identification."""
    return Contents(
        items=material.shop.dataset.items,
        item_embeddings=stack.fused.embeddings,
        fusion=stack.fused.fusion,
        ranking=_ranking(material.shop, stack, config),
        left_out=left_out,
        items_as_of_us=material.shop.dataset.items_as_of_us,
        rules=config.rules,
    )


def _with_towers(
    contents: Contents, towers: TrainedTowers, heads: HeadsPart | None, config: TrainConfig
) -> Contents:
    """Return the contents with the towers, and with what is known of how to read them."""
    common_space = find_common_space(
        *(towers.vision, towers.text, contents.fusion, heads), untrained=keeps_weights(config)
    )
    return replace(
        contents, vision=towers.vision, text=towers.text, heads=heads, common_space=common_space
    )


def _ranking(shop: ShopData, stack: Stack, config: TrainConfig) -> RankingPart | None:
    """Return the ranking part, or None without events."""
    events = shop.dataset.events
    behaviour = shop.behaviour
    if events is None or stack.ranking is None or stack.items is None or behaviour is None:
        return None
    return RankingPart(
        events=events,
        ranker=stack.ranking.served or stack.ranking.held_out,
        held_out=stack.ranking.held_out if stack.ranking.served else None,
        statistics=stack.items.at(-1),
        target_kinds=shop.target_kinds,
        split_us=behaviour.asked_from_us,
        held_out_users=held_out_users(behaviour.cuts_us),
        choice=stack.ranking.choice.to_json(),
        offers=config.offers.model_dump(),
        settings=ranking_settings(config),
    )


def _identify(
    material: Material,
    tower: VisionTower | None,
    fused: FusedItems,
    config: TrainConfig,
    runtime: Runtime,
) -> IdentificationPart | None:
    """Return the gallery and its calibration, or None if there is nothing to calibrate on."""
    shop, views = material.shop, config.identification.views
    if tower is None or "identification" in shop.left_out:
        return None
    items, labels = shop.dataset.items, labelled_photos(shop.dataset)
    images = picture_paths(shop.dataset, labels["image"])
    head, head_rows = product_classes(tower.classes, items)
    stage = runtime.workspace.run(
        "photos",
        {"material": material.key, "views": views, "outputs": "with features"},
        lambda folder: run_photos(images, tower, folder, head=head, views=views, runtime=runtime),
    )
    photos = LabelledPhotos.from_table(labels, items, load_photos(stage.folder), head_rows)
    held_out = fuse_without_halves(
        photos,
        material.modalities,
        lambda suffix, without: fuse_items(
            material, config.fusion, runtime, suffix=suffix, without=without
        ),
    )
    gallery = gallery_of(photos, material.modalities, fused.fusion)
    categories = category_codes(items["category"].to_list())
    chosen = choose_words(
        shop,
        images,
        observe(photos, fused, gallery, held_out),
        fused.embeddings,
        config.identification,
        runtime,
    )
    calibration = calibrate(chosen.observed, categories, config.identification)
    words = chosen.pictures, chosen.help, chosen.why_not
    return IdentificationPart(gallery, calibration, head, views, *words)
