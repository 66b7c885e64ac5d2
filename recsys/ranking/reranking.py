"""Make the list that is shown from ranked candidates, by a shop's rules."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.catalogue.filters import Filters
from recsys.catalogue.store import Catalogue
from recsys.data.arrays import Doubles, Ints
from recsys.data.timestamps import from_us
from recsys.errors import InvalidArgumentError
from recsys.ranking.candidates import Candidates, best_places
from recsys.ranking.exploration import EXPLORED, Listed, explore
from recsys.ranking.profiles import UserProfiles
from recsys.rules import Pin, Rules, Selection


class Reranker:
    """Makes lists by rules, as they are in force at one moment.

    Everything is counted in places, not in scores: the scores of trees, networks and counts have no
    common unit, so the same rule would mean another thing for each of them.

    Args:
        rules: Rules of the lists.
        catalogue: Items of the lists.
        popularity: log(1 + users) of each item (N,).
        now_us: Moment of the lists, microseconds UTC.
    """

    def __init__(self, rules: Rules, catalogue: Catalogue, popularity: Tensor, now_us: int) -> None:
        self._rules, self._catalogue, self._now = rules, catalogue, from_us(now_us)
        self.allowed = np.ones(len(catalogue), dtype=np.bool_)
        for block in rules.block:
            self.allowed &= ~self._selected(block)
        pins = sorted(rules.pin, key=lambda pin: pin.position)
        found = {pin.position: catalogue.find(pin.item_id) for pin in pins if pin.holds(self._now)}
        self._pins = {place: row for place, row in found.items() if row is not None}
        self._shift = self._shifts(popularity)

    def order(self, rows: Ints, k: int, user: int = 0) -> Listed:
        """Return the list of at most ``k`` of one user's candidates.

        Args:
            rows: Item rows of the candidates that may be shown, best first (C,).
            k: Length of the list; fewer where the rules leave fewer.
            user: Number of the user among those of one request, who explore independently.
        """
        order = np.arange(len(rows))
        if self._shift is not None:
            places = np.log2(1 + order) + self._shift[rows]
            # Rounded, so that an item that draws level with one before it stays behind it.
            order = np.argsort(places.round(9), kind="stable")
        pins = self._pins_among(rows[order])
        share = self._rules.explore
        listed = order[self._fill(rows[order], dict(pins), k + EXPLORED if share else k)]
        if not share:
            return Listed(listed, np.ones(len(listed)))
        seed = self._rules.seed
        generator = np.random.default_rng(None if seed is None else [seed, user])
        return explore(listed, k, order[list(pins.values())], share, generator)

    def _fill(self, rows: Ints, pins: dict[int, int], length: int) -> Ints:
        """Return the positions of a list: pins at their places, else the best that is left.

        The best has the largest marginal relevance (Carbonell and Goldstein, 1998,
        https://doi.org/10.1145/290941.291025): (1 - diversity) times its relevance, minus diversity
        times the largest cosine with an item of the list. Relevance is the discount of NDCG,
        1 / log2(1 + place). It differs from the paper in that a list may have pinned items, which
        count as listed from the start; they also count towards the largest number of a category.

        Args:
            rows: Item rows, best first (C,).
            pins: Position among the rows of each pinned item, by its place, ascending.
            length: Number of places.
        """
        rules, relevance = self._rules, 1 / np.log2(2 + np.arange(len(rows)))
        crowd = _Crowd(rules, self._catalogue, rows)
        free = np.ones(len(rows), dtype=np.bool_)
        for position in pins.values():
            free[position] = False
            crowd.add(position)
        listed: list[int] = []
        while len(listed) < length:
            open_to = free & crowd.has_room
            if len(listed) + 1 in pins:
                listed.append(pins.pop(len(listed) + 1))
            elif open_to.any():
                gain = (1 - rules.diversity) * relevance - rules.diversity * crowd.likeness
                best = int(np.where(open_to, gain, -np.inf).argmax())
                listed.append(best)
                free[best] = False
                crowd.add(best)
            elif pins:  # too few items to reach their places
                listed.append(pins.pop(min(pins)))
            else:
                break
        return np.array(listed, dtype=np.int64)

    def _pins_among(self, rows: Ints) -> dict[int, int]:
        """Return the positions among the rows of the pinned items that are there, by place."""
        found = {place: np.flatnonzero(rows == row) for place, row in self._pins.items()}
        return {place: int(at[0]) for place, at in found.items() if len(at)}

    def _shifts(self, popularity: Tensor) -> Doubles | None:
        """Return what is added to the binary logarithm of items' places (N,); None for nothing."""
        rules = self._rules
        if not (rules.popularity_penalty or rules.boost or rules.bury):
            return None
        users = popularity.cpu().numpy().astype(np.float64)  # log(1 + users)
        shift: Doubles = rules.popularity_penalty / np.log(2) * users
        for shifts, sign in ((rules.boost, -1), (rules.bury, 1)):
            for one in shifts:
                shift[self._selected(one)] += sign * np.log2(one.strength)
        return shift

    def _selected(self, selection: Selection) -> NDArray[np.bool_]:
        """Return which items a rule in force is for, bool (N,)."""
        if not selection.holds(self._now):
            return np.zeros(len(self._catalogue), dtype=np.bool_)
        wanted = Filters(
            category=selection.category, attributes=selection.attributes, available_only=False
        )
        selected = self._catalogue.mask(wanted)
        if selection.item_ids:
            named = np.zeros_like(selected)
            rows = [self._catalogue.find(item_id) for item_id in selection.item_ids]
            named[[row for row in rows if row is not None]] = True
            selected &= named
        return selected


class _Crowd:
    """What the items of a list so far mean for each candidate.

    ``likeness`` is the largest cosine with one of them (C,), and ``has_room`` whether its category
    may have one more (C,).
    """

    def __init__(self, rules: Rules, catalogue: Catalogue, rows: Ints) -> None:
        self.likeness = np.full(len(rows), -1.0)
        self.has_room = np.ones(len(rows), dtype=np.bool_)
        self._vectors = self._codes = None
        if rules.diversity:
            at = torch.from_numpy(rows).to(catalogue.device)
            self._vectors = catalogue.embeddings[at].cpu().numpy()  # (C, D)
        if rules.max_per_category is not None and rules.category_level is not None:
            self._codes = catalogue.categories[rows, rules.category_level - 1]
            self._counts = np.zeros(len(rows), dtype=np.int64)
            self._most = rules.max_per_category

    def add(self, position: int) -> None:
        """Count a candidate as an item of the list."""
        if self._vectors is not None:
            np.maximum(self.likeness, self._vectors @ self._vectors[position], out=self.likeness)
        if self._codes is not None and self._codes[position] >= 0:
            self._counts += self._codes == self._codes[position]
            self.has_room = self._counts < self._most


def check_rules(rules: Rules, catalogue: Catalogue) -> Rules:
    """Return the rules of a request.

    Raises:
        InvalidArgumentError: If they are anything but ``Rules``.
        UnknownItemError: If they name an item that is not in the catalogue.
    """
    if not isinstance(rules, Rules):
        raise InvalidArgumentError(
            f"rules must be Rules, such as Rules(diversity=0.3), got {rules!r}"
        )
    catalogue.rows(rules.item_ids)
    return rules


def with_pins(
    candidates: Candidates,
    pins: Sequence[Pin],
    catalogue: Catalogue,
    profiles: UserProfiles,
    allowed: Tensor,
) -> Candidates:
    """Return the candidates and, among those of each user, the items pinned at their moment.

    Args:
        candidates: Candidates of B users.
        pins: Pins, in force or not.
        catalogue: Items of the pins.
        profiles: Users, with the moment of each one's list.
        allowed: Which items may be shown to which user, bool (B, N).
    """
    found = [(pin, row) for pin in pins if (row := catalogue.find(pin.item_id)) is not None]
    # Rows that all users share are all that may be shown.
    if not found or candidates.rows.dim() == 1:
        return candidates
    rows = torch.tensor([row for _, row in found], device=allowed.device)
    moments = [from_us(now_us) for now_us in profiles.now_us.tolist()]
    in_force = torch.tensor([[pin.holds(now) for pin, _ in found] for now in moments])
    there = (candidates.rows[:, :, None] == rows) & candidates.allowed[:, :, None]  # (B, C, P)
    added = in_force.to(rows.device) & allowed[:, rows] & ~there.any(dim=1)
    return candidates._replace(
        rows=torch.cat([candidates.rows, rows.expand(len(added), -1)], dim=1),
        allowed=torch.cat([candidates.allowed, added], dim=1),
    )


class Places(NamedTuple):
    """Where the lists of B users stand among their candidates, K places each.

    Args:
        places: Positions among the candidates (B, K).
        counts: Number of the K that may be shown to each user, int64 (B,); the rest is padding.
        propensities: Probability with which each stands at its place (B, K).
    """

    places: Tensor
    counts: Tensor
    propensities: Tensor


def best_of(scores: Tensor, k: int, counts: Tensor) -> Places:
    """Return the best by score (B, C), of which the first ``counts`` (B,) may be shown."""
    places = best_places(scores, k)
    return Places(places, counts.clamp(max=k), torch.ones(places.shape))


def listed_by(
    rerankers: Sequence[Reranker],
    rows: Tensor,
    scores: Tensor,
    k: int,
    counts: Tensor,
    numbers: Ints | None,
) -> Places:
    """Return the lists that each user's rules (B) make of candidates (B, C) with these scores."""
    order = best_places(scores, scores.shape[1])
    ordered, orders = rows.gather(1, order).cpu().numpy(), order.cpu().numpy()
    shape = len(rows), min(k, rows.shape[1])
    places, shown = np.zeros(shape, dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    propensities = np.ones(shape)
    for user, count in enumerate(counts.tolist()):
        number = user if numbers is None else int(numbers[user])
        listed = rerankers[user].order(ordered[user, :count], k, number)
        shown[user] = len(listed.positions)
        places[user, : shown[user]] = orders[user, listed.positions]
        propensities[user, : shown[user]] = listed.propensities
    found = (torch.from_numpy(one).to(rows.device) for one in (places, shown, propensities))
    return Places(*found)
