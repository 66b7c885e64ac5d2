"""A few users as people see them: what they did, what is recommended, and where that is wrong."""

from pathlib import Path

import numpy as np

from recsys.answers import Result
from recsys.bundle import Bundle
from recsys.data.arrays import Ints
from recsys.data.interactions import last_moment
from recsys.data.timestamps import from_us
from recsys.evaluation.queries import Queries
from recsys.evaluation.results import Failure, GalleryItem, GalleryUser, headline
from recsys.evaluation.systems import bundle_split, split_moment
from recsys.evaluation.tables import Answered
from recsys.recommender import Recommender

GALLERY_USERS = 3
GALLERY_ITEMS = 6


def regular_users(bundle: Bundle, images_root: Path | None) -> list[GalleryUser]:
    """Return what a few users did before the split, what is recommended, and what they took.

    Args:
        bundle: A bundle with its ranking part.
        images_root: Folder that picture paths are relative to; None shows no picture.
    """
    interactions, split = bundle.interactions, split_moment(bundle)
    recommender, rules = Recommender(bundle, as_of=split), bundle.rules.without_exploration()
    now = from_us(last_moment(split, interactions.before(split)))
    later = interactions.of_kinds(bundle.target_kinds).since(split).histories()
    users = []
    for user in _regulars(bundle):
        user_id = interactions.user_ids[user]
        history = recommender.history(user_id)
        last = list(dict.fromkeys(history.item_rows[::-1].tolist()))[:GALLERY_ITEMS]
        results = recommender.recommend(history, GALLERY_ITEMS, now=now, explain=True, rules=rules)
        rows = [recommender.catalogue.row_of[result.item_id] for result in results]
        recommended = [
            _item(bundle, images_root, row, _note(result), row in later[user].item_rows)
            for row, result in zip(rows, results, strict=True)
        ]
        users.append(
            GalleryUser(user_id, [_item(bundle, images_root, row) for row in last], recommended)
        )
    return users


def failures(
    bundle: Bundle, queries: Queries, answered: Answered, images_root: Path | None
) -> list[Failure]:
    """Return the users for whom ours falls furthest behind the best baseline, the worst first.

    Args:
        bundle: The bundle whose answers are ours.
        queries: Queries that were answered.
        answered: Results with their roles.
        images_root: Folder that picture paths are relative to; None shows no picture.
    """
    ours = next(result for role, result in answered if role == "ours")
    metric = headline(ours.per_user)[0]
    baselines = [result for role, result in answered if role == "baseline"]
    best = max(baselines, key=lambda one: one.estimates[metric].mean)
    losses = best.per_user[metric] - ours.per_user[metric]
    worst = np.argsort(-losses, kind="stable")[:GALLERY_USERS]
    histories = bundle_split(bundle).train.histories()

    def show(rows: Ints, right: Ints) -> list[GalleryItem]:
        shown = rows[rows >= 0][:GALLERY_ITEMS].tolist()
        return [_item(bundle, images_root, row, taken=row in right) for row in shown]

    nothing: Ints = np.empty(0, dtype=np.int64)
    found = []
    for place in worst[losses[worst] > 0].tolist():
        user, right = int(queries.user_rows[place]), queries.relevant[place]
        past = dict.fromkeys(histories[user].item_rows[::-1].tolist())
        found.append(
            Failure(
                user_id=bundle.interactions.user_ids[user],
                metric=metric,
                ours=float(ours.per_user[metric][place]),
                theirs=float(best.per_user[metric][place]),
                system=best.name,
                history=show(np.array(list(past), dtype=np.int64), nothing),
                right=show(right, nothing),
                our_list=show(ours.ranked[place], right),
                their_list=show(best.ranked[place], right),
            )
        )
    return found


def _regulars(bundle: Bundle) -> Ints:
    """Return a few user rows, spread over the users with events on both sides of the split."""
    interactions, split = bundle.interactions, split_moment(bundle)
    before = np.unique(interactions.before(split).user_rows)
    after = np.unique(interactions.since(split).user_rows)
    both = np.intersect1d(before, after)
    return both[np.linspace(0, len(both) - 1, min(GALLERY_USERS, len(both))).astype(np.int64)]


def _note(result: Result) -> str:
    assert result.reason is not None, "the recommender was asked to explain"
    return result.reason.text


def _item(
    bundle: Bundle, images_root: Path | None, row: int, note: str = "", taken: bool = False
) -> GalleryItem:
    # The bundle's own table, for that of the shop may be a later one with other rows.
    item = bundle.items.row(row, named=True)
    picture = None
    if item["image"] is not None and images_root is not None:
        file = images_root / item["image"]
        picture = file.read_bytes() if file.is_file() else None
    return GalleryItem(item["title"] or item["item_id"], picture, note, taken)
