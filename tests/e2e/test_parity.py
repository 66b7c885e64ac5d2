from pathlib import Path

import numpy as np

from recsys.bundle import Bundle
from recsys.data.timestamps import from_us
from recsys.recommender import Recommender
from serving.client import AsyncClient, Event
from serving.testing import running_service


async def test_a_service_scores_a_recorded_history_as_the_recommender_does_offline(
    tiny_bundle: Path,
) -> None:
    recommender = Recommender(Bundle(tiny_bundle))
    interactions = recommender.bundle.interactions
    now = from_us(int(interactions.timestamps_us[-1]) + 1)
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
                    timestamp=from_us(time_us),
                )
                for row, kind, time_us in zip(*(part.tolist() for part in history), strict=True)
            ]
            assert events
            await client.record_events(events)
            live = await client.rank(f"replayed-{user}", candidates, now=now)
            offline = recommender.rank(history, candidates, now=now)
            scores = {one.item_id: one.score for one in live.results}
            gaps = [abs(scores[one.item_id] - one.score) for one in offline]
            assert max(gaps) < 1e-5
