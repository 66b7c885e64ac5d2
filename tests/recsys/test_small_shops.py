"""Shops too small for a part: it steps aside, or training is refused before it begins."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

import vision.errors
from recsys import pipeline
from recsys.bundle import Bundle
from recsys.config import TrainConfig
from recsys.data.tables import Tables
from recsys.errors import InvalidArgumentError, MissingPartError, RecsysError
from recsys.evaluation.run_report import report_run
from recsys.identifier import ProductIdentifier
from recsys.pipeline import check_training, load_tables, train
from recsys.recommender import Recommender
from tests.recsys.training.mug_shop import draw_pictures
from vision.config import VisionConfig
from vision.networks.published import WEIGHTS
from vision.networks.start import PUBLISHED

N_ITEMS = 4
START = datetime(2025, 1, 1, tzinfo=UTC)
NOTHING = pl.lit(None, dtype=pl.String)
FIRST = pl.int_range(pl.len()) == 0
CONFIG: dict[str, Any] = {
    "name": "small",
    "device": "cpu",
    "split": {"horizon": "1w", "n_cuts": 2},
    "vision": {"backbone": "test_resnet", "pretrained": False, "size": 32, "dim": 8, "epochs": 1},
    "text": {"hidden": 16, "vocab_size": 300, "epochs": 1},
    "fusion": {"dim": 8, "hidden": 8, "epochs": 1},
    "users": {"width": 8, "heads": 1, "epochs": 1},
    "ranker": {"hidden": 4, "n_candidates": 6, "epochs": 1},
    "identification": {"views": "one"},
    "evaluation": {"ablations": False},
}


def settings(**changes: dict[str, object]) -> TrainConfig:
    return TrainConfig.model_validate(
        CONFIG | {name: {**CONFIG.get(name, {}), **values} for name, values in changes.items()}
    )


def items(n: int = N_ITEMS) -> pl.DataFrame:
    rows = [
        {
            "item_id": str(row),
            "title": f"{('red', 'blue')[row % 2]} mug {row}",
            "image": f"p{row}.png",
        }
        for row in range(n)
    ]
    return pl.DataFrame(rows)


def events(n: int = 60, *, n_items: int = N_ITEMS, n_users: int = 3) -> pl.DataFrame:
    rows = [
        {
            "user_id": f"u{number % n_users}",
            "item_id": str(number * number % n_items),
            "kind": "view",
            "timestamp": START + timedelta(hours=13 * number),
        }
        for number in range(n)
    ]
    return pl.DataFrame(rows)


def photos(*splits: str) -> pl.DataFrame:
    return pl.DataFrame(
        [{"image": f"{n}.png", "item_id": str(n), "split": split} for n, split in enumerate(splits)]
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    draw_pictures(folder)
    return folder


class Small(NamedTuple):
    """A shop, the parts that its bundle has, and what the bundle says is left out."""

    items: pl.DataFrame | None
    events: pl.DataFrame | None
    photos: pl.DataFrame | None
    parts: set[str]
    left_out: list[str]


SHOTS = photos("train", "train", "val").with_columns(image=pl.format("p{}.png", "item_id"))
ONE_TITLE = pl.when(FIRST).then("title")
SMALL = {
    "one item": Small(
        items(1),
        events(n_items=1),
        photos("val"),
        {"text"},
        ["vision", "training of text", "training of items", "identification", "ranking"],
    ),
    "one title and no picture": Small(
        items().with_columns(title=ONE_TITLE, image=NOTHING),
        events(),
        None,
        {"text", "ranking"},
        ["vision", "training of text", "training of items", "identification"],
    ),
    "one event": Small(
        items().with_columns(image=NOTHING),
        events(1),
        None,
        {"text"},
        ["vision", "identification", "ranking"],
    ),
    "one title": Small(
        items().with_columns(title=ONE_TITLE),
        None,
        None,
        {"vision"},
        ["text", "identification", "ranking"],
    ),
    "one photo of val": Small(
        items(2), None, photos("val"), {"vision", "text", "identification"}, ["ranking"]
    ),
    "no pictures but photos": Small(
        items().with_columns(image=NOTHING),
        None,
        SHOTS,
        {"vision", "text", "identification"},
        ["ranking"],
    ),
    "neither titles nor pictures but photos": Small(
        items().select("item_id"),
        None,
        SHOTS,
        {"vision", "identification"},
        ["text", "training of items", "ranking"],
    ),
    "photos alone": Small(
        None,
        None,
        SHOTS.select("image", "split", category=pl.concat_list(pl.lit("Mug"), "item_id")),
        {"vision"},
        ["text", "training of items", "identification", "ranking"],
    ),
    "one user": Small(
        items().with_columns(image=NOTHING),
        events(n_users=1),
        None,
        {"text", "ranking"},
        ["vision", "identification"],
    ),
}


QUICK = ("one item", "one title and no picture", "photos alone")


def left_out(reasons: Sequence[str]) -> list[str]:
    return [reason.partition(":")[0] for reason in reasons]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL],
)
def test_a_small_shop_trains_what_it_can_and_its_bundle_answers(
    name: str, images: Path, tmp_path: Path
) -> None:
    shop, config = SMALL[name], settings()
    tables = Tables(shop.items, shop.events, shop.photos, images)
    assert left_out(check_training(load_tables(config, tables), config)) == shop.left_out
    run = train(config, tmp_path, tables=tables)
    report, bundle = report_run(run, config.evaluation, title=name), Bundle(run.bundle)
    assert bundle.parts == shop.parts
    assert left_out(bundle.left_out) == shop.left_out
    assert set(bundle.left_out) <= set(report.left_out)
    recommender, photo = Recommender(bundle), (images / "p0.png").read_bytes()
    answers: dict[str, Callable[[], object]] = {
        "ranking": lambda: recommender.recommend("u0", k=2),
        "text": lambda: recommender.search("red mug", k=2),
        "vision": lambda: recommender.search(image=photo, k=2),
        "identification": lambda: ProductIdentifier(recommender).identify(photo),
    }
    for part, answer in answers.items():
        with nullcontext() if part in shop.parts else pytest.raises(MissingPartError):
            answer()


REFUSED = {
    "horizon": (settings(split={"horizon": "1y"}), r"horizon to at most 10d, lower n_cuts"),
    "at before the events": (
        settings(split={"at": START - timedelta(days=1)}),
        "set a later at, or leave the events out",
    ),
    "at after the events": (
        settings(split={"at": START + timedelta(days=900)}),
        "the ranker must have events to learn from in every window",
    ),
    "target kind": (settings(data={"target_kinds": ["sale"]}), r"kinds must be among \['view'\]"),
    "patience": (settings(text={"patience": 2}), "patience = 2 needs validation samples"),
    "a horizon of millennia": (
        settings(split={"horizon": "10000000d"}),
        r'horizon must be at most "366000d", so that 1 fit into a millennium, got \'10000000d\'',
    ),
    "backbone": (
        settings(vision={"backbone": "resnet19"}),
        "got 'resnet19'; similar timm names: resnet18",
    ),
    "no backbone": (settings(vision={"backbone": ""}), "backbone must be a timm name, .* got ''"),
    "architecture": (settings(vision={"backbone": "transformers//nowhere"}), "not on this machine"),
    "weights": (
        settings(vision={"pretrained": "nowhere/model.safetensors"}),
        "neither a .safetensors file, a folder with model.safetensors, nor a hub id",
    ),
    "weights of another kind": (
        settings(vision={"pretrained": __file__}),
        "pretrained must be a .safetensors file",
    ),
    "checkpoint": (
        settings(text={"checkpoint": "./nowhere"}),
        "checkpoint must be an existing folder or a hub id",
    ),
    "checkpoint without a model": (
        settings(text={"checkpoint": str(Path(__file__).parent)}),
        "must be a transformers or sentence-transformers folder",
    ),
    "teacher": (settings(fusion={"teacher": __file__}), "must be Parquet of id and embedding"),
    "vision target": (
        settings(vision={"target_weights": {"colour": 2.0}}),
        "target_weights must name targets of the samples",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_tables_cannot_give_is_refused_before_a_stage_runs(
    name: str, images: Path, tmp_path: Path
) -> None:
    config, message = REFUSED[name]
    tables = Tables(items(), events(), None, images)
    with pytest.raises(RecsysError, match=message):
        check_training(load_tables(config, tables), config)
    stages: list[str] = []
    with pytest.raises(RecsysError, match=message):
        train(config, tmp_path, tables=tables, announce=stages.append)
    assert stages == ["check"]


def test_a_device_that_is_not_there_is_refused_by_the_check(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(device: str) -> None:
        raise vision.errors.InvalidArgumentError(f"device must be auto, got {device!r}")

    monkeypatch.setattr(pipeline, "resolve_device", missing)
    config = settings().model_copy(update={"device": "cuda"})
    dataset = load_tables(config, Tables(items(), None, None, images))
    with pytest.raises(InvalidArgumentError, match="got 'cuda'"):
        check_training(dataset, config)


def test_weights_of_kinds_that_no_event_has_are_logged_unless_they_are_the_defaults(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = Tables(items(), events(), None, images)
    check_training(load_tables(settings(), tables), settings())
    assert not caplog.records
    config = settings(users={"kind_weights": {"view": 1.0, "sale": 2.0}})
    check_training(load_tables(config, tables), config)
    (record,) = caplog.records
    assert "kinds of the events (view), got sale, which no event has" in record.getMessage()


def test_the_bundle_says_which_weights_its_towers_began_with(images: Path, tmp_path: Path) -> None:
    known = WEIGHTS[PUBLISHED]
    if known.find() is None:
        pytest.skip(f"the package {known.package} is not installed")
    plain = settings()
    config = plain.model_copy(update={"vision": VisionConfig(size=32, dim=8, epochs=1)})
    run = train(config, tmp_path, tables=Tables(items(), events(), None, images))
    bundle = Bundle(run.bundle)
    assert bundle.weights == {"vision": known.origin, "text": None}
    assert bundle.vision.spec.name == PUBLISHED
    assert report_run(run, plain.evaluation, title="small").weights == [
        f"the vision tower began with {PUBLISHED} (package {known.package} {known.version}), "
        "licence Apache-2.0",
        "the text tower began with random weights",
    ]


def test_open_weights_that_are_not_there_are_one_line_in_the_log_of_a_shop_with_pictures(
    images: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(WEIGHTS, PUBLISHED)
    left_open = settings(vision={"backbone": "test_resnet", "pretrained": "auto"})
    for table in (items().with_columns(image=NOTHING), items()):
        assert not caplog.records
        tables = Tables(table, events(), None, images)
        check_training(load_tables(left_open, tables), left_open)
    (record,) = caplog.records
    assert "pip install 'vitrine-recsys[weights]'" in record.getMessage()
