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


def train_photos(shop: Shop) -> pl.DataFrame:
    return pl.read_parquet(shop.photos).filter(split="train").head(30)


def test_training_photos_are_mostly_identified(
    identifier: ProductIdentifier, tiny_shop: Shop
) -> None:
    hits = 0
    for photo in train_photos(tiny_shop).iter_rows(named=True):
        answer = identifier.identify((tiny_shop.images / photo["image"]).read_bytes(), k=5)
        hits += photo["item_id"] in [one.item_id for one in answer.candidates]
    assert hits > 15  # chance is 5 of 100 products


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
