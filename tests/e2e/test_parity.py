from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from recsys.bundle import Bundle
from recsys.recommender import Recommender
from serving.client import AsyncClient, Event
from serving.testing import running_service


async def test_a_replayed_history_scores_live_as_it_does_offline(tiny_bundle: Path) -> None:
    recommender = Recommender(Bundle(tiny_bundle))
    interactions = recommender.bundle.interactions
    now_us = int(interactions.timestamps_us[-1]) + 1
    now = datetime.fromtimestamp(now_us / 1e6, UTC)
    candidates = recommender.catalogue.item_ids[::3]
    counts = np.bincount(interactions.user_rows, minlength=interactions.n_users)
    async with running_service(tiny_bundle) as service, AsyncClient(service.address) as client:
        for user in np.argsort(counts, kind="stable")[-40::8]:
            history = recommender.history(interactions.user_ids[user])
            events = [
                Event(
                    f"replayed-{user}",
                    recommender.catalogue.item_ids[row],
                    recommender.kind_names[kind],
                    timestamp=datetime.fromtimestamp(time_us / 1e6, UTC),
                )
                for row, kind, time_us in zip(*(part.tolist() for part in history), strict=True)
            ]
            assert events
            await client.record_events(events)
            live = await client.rank(f"replayed-{user}", candidates, now=now)
            offline = recommender.rank(history, candidates, now_us=now_us)
            scores = {one.item_id: one.score for one in live.results}
            gaps = [abs(scores[one.item_id] - one.score) for one in offline]
            assert max(gaps) < 1e-5
