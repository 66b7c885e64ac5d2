"""Tell which product is on a photo, how sure that is, or that it is not in the catalogue."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.catalogue.filters import Filters
from recsys.errors import InvalidArgumentError, MissingPartError
from recsys.identification.evidence import Photos, collect_evidence
from recsys.identification.groups import choose, likely_sets
from recsys.identification.photos import fuse_photos, run_tower
from recsys.recommender import Recommender, Scored, check_k
from vision.batches import ImageSource

Verdict = Literal["product", "group", "unsure", "unknown"]

_CELLS = 4_000_000  # photos times products that are compared at once


class Group(NamedTuple):
    """The product on a photo, or the few that it may be.

    Args:
        item_ids: One product, or up to five siblings, most probable first.
        category: The path that they share, coarse to fine; empty if they share none.
        probability: That the photo shows one of them.
    """

    item_ids: tuple[str, ...]
    category: tuple[str, ...]
    probability: float


class Identified(NamedTuple):
    """What is on a photo.

    Args:
        known: Whether the product is in the catalogue, at the wanted precision.
        probability: That it is.
        candidates: Products, most probable first; scores are probabilities, and those of all
            products add up to ``probability``.
        answer: What can be said at the wanted precision; None if nothing can.
    """

    known: bool
    probability: float
    candidates: list[Scored]
    answer: Group | None = None

    @property
    def verdict(self) -> Verdict:
        """A product, one of a group, probably not in the catalogue, or not sure enough to say."""
        if self.answer is not None:
            return "product" if len(self.answer.item_ids) == 1 else "group"
        return "unsure" if self.known or self.probability >= 0.5 else "unknown"


class ProductIdentifier:
    """Identifies products by their pictures, labelled photos, words and the tower's classes.

    Not safe for use from several threads at once, as the recommender is not.

    Args:
        recommender: Over the catalogue to identify from.

    Raises:
        MissingPartError: If the bundle was trained without labelled photos.
    """

    def __init__(self, recommender: Recommender) -> None:
        identification = recommender.bundle.identification
        self.recommender = recommender
        self.gallery = identification.gallery.to(recommender.device)
        self.calibration = identification.calibration
        self._head = identification.head
        self._views = identification.views

    def identify(self, image: bytes, *, k: int = 5) -> Identified:
        """Return what is on a photo.

        Raises:
            InvalidImageError: If the bytes are no picture we accept.
            InvalidArgumentError: If ``k`` is out of range.
        """
        check_k(k)
        return self.identify_photos(self.look([image]), k=k)[0]

    def look(self, images: Iterable[ImageSource], *, progress: bool = False) -> Photos:
        """Return what the tower sees on photos, from several views of each.

        Raises:
            InvalidImageError: If one is no picture; gives its position.
        """
        embedder = self.recommender.embedder
        if embedder.vision is None:
            raise MissingPartError("this bundle has no vision tower: it cannot look at photos")
        seen = run_tower(
            embedder.vision,
            images,
            head=self._head,
            views=self._views,
            device=embedder.device,
            progress=progress,
        )
        return fuse_photos(embedder.fusion, seen)

    def identify_photos(self, photos: Photos, *, k: int = 5) -> list[Identified]:
        """Return what is on each of the photos that ``look`` has seen.

        Raises:
            InvalidArgumentError: If ``k`` is out of range.
        """
        check_k(k)
        at_once = max(1, _CELLS // len(self.recommender.catalogue))
        return [
            answer
            for start in range(0, len(photos.embeddings), at_once)
            for answer in self._identify(Photos(*(p[start : start + at_once] for p in photos)), k)
        ]

    def upsert(self, items: pl.DataFrame, pictures: Sequence[bytes | None]) -> None:
        """Add or replace items in the recommender, to be identified from their picture at once.

        Args:
            items: Table of ``ItemSchema``; an item that is there keeps its labelled photos.
            pictures: The items' pictures as files' bytes, None for those without.

        Raises:
            InvalidImageError: If a picture is none; gives its position.
            InvalidArgumentError: If the lengths disagree, or an item occurs twice.
        """
        embedder = self.recommender.embedder
        embeddings = embedder.items(items, pictures)
        alone = embedder.fuse(embedder.modalities(None, pictures))
        self.recommender.upsert(items, embeddings)
        self.set_pictures(items["item_id"].to_list(), alone)

    def set_pictures(self, item_ids: Sequence[str], pictures: NDArray[np.float32]) -> None:
        """Take embeddings (n, D) as the pictures of items; one of zeros takes a picture away.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
        """
        rows = torch.from_numpy(self.recommender.catalogue.rows(item_ids))
        self.gallery = self.gallery.with_pictures(rows, torch.from_numpy(pictures))

    def reset_pictures(self, item_ids: Sequence[str]) -> None:
        """Take the pictures that the bundle has of items again; where it has none, none.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
        """
        rows = torch.from_numpy(self.recommender.catalogue.rows(item_ids))
        bundled = self.recommender.bundle.identification.gallery
        places = {row: place for place, row in enumerate(bundled.picture_rows.tolist())}
        pictures = bundled.pictures.new_zeros(len(rows), bundled.pictures.shape[1])
        for n, row in enumerate(rows.tolist()):
            if row in places:
                pictures[n] = bundled.pictures[places[row]]
        self.gallery = self.gallery.with_pictures(rows, pictures)

    def add_photos(self, item_ids: Sequence[str], images: Sequence[bytes | Path]) -> None:
        """Take labelled photos into the gallery, where they count at once.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
            InvalidImageError: If one is no picture; gives its position.
            InvalidArgumentError: If the lengths disagree.
        """
        if len(item_ids) != len(images):
            raise InvalidArgumentError(
                f"images must have one entry per item_id ({len(item_ids)}), got {len(images)}"
            )
        rows = torch.from_numpy(self.recommender.catalogue.rows(item_ids))
        self.gallery = self.gallery.with_photos(rows, self.look(images).embeddings)

    def _identify(self, photos: Photos, k: int) -> list[Identified]:
        catalogue = self.recommender.catalogue
        seen = Photos(*(part.to(catalogue.embeddings.device) for part in photos))
        evidence = collect_evidence(seen, catalogue.embeddings, self.gallery)
        # Products out of stock are still products: only deleted ones are left out.
        deleted = torch.from_numpy(~catalogue.mask(Filters(available_only=False)))
        hidden = deleted.to(evidence.present.device)[None, :, None].expand_as(evidence.present)
        probabilities = self.calibration.probabilities(evidence.without(hidden)).cpu()
        top = probabilities[:, :-1].topk(min(k, int((~deleted).sum())), dim=1)
        groups = self._groups(probabilities[:, :-1])
        inside = (1 - probabilities[:, -1]).tolist()
        return [
            Identified(
                known=self.calibration.known.passes(inside[n]),
                probability=inside[n],
                candidates=[
                    Scored(catalogue.item_ids[row], probability, "photo")
                    for row, probability in zip(
                        top.indices[n].tolist(), top.values[n].tolist(), strict=True
                    )
                ],
                answer=groups[n],
            )
            for n in range(len(inside))
        ]

    def _groups(self, probabilities: Tensor) -> list[Group | None]:
        threshold = self.calibration.named.threshold
        if threshold is None:
            return [None] * len(probabilities)
        ancestors = torch.from_numpy(self.recommender.catalogue.categories)
        sets = likely_sets(probabilities, ancestors)
        choice = choose(sets, threshold)
        return [
            self._group(sets.rows[n, level, :size].tolist(), float(sets.sums[n, level, size - 1]))
            if size
            else None
            for n, (level, size) in enumerate(
                zip(choice.levels.tolist(), choice.sizes.tolist(), strict=True)
            )
        ]

    def _group(self, rows: list[int], probability: float) -> Group:
        catalogue = self.recommender.catalogue
        item_ids = tuple(catalogue.item_ids[row] for row in rows)
        paths = catalogue.records(item_ids)["category"].to_list()
        shared = next(
            (n for n, names in enumerate(zip(*paths, strict=False)) if len(set(names)) > 1),
            min(len(path) for path in paths),
        )
        return Group(item_ids, tuple(paths[0][:shared]), probability)
