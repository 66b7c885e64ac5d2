"""Why an item is recommended, as a sentence for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys.answers import Reason
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import MICROSECONDS_PER_DAY
from recsys.data.timestamps import from_us
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.baselines.factors import fold_in_parts
from recsys.ranking.candidates import NEW, OWN, RELATED, TASTE
from recsys.ranking.item_table import ItemTable, Neighbours
from recsys.ranking.profiles import UserProfiles, fading
from recsys.ranking.statistics import PERIODS

PURCHASE = "purchase"
# What a user did with an item, by the kind of the event; other kinds are "you chose".
_DEEDS = {
    PURCHASE: "you bought {}",
    "view": "you viewed {}",
    "click": "you clicked on {}",
    "cart": "you put {} in your cart",
    "like": "you liked {}",
}
_OTHER_DEED = "you chose {}"
# "Belongs with" is true of a part and of its whole.
_RELATIONS = {"goes_with": "Goes with", "part_of": "Belongs with", "replaces": "Replaces"}


@torch.inference_mode()
def source_parts(
    source: str, profiles: UserProfiles, rows: Tensor, table: ItemTable, encoder: UserEncoder
) -> Tensor | None:
    """Return what each own item of one user adds to a source's score of some items (R, K).

    The parts of an item add up to its score, that of taste but for a positive factor, and but for
    the correction of a transformer, which has no parts. None for a source that rests on no item.

    Args:
        source: A source of candidates.
        profiles: Profile of one user, with R items of their own.
        rows: Distinct item rows, int64 (K,).
        table: Values of every item.
        encoder: Network that made the user's vector.
    """
    own = profiles.own
    if source == "next_visit":
        return _spread_parts(table.following, own.rows, own.last, rows, table)
    if source == "together":
        ease, cosine = (
            _spread_parts(each, own.rows, torch.ones_like(own.lags_days), rows, table)
            for each in (table.ease, table.cosine)
        )
        return ease + 1e-6 * cosine
    if source == "together_recent":
        weights = fading(own.lags_days, table, "middle")
        return _spread_parts(table.cosine, own.rows, weights, rows, table)
    if source == RELATED:
        weights = fading(own.lags_days, table, "middle")
        each = [
            _spread_parts(one, own.rows, weights, rows, table) for one in table.related.values()
        ]
        return sum(each, weights.new_zeros(len(weights), len(rows)))
    if source == "similar_users":
        return fold_in_parts(table.factors, own.rows, rows)
    return _taste_parts(profiles, rows, table, encoder) if source == TASTE else None


def _spread_parts(
    neighbours: Neighbours, own: Tensor, weights: Tensor, rows: Tensor, table: ItemTable
) -> Tensor:
    """Return what each own item (R,) of that weight (R,) adds to some rows (K,), (R, K)."""
    places = torch.full((len(table),), len(rows), device=rows.device)  # K for all other items
    places[rows] = torch.arange(len(rows), device=rows.device)
    found, strengths = neighbours.of(own)  # (R, n)
    parts = strengths.new_zeros(len(own), len(rows) + 1)
    parts.scatter_add_(1, places[found.clamp(min=0)], strengths * weights[:, None])
    return parts[:, :-1]


def _strongest_relation(own: int, row: int, table: ItemTable) -> str:
    """Return the kind of the strongest relation that leads from one item to another."""

    def weight(kind: str) -> float:
        rows, weights = (one[0] for one in table.related[kind].of(torch.tensor([own])))
        return float(weights[rows == row].sum())

    return max(table.related, key=weight)


def _taste_parts(
    profiles: UserProfiles, rows: Tensor, table: ItemTable, encoder: UserEncoder
) -> Tensor:
    events, own = profiles.events, profiles.own
    read = slice(-encoder.history_length, None)
    met = events.rows[read]
    vectors = encoder.taste.parts(
        table.embeddings[met][None],
        events.ages_days[read][None],
        events.kinds[read][None],
        torch.ones_like(met, dtype=torch.bool)[None],
    )[0]  # (L, D)
    parts = vectors.new_zeros(len(own.rows), len(rows))
    place = torch.searchsorted(own.rows, met)  # the items of one user are in ascending order
    return parts.index_add_(0, place, vectors @ table.embeddings[rows].T)


@dataclass(frozen=True)
class ReasonWriter:
    """Writes the reasons of recommendations.

    Args:
        catalogue: Items, whose titles the sentences name.
        encoder: Network from a history to a user vector.
        kind_names: Names of the event kinds; the position is the kind code.
        as_of_us: Moment of the statistics, microseconds UTC.
    """

    catalogue: Catalogue
    encoder: UserEncoder
    kind_names: Sequence[str]
    as_of_us: int

    def write(
        self, profiles: UserProfiles, rows: Tensor, sources: Sequence[str], table: ItemTable
    ) -> list[Reason]:
        """Return the reason of each result of one user (K).

        Args:
            profiles: Profile of the user.
            rows: Item rows of the results, int64 (K,).
            sources: What speaks for each of them (K).
            table: Values of every item.
        """
        because: dict[int, int] = {}  # place of a result: row of the user's item
        for source in set(sources):
            places = [place for place, one in enumerate(sources) if one == source]
            parts = source_parts(source, profiles, rows[places], table, self.encoder)
            if source == OWN:
                because |= {place: int(rows[place]) for place in places}
            elif parts is not None:
                strongest = profiles.own.rows[parts.argmax(dim=0)]
                because |= dict(zip(places, strongest.tolist(), strict=True))
        fresh = [row for row, one in zip(rows.tolist(), sources, strict=True) if one == NEW]
        needed = list(dict.fromkeys([*because.values(), *fresh]))
        items = dict(zip(needed, self.catalogue.at(needed).iter_rows(named=True), strict=True))
        return [
            self._personal(source, profiles, because[place], row, items[because[place]], table)
            if place in because
            else Reason(source, None, self._general(source, profiles, row, items.get(row), table))
            for place, (source, row) in enumerate(zip(sources, rows.tolist(), strict=True))
        ]

    def _personal(
        self,
        source: str,
        profiles: UserProfiles,
        own: int,
        row: int,
        item: Mapping[str, Any],
        table: ItemTable,
    ) -> Reason:
        deed, title = self._deed(profiles, own), item["title"] or item["item_id"]
        if source == RELATED:
            relation = _RELATIONS[_strongest_relation(own, row, table)]
            return Reason(source, item["item_id"], f"{relation} {title}")
        # Neighbours are counted over events of all kinds.
        only_bought = {name.lower() for name in self.kind_names} == {PURCHASE}
        bought, chosen = ("bought", "bought") if only_bought else ("chose", "chosen")
        text = {
            OWN: f"Because {deed.format('it')} before",
            "next_visit": f"People who {bought} {title} came back for this",
            "together": f"Often {chosen} with {title}",
            "together_recent": f"Often {chosen} with {title}",
            "similar_users": f"People who {bought} {title}, as you did, also {bought} this",
            TASTE: f"Because {deed.format(title)}",
        }[source]
        return Reason(source, item["item_id"], text)

    def _deed(self, profiles: UserProfiles, own: int) -> str:
        """Return what the user did with an item: bought it, or what they did last."""
        kinds = profiles.events.kinds[profiles.events.rows == own].tolist()
        names = [self.kind_names[kind].lower() for kind in kinds]
        if not names:
            return _OTHER_DEED
        return _DEEDS.get(PURCHASE if PURCHASE in names else names[-1], _OTHER_DEED)

    def _general(
        self,
        source: str,
        profiles: UserProfiles,
        row: int,
        item: Mapping[str, Any] | None,
        table: ItemTable,
    ) -> str:
        now_us = int(profiles.now_us[0])
        if item is None:
            return self._popular(row, now_us, table)
        created, path = item["created_at"], item["category"]
        window_us = table.tempo.window_days * MICROSECONDS_PER_DAY
        if created is not None and now_us - int(table.created_us[row]) > window_us:
            return f"Here since {created:%Y-%m-%d}"
        return f"New in {path[-1]}" if path else "New"

    def _popular(self, row: int, now_us: int, table: ItemTable) -> str:
        if not float(table.users[row, -1]):
            return "Popular"
        days = PERIODS[-1] * table.tempo.window_days
        period = f"{days:.0f} days" if days >= 1.5 else f"{24 * days:.0f} hours"
        if now_us - self.as_of_us <= days * MICROSECONDS_PER_DAY:
            return f"Popular in the last {period}"
        return f"Popular in the {period} to {from_us(self.as_of_us):%Y-%m-%d}"
