"""Rank the items of a live catalogue, for one user or for many at once."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.answers import Reason, Result
from recsys.catalogue.store import Catalogue
from recsys.data.arrays import Ints
from recsys.data.interactions import History, Moment
from recsys.errors import InvalidArgumentError, RankingError
from recsys.ranking.best import RESULTS, Best, Offered
from recsys.ranking.candidates import SOURCES, Candidates, CandidateSource
from recsys.ranking.item_table import build_item_table, refresh_item_table
from recsys.ranking.live_counts import LiveCount, with_counts
from recsys.ranking.profiles import UserProfiles
from recsys.ranking.rankers import POPULARITY, SimpleRanker, best_simple
from recsys.ranking.reasons import ReasonWriter
from recsys.ranking.reranking import Reranker, best_of, check_rules, listed_by, with_pins
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics
from recsys.rules import NO_RULES, Rules

logger = logging.getLogger(__name__)

# Users times items that are scored at once where the caller sets no block size. Small blocks keep
# their features in a processor's cache.
SCORED_AT_ONCE = 50_000


_SCOPES = {False: "all", True: "new"}  # of the trials, by whether seen items are left out


class CatalogueRanker:
    """Ranks items of a catalogue that may change.

    Where the user encoder or the ranker fails, ``best``, ``best_table`` and ``rank`` answer by the
    simple recommender that was best on validation, or else by popularity, and say so. The first
    failure is logged. ``scores`` and ``offered``, by which rankings are evaluated, raise.

    Args:
        catalogue: Items; its first rows are those of the statistics.
        ranker: User encoder and rankers, moved to the catalogue's device.
        candidates: Which items are ranked.
        statistics: What the events say of the items.
        kinds: Whether an event kind counts as a purchase, by its name, in the order of the codes.
        rules: Rules of the lists, where a request has none.
        choice: Trials on validation, by which the simple recommenders are chosen.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        ranker: UserRanker,
        candidates: CandidateSource,
        statistics: Statistics,
        kinds: Mapping[str, bool],
        rules: Rules = NO_RULES,
        choice: Mapping[str, Any] = {},
    ) -> None:
        self._catalogue, self._rules = catalogue, rules
        self._simple = {seen: best_simple(choice, scope) for seen, scope in _SCOPES.items()}
        self._failed: set[str] = set()  # failures that were logged, by this ranker or a copy
        self._counts: Mapping[str, LiveCount] = {}
        self._present = self
        self.as_of_us, self.window_days = statistics.as_of_us, statistics.tempo.window_days
        self._ranker = ranker.to(catalogue.device)
        self.candidates = candidates
        self._table = build_item_table(catalogue, statistics, torch.tensor([*kinds.values()]))
        self._reasons = ReasonWriter(catalogue, ranker.encoder, [*kinds], statistics.as_of_us)

    def refresh(self) -> None:
        """Follow the catalogue, where items were added or replaced."""
        self._table = refresh_item_table(self._table, self._catalogue)
        self.count(self._counts)

    def count(self, counts: Mapping[str, LiveCount]) -> None:
        """Take over what users took since the statistics, by item id, for requests without a time.

        Requests with a time are ranked by the statistics alone, so that a replay gives the same.
        """
        self._counts, self._present = counts, self
        if counts:
            self._present = copy(self)
            self._present._table = with_counts(self._table, self._catalogue, counts)

    def at(self, now: datetime | None) -> "CatalogueRanker":
        """Return what ranks at a moment; where it is None, that is now, and live counts count."""
        return self._present if now is None else self

    def reranker(self, rules: Rules, now_us: int) -> Reranker:
        """Return what makes lists by rules at a moment, microseconds UTC."""
        return Reranker(rules, self._catalogue, self._table.users[:, 0], now_us)

    def _rerankers(self, rules: Rules, now_us: Moment, n_users: int) -> list[Reranker]:
        """Return what makes the list of each user; users of one moment share it."""
        moments = np.broadcast_to(np.asarray(now_us), (n_users,)).tolist()
        each = {moment: self.reranker(rules, moment) for moment in set(moments)}
        return [each[moment] for moment in moments]

    def best(
        self,
        histories: Sequence[History],
        k: int,
        *,
        now_us: Moment,
        mask: NDArray[np.bool_],
        exclude_seen: bool,
        rules: Rules | None = None,
        numbers: Ints | None = None,
    ) -> Best:
        """Return the ``k`` best items for each user.

        Args:
            histories: Events of each user (B entries).
            k: Maximum number of items for each user.
            now_us: Moment of all requests, or of each (B,), microseconds UTC.
            mask: Which rows may be returned to all users (N,), or to each (B, N).
            exclude_seen: Whether items of the user's own history are left out.
            rules: Rules of the lists; None takes those of the bundle.
            numbers: Number of each user, by which users explore independently (B,).

        Raises:
            InvalidArgumentError: If ``rules`` is not ``Rules``.
            UnknownItemError: If ``rules`` names an item that is not in the catalogue.
        """
        rules = self._rules if rules is None else check_rules(rules, self._catalogue)
        rerankers = [] if rules == NO_RULES else self._rerankers(rules, now_us, len(histories))
        if rerankers:
            shown = [one.allowed for one in dict.fromkeys(rerankers)]
            mask = mask & (
                shown[0] if len(shown) == 1 else np.stack([one.allowed for one in rerankers])
            )

        def attempt(simple: SimpleRanker | None) -> Best:
            profiles = self._ranker.profiles(histories, now_us, self._table, simple=simple)
            rows, allowed = self._choose(
                profiles, mask, rules, exclude_seen=exclude_seen, at_least=k
            )
            scores, features = self._ranker.score(
                profiles, rows, self._table, exclude_seen=exclude_seen, simple=simple
            )
            rows, scores = rows.expand(scores.shape), scores.masked_fill(~allowed, -torch.inf)
            if rerankers:
                top = listed_by(rerankers, rows, scores, k, allowed.sum(dim=1), numbers)
            else:
                top = best_of(scores, k, allowed.sum(dim=1))
            chosen = rows.gather(1, top.places)
            own = profiles.seen.gather(1, chosen)
            sources = self.candidates.strongest(features, allowed, top.places, own)
            scores = scores.gather(1, top.places)
            features = features.gather(1, top.places[..., None].expand(-1, -1, features.shape[2]))
            return Best(
                rows=chosen,
                scores=scores,
                features=features,
                sources=sources,
                counts=top.counts,
                propensities=top.propensities,
                probabilities=self._ranker.probabilities(
                    scores, features, exclude_seen=exclude_seen, simple=simple
                ),
                exclude_seen=exclude_seen,
                profiles=profiles,
                simple=simple,
            )

        return self._first_answer(attempt, exclude_seen=exclude_seen)

    def _first_answer(
        self, attempt: Callable[[SimpleRanker | None], Best], *, exclude_seen: bool
    ) -> Best:
        """Return the answer of the ranker, or that of the first simple recommender that has one."""
        try:
            return attempt(None)
        except RankingError as error:
            if "ranker" not in self._failed:
                logger.warning("simple recommenders answer: %s", error, exc_info=error)
                self._failed.add("ranker")
        try:
            return attempt(self._simple[exclude_seen])
        except RankingError:
            return attempt(SimpleRanker(POPULARITY))

    def _choose(
        self,
        profiles: UserProfiles,
        mask: NDArray[np.bool_],
        rules: Rules,
        *,
        exclude_seen: bool,
        at_least: int = 0,
    ) -> Candidates:
        """Return what is ranked for each user: the candidates, and what is pinned."""
        chosen = self.candidates.choose(
            profiles, mask, self._table, exclude_seen=exclude_seen, at_least=at_least
        )
        if not rules.pin:
            return chosen
        allowed = torch.from_numpy(mask).to(profiles.seen.device).expand(len(profiles), -1)
        if exclude_seen:
            allowed = allowed & ~profiles.seen
        return with_pins(chosen, rules.pin, self._catalogue, profiles, allowed)

    def best_table(
        self,
        histories: Sequence[History],
        k: int,
        block_size: int | None,
        *,
        now_us: int,
        mask: NDArray[np.bool_],
        exclude_seen: bool,
        rules: Rules | None = None,
    ) -> pl.DataFrame:
        """Return the ``k`` best items for each user, as a table.

        The columns are user, rank, item_id, score, source, propensity,
        probability and degraded.

        Args:
            histories: Events of each user (U entries); the column ``user`` has their positions.
            k: As for ``best``.
            block_size: Number of users that are scored at once; None chooses it by the size of the
                catalogue.
            now_us: As for ``best``.
            mask: As for ``best``.
            exclude_seen: As for ``best``.
            rules: As for ``best``.

        Raises:
            InvalidArgumentError: If ``block_size`` is below 1, or as for ``best``.
            UnknownItemError: As for ``best``.
        """

        def results(users: Ints) -> list[pl.DataFrame]:
            best = self.best(
                [histories[user] for user in users],
                k,
                now_us=now_us,
                mask=mask,
                exclude_seen=exclude_seen,
                rules=rules,
                numbers=users,
            )
            if best.simple is None or len(users) == 1:
                return [best.table(users, self._catalogue.item_ids)]
            # The ranker may have failed for some of them only, and who is asked together changes
            # nobody's answer.
            return [one for user in users for one in results(user[None])]

        blocks = [one for users in self._blocks(histories, block_size) for one in results(users)]
        return pl.concat([pl.DataFrame(schema=RESULTS), *blocks]).sort("user", "rank")

    def rank(self, history: History, rows: Ints, now_us: int) -> Best:
        """Return some item rows (C,) as the best of one user: all of them, in order."""
        given = torch.from_numpy(rows).to(self._catalogue.device)

        def attempt(simple: SimpleRanker | None) -> Best:
            profiles = self._ranker.profiles([history], now_us, self._table, simple=simple)
            scores, features = self._ranker.score(profiles, given, self._table, simple=simple)
            order = scores[0].argsort(descending=True, stable=True)[None]
            everything = torch.ones_like(scores, dtype=torch.bool)
            own = profiles.seen[:, given[order[0]]]
            sources = self.candidates.strongest(features, everything, order, own)
            scores, features = scores[:, order[0]], features[:, order[0]]
            return Best(
                rows=given[order],
                scores=scores,
                features=features,
                sources=sources,
                counts=torch.tensor([len(rows)]),
                propensities=torch.ones(1, len(rows)),
                probabilities=self._ranker.probabilities(scores, features, simple=simple),
                exclude_seen=False,
                profiles=profiles,
                simple=simple,
            )

        return self._first_answer(attempt, exclude_seen=False)

    def scores(
        self,
        histories: Sequence[History],
        now_us: Moment,
        *,
        mask: NDArray[np.bool_] | None = None,
        discovery: bool = False,
    ) -> NDArray[np.float32]:
        """Return the score of every item for each user (U, N), in row order.

        An item has minus infinity if ``best`` would not rank it: it is outside the mask, or no
        source offers it and the rules do not pin it. The scores are those before any other rule.
        Nothing answers in place of a ranker that fails.

        Args:
            histories: Events of each user (U entries).
            now_us: Moment of all requests, or of each (U,), microseconds UTC.
            mask: Which rows may be ranked (N,); all if None.
            discovery: Whether the scores are for answers from which callers leave out the user's
                own items.

        Raises:
            RankingError: If the user encoder or the ranker fails.
        """
        n_items = len(self._catalogue)
        mask = np.ones(n_items, dtype=np.bool_) if mask is None else mask
        scores = np.full((len(histories), n_items), -np.inf, dtype=np.float32)
        for users in self._blocks(histories, None):
            some = [histories[user] for user in users]
            moments = now_us if isinstance(now_us, int) else now_us[users]
            profiles = self._ranker.profiles(some, moments, self._table)
            rows, allowed = self._choose(profiles, mask, self._rules, exclude_seen=False)
            found = self._ranker.score(profiles, rows, self._table, exclude_seen=discovery)
            kept = found.scores.masked_fill(~allowed, -torch.inf).cpu().numpy()
            each = np.broadcast_to(rows.cpu().numpy(), kept.shape)
            block = np.full((len(users), n_items), -np.inf, dtype=np.float32)
            # Padding repeats row 0 with minus infinity, so the largest score of a row counts.
            np.maximum.at(block, (np.arange(len(users))[:, None], each), kept)
            scores[users] = block
        return scores

    def offered(
        self,
        histories: Sequence[History],
        now_us: Moment,
        *,
        mask: NDArray[np.bool_],
        discovery: bool = False,
    ) -> Offered:
        """Return what each source offers, and the scores of all items as if all were ranked.

        Args:
            histories: Events of each user (U entries), who are scored at once.
            now_us: As for ``scores``, like the arguments that follow.
            mask: Which rows may be ranked (N,).
            discovery: Which ranker scores.
        """
        profiles = self._ranker.profiles(histories, now_us, self._table)
        rows = torch.from_numpy(np.flatnonzero(mask)).to(self._catalogue.device)
        found = self._ranker.score(profiles, rows, self._table, exclude_seen=discovery)
        scores = np.full((len(histories), len(mask)), -np.inf, dtype=np.float32)
        scores[:, mask] = found.scores.cpu().numpy()
        sources = self.candidates.by_source(profiles, mask, self._table, exclude_seen=False)
        return Offered(scores, {name: one.cpu().numpy() for name, one in sources.items()})

    def results(self, best: Best, *, explain: bool) -> list[Result]:
        """Return the best of one user as results.

        Args:
            best: What ``best`` or ``rank`` returned for one user alone.
            explain: Whether results have reasons, and the features that raised their scores most.
        """
        return self.results_each(best, [explain])[0]

    def results_each(self, best: Best, explain: Sequence[bool]) -> list[list[Result]]:
        """Return what ``results`` would for each user (B), of whom each may want reasons or not."""
        ids, found = self._catalogue.item_ids, []
        for user, columns in enumerate(best.columns()):
            rows, scores, sources, propensities, probabilities = columns
            why = self._why(best.of(user)) if explain[user] else [((), None)] * len(rows)
            listed = zip(rows, scores, sources, why, propensities, probabilities, strict=True)
            found.append(
                [
                    Result(ids[row], score, SOURCES[source], raising, reason, *chances)
                    for row, score, source, (raising, reason), *chances in listed
                ]
            )
        return found

    def _why(self, best: Best) -> list[tuple[tuple[tuple[str, float], ...], Reason | None]]:
        """Return what raised the score of each result of one user, and its reason."""
        n_results = int(best.counts[0])
        rows, features, sources = (
            part[0, :n_results] for part in (best.rows, best.features, best.sources)
        )
        raising = self._ranker.top_features(
            features, exclude_seen=best.exclude_seen, simple=best.simple
        )
        names = [SOURCES[code] for code in sources.tolist()]
        reasons = self._reasons.write(best.profiles, rows, names, self._table)
        return list(zip(raising, reasons, strict=True))

    def _blocks(self, histories: Sequence[History], block_size: int | None) -> Iterator[Ints]:
        """Yield positions of users to score together, shortest histories first."""
        if block_size is not None and block_size < 1:
            raise InvalidArgumentError(f"block_size must be at least 1, got {block_size}")
        size = block_size or max(1, SCORED_AT_ONCE // max(1, len(self._catalogue)))
        lengths = np.array([len(history.item_rows) for history in histories], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), size):
            yield order[start : start + size]
