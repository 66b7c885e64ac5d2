"""Words on packages: trained, sealed, identified in process and over gRPC, and shown."""

import io
import json
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from recsys import Bundle, ProductIdentifier, Tables, train
from recsys.answers import WORDS_UNREAD
from recsys.cli.app import app
from recsys.config import TrainConfig
from recsys.identification.evidence import WORDS
from recsys.training.stages import STAGES
from recsys.training.words import CACHE
from serving.client import AsyncClient, Item
from serving.testing import running_service
from vision.words import WordReader

pytestmark = pytest.mark.slow

NAMES = ("Barolo", "Kefir", "Muesli", "Oregano", "Paprika", "Saffran", "Tapenade", "Wasabi")
CONFIG = {
    "device": "cpu",
    "vision": {
        "backbone": "test_resnet",
        "pretrained": False,
        "size": 32,
        "dim": 8,
        "epochs": 1,
    },
    "text": {"hidden": 8, "epochs": 1},
    "fusion": {"dim": 8, "hidden": 8, "epochs": 1},
    "identification": {"views": "one"},
    "evaluation": {"ablations": False},
}


def package(name: str, shade: int) -> Image.Image:
    """Return a picture of a package, which differs from the others by its words alone."""
    picture = Image.new("RGB", (200, 120), (230, 230, 220 + shade))
    font = ImageFont.load_default(36)
    ImageDraw.Draw(picture).text((10, 30 + shade), name.upper(), fill=(30, 20, 60), font=font)
    return picture


def encode(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def shop(folder: Path) -> Tables:
    """Return a shop whose pictures show no words, and photos of its packages that do."""
    photos = []
    for name in NAMES:
        Image.new("RGB", (40, 40), (230, 230, 220)).save(folder / f"{name}.png")
        for n, split in enumerate(("train", "val", "val", "val")):
            package(name, n).save(folder / f"{name}-{n}.png")
            photos.append({"image": f"{name}-{n}.png", "item_id": name, "split": split})
    items = pl.DataFrame(
        {
            "item_id": NAMES,
            "title": [f"{name} of our house" for name in NAMES],
            "image": [f"{name}.png" for name in NAMES],
        }
    )
    return Tables(items=items, photos=pl.DataFrame(photos), images_root=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    config = TrainConfig.model_validate(CONFIG)
    return train(config, folder / "out", tables=shop(folder)).bundle


def test_products_that_look_alike_are_identified_by_their_words(bundle: Path) -> None:
    identifier = ProductIdentifier.load(bundle)
    assert identifier.calibration.weights[WORDS] > 1  # type: ignore[attr-defined]
    answers = identifier.identify_many([package(name, 5) for name in NAMES])
    assert [answer.candidates[0].item_id for answer in answers] == list(NAMES)
    assert [answer.words for answer in answers] == [(name.upper(),) for name in NAMES]
    assert WORDS_UNREAD not in answers[0].degraded
    assert identifier.recommender.bundle.identification.sentence().endswith("photos are read")
    blank = identifier.identify(Image.new("RGB", (200, 120), (230, 230, 220)))
    assert blank.words == ()


def test_a_second_training_reads_no_picture_again(
    bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: WordReader, image: object) -> tuple[str, ...]:
        raise AssertionError("it has been read before")

    monkeypatch.setattr(WordReader, "read", read)
    config = TrainConfig.model_validate({**CONFIG, "identification": {"max_read": 1_000}})
    run = train(config, folder / "out", tables=shop(folder))
    assert not next(stage for stage in run.stages if stage.name == "words").skipped
    assert Bundle(run.bundle).identification.words == Bundle(bundle).identification.words
    assert len(list((folder / "out" / STAGES / CACHE).glob("*.ndjson"))) == 1


async def test_the_service_reads_words_also_those_of_an_item_added_a_moment_ago(
    bundle: Path,
) -> None:
    async with running_service(bundle) as service, AsyncClient(service.address) as client:
        answer = await client.identify(encode(package("Kefir", 5)))
        assert (answer.candidates[0].item_id, answer.words) == ("Kefir", ("KEFIR",))
        plain = encode(Image.new("RGB", (40, 40), (230, 230, 220)))
        await client.add_items([Item("new", "Zucchini of our house")], {"new": plain})
        answer = await client.identify(encode(package("Zucchini", 5)))
        assert (answer.candidates[0].item_id, answer.words) == ("new", ("ZUCCHINI",))


def test_the_command_shows_what_was_read(bundle: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    package("Saffran", 5).save(photo)
    shown, as_json = (
        CliRunner().invoke(app, ["identify", str(bundle), str(photo), *option]).stdout
        for option in ((), ("--json",))
    )
    assert "read: SAFFRAN" in shown
    assert json.loads(as_json)["words"] == ["SAFFRAN"]


def test_without_the_extra_training_does_without_and_says_so(
    bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    run = train(TrainConfig.model_validate(CONFIG), folder / "out", tables=shop(folder))
    assert run.bundle != bundle
    said = "words on photos: rapidocr is not installed (pip install 'vitrine-recsys[ocr]')"
    assert said in run.left_out
    assert not Bundle(run.bundle).identification.reads_words
    assert not Bundle(run.bundle).picture_lines
    answer = ProductIdentifier.load(run.bundle).identify(package("Kefir", 5))
    assert answer.words == ()
    assert WORDS_UNREAD not in answer.degraded


def test_without_the_extra_a_bundle_that_reads_answers_and_says_what_is_missing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    answer = ProductIdentifier.load(bundle).identify(package("Kefir", 5))
    assert answer.words == ()
    assert WORDS_UNREAD in answer.degraded
    assert len(answer.candidates) == 5
    assert "words on photos are not read: rapidocr is not installed" in caplog.text
