"""Words of a list, by the two halves of a tiny checkpoint whose cosines transformers gives."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax
from typer.testing import CliRunner

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.cli.app import app
from recsys.config import FusionConfig, TrainConfig
from recsys.curation.annotation import AnnotateOptions, annotate_table, annotate_words, read_words
from recsys.errors import DataError, InvalidArgumentError, MissingPartError
from recsys.identification.heads import HeadPictures, HeadsPart, Reading
from recsys.models.fusion import build_fusion
from recsys.training.common_space import find_common_space, keeps_weights, name_pictures
from tests.made_pairs import SIZE, make_pair
from tests.planted import smooth_picture
from text.config import TextConfig
from text.encoder import TextEncoder
from text.networks.build import build_encoder
from vision.labelling.imprinting import compute_features
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

WORDS = ["red", "a mug", "mug photo"]  # each the nearest to a third of the pictures
CLASSES = {"category_1": ["Home", "mug photo"], "category_2": ["Home > red", "Home > a mug"]}


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionTower, TextEncoder]:
    """Both halves of a tiny CLIP checkpoint."""
    folder = tmp_path_factory.mktemp("clip")
    make_pair("clip", folder)
    encoder = build_encoder(TextConfig(checkpoint=str(folder)), [], seed=0)
    backbone = build_backbone(f"transformers/{folder}", pretrained=True, size=SIZE)
    return VisionTower(backbone, dim=encoder.dim, classes=CLASSES).eval(), encoder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Pictures of smooth random colours."""
    paths = [tmp_path / f"{n}.png" for n in range(40)]
    for n, path in enumerate(paths):
        smooth_picture(n).save(path)
    return paths


def _bundle(
    halves: tuple[VisionTower, TextEncoder], folder: Path, heads: HeadsPart | None
) -> Bundle:
    tower, encoder = halves
    fusion = build_fusion(FusionConfig(dim=8, hidden=8), {"image": tower.dim, "text": encoder.dim})
    contents = Contents(
        items=pl.DataFrame({"item_id": ["a"]}),
        item_embeddings=np.zeros((1, 8), np.float32),
        fusion=fusion.eval(),
        vision=tower,
        text=encoder,
        heads=heads,
        common_space=find_common_space(tower, encoder, fusion, heads, untrained=True),
    )
    return Bundle(write_bundle(contents, folder))


def _seen(tower: VisionTower, pictures: list[Path], labels: np.ndarray) -> HeadsPart:
    """Return photos of val with a word each; only the last word is a category of one level."""
    coarse, fine = np.where(labels == 2, 1, 0), np.where(labels == 2, -1, labels)
    kept = HeadPictures(
        compute_features(tower, pictures), {"category_1": coarse, "category_2": fine}
    )
    return HeadsPart(kept, kept, Reading())


def test_probabilities_are_those_of_cosines_at_the_checkpoints_temperature(
    halves: tuple[VisionTower, TextEncoder], pictures: list[Path], tmp_path: Path
) -> None:
    bundle = _bundle(halves, tmp_path / "bundles", None)
    assert bundle.common_space.space == "towers"
    tower, encoder = halves
    assert encoder.temperature == pytest.approx(0.07, rel=0.01), "what CLIP begins with"
    cosines = tower.embed(pictures) @ encoder.embed(WORDS).T
    wanted = softmax(cosines.astype(np.float64) / bundle.common_space.temperature, axis=1)
    found = annotate_words(bundle, pictures, WORDS, min_probability=0.6)
    np.testing.assert_allclose(found["class_probability"], wanted.max(axis=1), atol=1e-4)
    names = [
        WORDS[n] if p >= 0.6 else None for n, p in zip(wanted.argmax(1), wanted.max(1), strict=True)
    ]
    assert found["class"].to_list() == names
    assert {None, *WORDS} >= set(names) > {None}, "both cases were seen"
    sums = found["classes"].list.eval(pl.element().struct["probability"].sum()).list.first()
    np.testing.assert_allclose(sums, 1.0, atol=1e-6)
    assert annotate_words(bundle, [], WORDS).schema == found.schema


def test_the_temperature_is_fitted_where_photos_have_names(
    halves: tuple[VisionTower, TextEncoder], pictures: list[Path], tmp_path: Path
) -> None:
    tower, encoder = halves
    nearest = (tower.embed(pictures) @ encoder.embed(WORDS).T).argmax(axis=1)
    bundle = _bundle(halves, tmp_path / "bundles", _seen(tower, pictures, nearest))
    space = bundle.common_space
    assert (space.space, space.accuracy, space.n_photos) == ("towers", 1.0, 40)
    found = annotate_words(bundle, pictures, WORDS, min_probability=0.0)
    assert found["class"].to_list() == [WORDS[n] for n in nearest]


def test_towers_that_are_no_pair_are_refused(
    halves: tuple[VisionTower, TextEncoder], pictures: list[Path], tmp_path: Path
) -> None:
    tower, _ = halves
    wrong = np.random.default_rng(0).integers(0, 3, len(pictures))
    bundle = _bundle(halves, tmp_path / "bundles", _seen(tower, pictures, wrong))
    with pytest.raises(MissingPartError, match=r"cannot be compared: .* epochs in \[alignment\]"):
        annotate_words(bundle, pictures, WORDS)
    alone = find_common_space(*halves, bundle.fusion, None, untrained=False)
    assert alone is None, "trained further, and nothing shows that they still agree"
    assert find_common_space(tower, None, bundle.fusion, None, untrained=True) is None


def test_a_name_is_the_last_part_of_the_finest_category() -> None:
    labels = {"category_1": np.array([0, 1, 0, -1]), "category_2": np.array([1, -1, -1, -1])}
    named = name_pictures(HeadPictures(np.zeros((4, 2), np.float32), labels), CLASSES)
    assert named is not None
    rows, of_rows, words = named
    assert rows.tolist() == [0, 1, 2]
    assert [words[n] for n in of_rows] == ["a mug", "mug photo", "Home"]


def test_weights_are_kept_where_nothing_but_classifiers_is_trained() -> None:
    kept = {"vision": {"transfer": {"frozen_stages": "all"}}, "text": {"epochs": 0}}
    data = {"data": {"items": "items.parquet"}}
    assert keeps_weights(TrainConfig.model_validate({**data, **kept}))
    for change in ({"text": {"epochs": 1}}, {"vision": {}}, {"alignment": {"epochs": 1}}):
        assert not keeps_weights(TrainConfig.model_validate({**data, **kept, **change}))


def test_a_table_is_annotated_with_the_words_of_a_file(
    halves: tuple[VisionTower, TextEncoder], pictures: list[Path], tmp_path: Path
) -> None:
    bundle = _bundle(halves, tmp_path / "bundles", None)
    (tmp_path / "words.txt").write_text("\ufeffred\n\n a mug \nmug photo\n", "utf-8")
    words = read_words(tmp_path / "words.txt")
    assert words == WORDS
    pl.DataFrame({"image": [path.name for path in pictures]}).write_csv(tmp_path / "photos.csv")
    out = tmp_path / "out.parquet"
    annotate_table(bundle, tmp_path / "photos.csv", out, AnnotateOptions(words=words))
    found = pl.read_parquet(out)
    assert found["class"].equals(annotate_words(bundle, pictures, words)["class"])
    again = tmp_path / "again.parquet"
    arguments = ["annotate", bundle.path, "--photos", tmp_path / "photos.csv", "--out", again]
    command = [*map(str, arguments), "--classes", str(tmp_path / "words.txt")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert pl.read_parquet(again).equals(found)
    both = CliRunner().invoke(app, [*command, "--calibrate", "shop.toml"])
    assert "leave out --classes" in str(both.exception)
    with pytest.raises(DataError, match=r"gone\.txt cannot be read"):
        read_words(tmp_path / "gone.txt")
    for bad in ([], ["mug"], ["mug", "mug"], ["mug", " "]):
        with pytest.raises(InvalidArgumentError, match="words must be two or more, different"):
            annotate_words(bundle, pictures, bad)
