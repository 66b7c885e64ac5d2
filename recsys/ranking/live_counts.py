"""What users took since the statistics of a bundle, as part of what ranking knows of items."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch

from recsys.catalogue.store import Catalogue
from recsys.ranking.item_table import ItemTable
from recsys.ranking.statistics import PERIODS

# The short mean life of a count is that of the shortest period, in windows.
SHORT = min(PERIODS)
_IS_SHORT = [period < 1 for period in PERIODS]


class LiveCount(NamedTuple):
    """Users of one item since the statistics, each weighing exp(-age / mean life).

    Such a sum is, for a steady flow of users, the number of them in a period as long as the mean
    life.

    Args:
        users: Users with any event, by a mean life of ``SHORT`` windows.
        users_long: The same by a mean life of one window.
        buyers: Users with an event of the target kinds, by the short mean life.
        buyers_long: The same by the long one.
    """

    users: float = 0.0
    users_long: float = 0.0
    buyers: float = 0.0
    buyers_long: float = 0.0


def with_counts(
    table: ItemTable, catalogue: Catalogue, counts: Mapping[str, LiveCount]
) -> ItemTable:
    """Return the table with the live counts added to the users and buyers of every period.

    Periods below one window take the short counts, the others the long ones. Everything else is as
    it was, and so are items without counts.

    Args:
        table: Table of every item of the catalogue.
        catalogue: Items in the order of the table.
        counts: Counts by item id; items that are not in the catalogue are left out.
    """
    rows = [(row, one) for name, one in counts.items() if (row := catalogue.find(name)) is not None]
    if not rows:
        return table
    places = torch.tensor([row for row, _ in rows], device=table.users.device)
    added = torch.tensor([one for _, one in rows], dtype=torch.float32, device=places.device)
    is_short = torch.tensor(_IS_SHORT, device=places.device)
    renewed = {}
    for name, short, long in (("users", 0, 1), ("buyers", 2, 3)):
        values = getattr(table, name).clone()
        more = torch.where(is_short, added[:, short, None], added[:, long, None])  # (R, P)
        values[places] = torch.log1p(torch.expm1(values[places]) + more)
        renewed[name] = values
    found = replace(table, **renewed)
    found.__dict__["factor_gram"] = table.factor_gram  # which counts do not change
    return found
