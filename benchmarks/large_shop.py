"""Write the bundle of a generated shop with many items, to measure the service.

Items, events and embeddings are those of ``benchmarks.offers``, four of its people being one user,
so that users have about 50 events. The user encoder and the ranking network are as they begin, and
the text encoder is tiny: the answers are worth nothing, but cost what those of a trained bundle do.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.offers import DAYS, DIM, START_US, build_catalogue, generate_events, generate_shop
from recsys.bundle import Contents, RankingPart, write_bundle
from recsys.config import FusionConfig, RankerConfig
from recsys.data.interactions import MICROSECONDS_PER_DAY
from recsys.models.fusion import build_fusion
from recsys.models.ranker import build_ranker
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.features import FEATURES
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import build_statistics
from recsys.schema import EventSchema
from text.config import TextConfig
from text.networks.build import build_encoder

OUT = Path("out/large")
PEOPLE_OF_USER = 4
EASE_MAX_ITEMS = 3_000
# About 200 items are ranked for a user.
OFFERS = dict.fromkeys(("next_visit", "together", "together_recent", "similar_users"), 25) | {
    "related": 0,
    **dict.fromkeys(("taste", "popular", "new"), 25),
}


def bundle_of(n_items: int) -> Path:
    """Return the bundle of a shop with some items; it is written if it is not there."""
    folder = OUT / str(n_items)
    written = [path.parent for path in folder.glob("*/manifest.json")]
    return written[0] if written else write_bundle_of(n_items, folder)


def write_bundle_of(n_items: int, folder: Path) -> Path:
    """Write the bundle of a shop with some items into a folder, and return its path."""
    generator = np.random.default_rng(n_items)
    torch.manual_seed(n_items)
    shop = generate_shop(n_items, generator)
    people = generate_events(shop, n_items // 3, generator)
    n_users = -(-people.n_users // PEOPLE_OF_USER)
    events = replace(
        people,
        user_ids=[f"u{number}" for number in range(n_users)],
        user_rows=people.user_rows // PEOPLE_OF_USER,
    )
    items, embeddings = build_catalogue(shop, generator)
    end_us = START_US + DAYS * MICROSECONDS_PER_DAY
    encoder = UserEncoder(DIM, n_kinds=1, spec=UserEncoderSpec())
    encoder.taste.fit_scale(torch.from_numpy(embeddings))
    text = build_encoder(
        TextConfig(hidden=16, layers=1, heads=2, vocab_size=400),
        [f"topic {topic}" for topic in range(100)],
        seed=0,
    )
    rows = pl.DataFrame(
        {
            "user_id": [events.user_ids[row] for row in events.user_rows.tolist()],
            "item_id": items["item_id"].gather(events.item_rows),
            "kind": "purchase",
            "timestamp": pl.Series(events.timestamps_us).cast(pl.Datetime("us", "UTC")),
            "quantity": 1.0,
        }
    ).with_columns(value=None)
    contents = Contents(
        items=items,
        item_embeddings=embeddings,
        fusion=build_fusion(FusionConfig(dim=DIM, hidden=16), {"text": text.dim}).eval(),
        text=text,
        ranking=RankingPart(
            events=EventSchema.validate(rows, cast=True),
            ranker=UserRanker(encoder, build_ranker(RankerConfig(), len(FEATURES)).eval()),
            statistics=build_statistics(
                events, end_us, target_kinds=["purchase"], ease_max_items=EASE_MAX_ITEMS
            ),
            target_kinds=("purchase",),
            split_us=end_us,
            offers=OFFERS,
        ),
    )
    return write_bundle(contents, folder)
