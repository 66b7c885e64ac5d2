from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.data.synthetic import Shop
from recsys.errors import InvalidImageError, MissingPartError
from recsys.identifier import ProductIdentifier
from recsys.pipeline import Run
from recsys.recommender import Recommender
from recsys.schema import ItemSchema


@pytest.fixture
def identifier(tiny_bundle: Path) -> ProductIdentifier:
    return ProductIdentifier(Recommender(Bundle(tiny_bundle)))


def test_the_studio_picture_of_a_product_without_photos_is_that_product(
    identifier: ProductIdentifier, tiny_shop: Shop
) -> None:
    photographed = pl.read_parquet(tiny_shop.photos).filter(split="train")["item_id"]
    items = pl.read_parquet(tiny_shop.items).filter(
        pl.col("image").is_not_null(), ~pl.col("item_id").is_in(photographed.implode())
    )
    assert len(items) > 10
    for item in items.iter_rows(named=True):
        answer = identifier.identify((tiny_shop.images / item["image"]).read_bytes(), k=1)
        assert answer.candidates[0].item_id == item["item_id"]


def test_probabilities_are_those_of_all_products_together(identifier: ProductIdentifier) -> None:
    n_items = len(identifier.recommender.catalogue)
    embedding = identifier.recommender.catalogue.embeddings[0].numpy()
    answer = identifier.identify_embedding(embedding, k=n_items)
    scores = [one.score for one in answer.candidates]
    assert sum(scores) == pytest.approx(1.0, abs=1e-4)
    assert scores == sorted(scores, reverse=True)
    assert answer.known == (answer.probability >= identifier._identification.calibration.threshold)


def test_a_product_upserted_with_one_picture_is_identified_at_once(
    identifier: ProductIdentifier, tiny_shop: Shop
) -> None:
    recommender = identifier.recommender
    unknown = pl.read_parquet(tiny_shop.unknown).row(0, named=True)
    picture = (tiny_shop.images / unknown["image"]).read_bytes()
    donor = recommender.catalogue.records(recommender.catalogue.item_ids[:1])
    fresh = donor.with_columns(
        item_id=pl.lit("fresh"),
        title=pl.lit(None, dtype=pl.String),
        description=pl.lit(None, dtype=pl.String),
    )
    fresh = ItemSchema.cast(fresh)
    recommender.upsert(fresh, recommender.embedder.items(fresh, [picture]))
    answer = identifier.identify(picture, k=3)
    assert answer.candidates[0].item_id == "fresh"
    recommender.delete(["fresh"])
    assert "fresh" not in [one.item_id for one in identifier.identify(picture, k=100).candidates]


def test_a_bundle_without_photos_says_that_it_cannot_identify(tiny_run: Run) -> None:
    recommender = Recommender(Bundle(tiny_run.ablations["text-only"]))
    with pytest.raises(MissingPartError, match="no 'identification' part"):
        ProductIdentifier(recommender)


def test_bad_photos_and_bad_k_are_refused(identifier: ProductIdentifier) -> None:
    with pytest.raises(InvalidImageError):
        identifier.identify(b"not a picture")
    with pytest.raises(ValueError, match="k must be between"):
        identifier.identify_embedding(np.zeros(32, dtype=np.float32), k=0)
