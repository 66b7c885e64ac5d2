from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundle import Bundle
from recsys.catalogue.embedder import (
    MAX_QUERY_CHARACTERS,
    ItemEmbedder,
    Modalities,
    item_texts,
)
from recsys.config import FusionConfig
from recsys.data.synthetic import Shop
from recsys.errors import InvalidImageError, MissingPartError
from recsys.models.fusion import build_fusion
from recsys.schema import ItemSchema


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> ItemEmbedder:
    return Bundle(tiny_bundle).embedder()


@pytest.fixture(scope="module")
def paths(tiny_shop: Shop) -> list[Path]:
    """Three pictures."""
    return sorted(tiny_shop.images.rglob("*.jpg"))[:3]


@pytest.fixture(scope="module")
def pictures(paths: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def items(*rows: tuple[str | None, str | None]) -> pl.DataFrame:
    """Items with titles and descriptions."""
    records = [
        {"item_id": str(n), "title": title, "description": description}
        for n, (title, description) in enumerate(rows)
    ]
    defaults = {"image": None, "category": [], "price": None, "attributes": [], "available": True}
    records = [record | defaults | {"created_at": None} for record in records]
    return pl.DataFrame(records, schema=ItemSchema.create_empty().schema)


def alone(embedder: ItemEmbedder, *, vision: bool) -> ItemEmbedder:
    """Return an embedder with one tower and an untrained fusion of its output."""
    name = "image" if vision else "text"
    fusion = build_fusion(FusionConfig(dim=8, hidden=8), {name: embedder.fusion.dims[name]})
    if vision:
        return ItemEmbedder(embedder.vision, None, fusion)
    return ItemEmbedder(None, embedder.text, fusion)


def test_the_text_of_an_item_is_its_title_and_description() -> None:
    table = items(("Mug", "Blue"), ("Mug", None), (None, "Blue"), (None, None), ("", None))
    assert item_texts(table) == ["Mug. Blue", "Mug", "Blue", None, None]


def test_each_row_has_the_tower_output_of_its_content_and_zeros_where_absent(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    texts = ["lamp", None, " mug ", "  ", ""]
    images = [None, pictures[0], pictures[1], pictures[2], b""]
    found = embedder.modalities(texts, images)
    assert found.present["text"].tolist() == [True, False, True, False, False]
    assert found.present["image"].tolist() == [False, True, True, True, False]
    assert embedder.text is not None
    assert embedder.vision is not None
    for row, (text, image) in enumerate(zip(texts, images, strict=True)):
        for name, given, tower in (
            ("text", (text or "").strip(), embedder.text),
            ("image", image, embedder.vision),
        ):
            wanted = tower.embed([given])[0] if given else np.zeros(embedder.fusion.dims[name])
            np.testing.assert_allclose(found.embeddings[name][row], wanted, atol=1e-5)


def test_a_modality_passed_as_none_is_absent_in_every_row(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    without_texts = embedder.modalities(None, pictures)
    assert not without_texts.present["text"].any()
    assert without_texts.embeddings["text"].shape == (3, embedder.fusion.dims["text"])
    assert not without_texts.embeddings["text"].any()
    without_pictures = embedder.modalities(["lamp"], None)
    assert without_pictures.present["image"].tolist() == [False]


def test_a_path_and_its_file_contents_have_one_embedding(
    embedder: ItemEmbedder, paths: list[Path], pictures: list[bytes]
) -> None:
    one, other = (embedder.modalities(None, given) for given in (paths, pictures))
    np.testing.assert_allclose(one.embeddings["image"], other.embeddings["image"], atol=1e-6)


def test_a_shared_text_or_picture_is_embedded_once_for_all_its_rows(
    embedder: ItemEmbedder, paths: list[Path]
) -> None:
    assert embedder.vision is not None
    assert embedder.text is not None
    seen = {"text": 0, "image": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(_: object, inputs: tuple[Any, ...], keywords: dict[str, Any], *__: object) -> None:
            seen[name] += len(inputs[0] if inputs else keywords["input_ids"])

        return hook

    networks = {"text": embedder.text.backbone, "image": embedder.vision.backbone}
    hooks = [
        network.register_forward_hook(count(name), with_kwargs=True)
        for name, network in networks.items()
    ]
    one, other = paths[:2]
    found = embedder.modalities(["mug", "lamp", None, " mug"], [one, one, None, other])
    for hook in hooks:
        hook.remove()
    assert seen == {"text": 2, "image": 2}
    for row, picture in ((0, one), (1, one), (3, other)):
        wanted = embedder.vision.embed([picture])[0]
        np.testing.assert_allclose(found.embeddings["image"][row], wanted, atol=1e-5)
    assert np.array_equal(found.embeddings["text"][0], found.embeddings["text"][3])
    assert not np.array_equal(found.embeddings["text"][0], found.embeddings["text"][1])


def test_a_shared_bad_picture_is_named_by_its_first_index(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    good, bad = pictures[0], b"no picture"
    with pytest.raises(InvalidImageError, match=r"^image 3: image cannot be decoded"):
        embedder.modalities(None, [None, good, good, bad, bad])


def test_no_rows_give_no_embeddings(embedder: ItemEmbedder) -> None:
    assert embedder.fuse(embedder.modalities([], [])).shape == (0, 32)
    assert embedder.queries([], []).shape == (0, 32)


def test_fuse_equals_the_fusion_module_row_by_row(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    modalities = embedder.modalities(["lamp", None, "mug"], [None, pictures[0], pictures[1]])
    fused = embedder.fuse(modalities)
    assert fused.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(fused, axis=1), 1.0, atol=1e-5)
    for row in range(3):
        inputs = {
            name: torch.from_numpy(values[row : row + 1])
            for name, values in modalities.embeddings.items()
        }
        present = [[bool(modalities.present[name][row]) for name in embedder.fusion.modalities]]
        wanted = embedder.fusion(inputs, torch.tensor(present)).detach().numpy()[0]
        np.testing.assert_allclose(fused[row], wanted, atol=1e-5)


def test_rows_without_a_modality_are_zero_and_absent_rows_do_not_leak(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    given = embedder.modalities(["lamp", None], [pictures[0], None])
    assert not embedder.fuse(given)[1].any()
    absent = {name: np.array([False, False]) for name in given.present}
    assert not embedder.fuse(Modalities(given.embeddings, absent)).any()
    rows = {name: values.copy() for name, values in given.embeddings.items()}
    for values in rows.values():
        values[1] = 7.0
    leaked = embedder.fuse(Modalities(rows, given.present))
    assert np.array_equal(leaked, embedder.fuse(given))


def test_an_item_equals_a_query_of_its_words_and_picture(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    table = items(("Nordic lamp", "Warm"), ("Mug", None), (None, None), (None, None))
    found = embedder.items(table, [pictures[0], None, pictures[1], None])
    queries = embedder.queries(["Nordic lamp. Warm", "Mug", None], [pictures[0], None, pictures[1]])
    np.testing.assert_allclose(found[:3], queries, atol=1e-5)
    assert not found[3].any()


def test_a_picture_alone_is_fused_as_an_item_without_words(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    table = items(("Mug", "Blue"), ("Lamp", None), (None, None))
    alone = embedder.item_modalities(table, pictures).only("image")
    wanted = embedder.fuse(embedder.modalities(None, pictures))
    assert np.allclose(embedder.fuse(alone), wanted, atol=1e-6)


def test_the_image_column_of_items_is_ignored(embedder: ItemEmbedder) -> None:
    table = items(("Mug", None))
    named = table.with_columns(image=pl.lit("../../etc/passwd"))
    assert np.array_equal(embedder.items(named, [None]), embedder.items(table, [None]))


def test_the_items_of_the_shop_get_the_embeddings_of_the_bundle(
    tiny_bundle: Path, tiny_shop: Shop, embedder: ItemEmbedder
) -> None:
    bundle = Bundle(tiny_bundle)
    table = bundle.items.head(20)
    pictures = [
        (tiny_shop.images / image).read_bytes() if image else None for image in table["image"]
    ]
    found = embedder.items(table, pictures)
    np.testing.assert_allclose(found, bundle.item_embeddings[:20], atol=1e-5)


def test_networks_are_in_evaluation_mode(embedder: ItemEmbedder) -> None:
    fusion = build_fusion(FusionConfig(dim=8, dropout=0.9), {"text": embedder.fusion.dims["text"]})
    text = ItemEmbedder(None, embedder.text, fusion.train())
    assert np.array_equal(text.query("lamp", None), text.query("lamp", None))


def test_one_tower_embeds_its_own_modality(embedder: ItemEmbedder, pictures: list[bytes]) -> None:
    table = items(("Mug", None), (None, None))
    words = alone(embedder, vision=False).items(table, [pictures[0], pictures[0]])
    assert [bool(row.any()) for row in words] == [True, False]
    looks = alone(embedder, vision=True).items(table, [None, pictures[0]])
    assert [bool(row.any()) for row in looks] == [False, True]


def test_a_query_without_its_encoder_is_refused(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    with pytest.raises(MissingPartError, match="no vision tower: query it with words"):
        alone(embedder, vision=False).query(None, pictures[0])
    with pytest.raises(MissingPartError, match="no text encoder: query it with an image"):
        alone(embedder, vision=True).query("lamp", None)
    with pytest.raises(MissingPartError, match="no vision tower"):
        alone(embedder, vision=False).query("lamp", pictures[0])


@pytest.mark.parametrize(("text", "image"), [(None, None), ("", b""), (" \n", None)])
def test_a_batch_with_an_empty_query_is_refused(
    embedder: ItemEmbedder, text: str | None, image: bytes | None
) -> None:
    with pytest.raises(ValueError, match="query must have text or image bytes, got neither"):
        embedder.queries(["lamp", text], [None, image])


def test_a_query_may_be_as_long_as_the_limit_and_no_longer(embedder: ItemEmbedder) -> None:
    embedder.check_query("x" * MAX_QUERY_CHARACTERS, None)
    with pytest.raises(ValueError, match="at most 1000 characters, got 1001"):
        embedder.check_query("x" * (MAX_QUERY_CHARACTERS + 1), None)


def test_an_unreadable_picture_is_named_by_its_index(
    embedder: ItemEmbedder, pictures: list[bytes]
) -> None:
    with pytest.raises(InvalidImageError, match="image 1: image cannot be decoded"):
        embedder.items(items(("a", None), ("b", None)), [pictures[0], b"not a picture"])


def test_the_index_of_a_bad_picture_counts_absent_pictures(embedder: ItemEmbedder) -> None:
    with pytest.raises(InvalidImageError, match=r"^image 2: image cannot be decoded"):
        embedder.queries(["lamp", "mug", None], [None, None, b"no picture"])


def test_every_item_needs_an_entry_for_its_picture(embedder: ItemEmbedder) -> None:
    with pytest.raises(ValueError, match=r"pictures must have one entry per item \(1\), got 2"):
        embedder.items(items(("Mug", None)), [None, None])
