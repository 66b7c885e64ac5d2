"""Show a share of a list's places to items from further down, with exact propensities."""

from typing import NamedTuple

import numpy as np

from recsys.data.arrays import Doubles, Ints

# Number of places after the list, of which exploration draws the items that it shows.
EXPLORED = 100


class Listed(NamedTuple):
    """The list of one user (L,).

    Args:
        positions: Positions of the items among the candidates, int64.
        propensities: Probability with which each item stands at its place.
    """

    positions: Ints
    propensities: Doubles


def explore(
    listed: Ints, k: int, pinned: Ints, share: float, generator: np.random.Generator
) -> Listed:
    """Return a list in which a share of the places shows an item from further down instead.

    Each place that is not pinned decides by itself, with probability ``share``, and every item from
    further down is as likely to be drawn for it. So an item's propensity is the share divided by
    the number of those items, and that of the item that would stand there is what is left to 1.

    Args:
        listed: The list without exploration, with the places after it (L,).
        k: Length of the list.
        pinned: Pinned positions, which stay as they are.
        share: Share of the places.
        generator: Source of randomness.
    """
    own, further = listed[:k], np.setdiff1d(listed[k:], pinned)
    propensities = np.ones(len(own))
    places = np.flatnonzero(~np.isin(own, pinned))
    # Where the places outnumber the items, some draw nothing and keep their own.
    n_drawn = max(len(places), len(further))
    drawn = generator.permutation(n_drawn)[: len(places)]
    changes = (generator.random(len(places)) < share) & (drawn < len(further))
    if n_drawn:
        propensities[places] = np.where(
            changes, share / n_drawn, 1 - share * len(further) / n_drawn
        )
    own = own.copy()
    own[places[changes]] = further[drawn[changes]]
    return Listed(own, propensities)
