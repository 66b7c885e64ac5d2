"""Identify which product a photo shows, with a probability, or that it is not in the catalogue."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.answers import (
    PRECISION_NOT_REACHED,
    WORDS_UNREAD,
    Added,
    Annotation,
    Group,
    Identification,
    Item,
    Result,
    Verdict,
    check_k,
    list_ids,
)
from recsys.bundle import Bundle
from recsys.catalogue.additions import Picture, read_items, read_pictures
from recsys.catalogue.filters import Filters
from recsys.data.frames import Frame
from recsys.errors import InvalidArgumentError
from recsys.identification.annotation import list_annotations, name_photos
from recsys.identification.evidence import ITEM, Evidence, Photos, collect_evidence
from recsys.identification.groups import choose, likely_sets
from recsys.identification.photos import (
    SeenPhotos,
    fuse_photos,
    read_ahead,
    run_tower,
    see_photos,
)
from recsys.identification.words import WordIndex
from recsys.recommender import Recommender
from vision.batches import ImageSource
from vision.words import INSTALL, Lines, WordReader, shared_reader, texts_of

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 4_000_000  # pairs of a photo and a product


class ProductIdentifier:
    """Identifies products on photos by pictures, labelled photos, words and the tower's classes.

    >>> identifier = ProductIdentifier.load("runs/shop")
    >>> answer = identifier.identify(Path("photo.jpg"))
    >>> answer.verdict, answer.product_group, answer.candidates[0].item_id

    Not safe for use from several threads at once, like the recommender.

    Args:
        recommender: Recommender over the catalogue to identify from.
        pairs_at_once: Maximum number of photos times products compared at once, to bound memory.

    Raises:
        MissingPartError: If the bundle was trained without labelled photos.
    """

    def __init__(self, recommender: Recommender, *, pairs_at_once: int = PAIRS_AT_ONCE) -> None:
        part = recommender.bundle.identification
        self.recommender = recommender
        self.gallery = part.gallery.to(recommender.device)
        self.calibration = part.calibration
        self._head = part.head
        self._views = part.views
        self._words: WordIndex | None = None
        self._reader: WordReader | None = None
        self._degraded: tuple[str, ...] = ()
        if part.reads_words:
            self._words = WordIndex(recommender.catalogue, part.words or {})
            self._reader = shared_reader()
            if self._reader is None:
                self._degraded = (WORDS_UNREAD,)
                logger.warning(
                    "words on photos are not read: rapidocr is not installed (%s)", INSTALL
                )
        self._pairs_at_once = pairs_at_once

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "ProductIdentifier":
        """Return an identifier over the catalogue of a bundle.

        Args:
            path: Folder of the bundle, or a folder of bundles, whose latest is taken.
            device: Device of the embeddings and the networks.

        Raises:
            BundleError: If the folder holds no bundle, or a file of it differs from its manifest.
            MissingPartError: If the bundle was trained without labelled photos.
        """
        return cls(Recommender(Bundle(path), device=device))

    def identify(self, image: ImageSource, k: int = 5) -> Identification:
        """Return which product a photo shows.

        Args:
            image: Bytes or path of an image file, or an opened image.
            k: Maximum number of candidates.

        Raises:
            InvalidImageError: If the photo is not a readable image.
            InvalidArgumentError: If ``image`` is of another type, or ``k`` is out of range.
        """
        return self.identify_many([image], k)[0]

    def identify_many(
        self, images: Iterable[ImageSource], k: int = 5, *, progress: bool = False
    ) -> list[Identification]:
        """Return which product each photo shows, in the order of the photos.

        Args:
            images: Photos, each as for ``identify``.
            k: Maximum number of candidates of each photo.
            progress: Whether to show a progress bar.

        Raises:
            InvalidImageError: If a photo is not a readable image; the message has its index.
            InvalidArgumentError: If ``k`` is out of range.
        """
        check_k(k)
        return self.identify_seen(self.see(images, progress=progress), k)

    def see(self, images: Iterable[ImageSource], *, progress: bool = False) -> SeenPhotos:
        """Return what the vision tower makes of photos, of which ``identify_seen`` makes answers.

        This is most of the work. It reads nothing that changes, so it may run on another thread
        while the catalogue is changed. Arguments and errors as for ``identify_many``.
        """
        return see_photos(
            self.recommender.embedder.image_tower,
            images,
            head=self._head,
            views=self._views,
            device=self.recommender.embedder.device,
            progress=progress,
            reader=self._reader,
        )

    def identify_seen(self, seen: SeenPhotos, k: int = 5) -> list[Identification]:
        """Return what ``identify_many`` does for photos that the tower has seen.

        Raises:
            InvalidArgumentError: If ``k`` is out of range.
        """
        check_k(k)
        embedder = self.recommender.embedder
        reading = self.recommender.bundle.reading
        named = name_photos(embedder.image_tower.classes, seen, reading)
        annotations = list_annotations(named, bundle_version=self.recommender.version)
        photos, read = fuse_photos(embedder.fusion, seen.photos), list(map(texts_of, seen.lines))
        at_once = max(1, self._pairs_at_once // len(self.recommender.catalogue))
        parts = [slice(n, n + at_once) for n in range(0, len(annotations), at_once)]
        return [
            replace(answer, words=lines)
            for part in parts
            for answer, lines in zip(
                self._identify(
                    Photos(*(p[part] for p in photos)), annotations[part], read[part], k
                ),
                read[part],
                strict=True,
            )
        ]

    def read_ahead(self, image: ImageSource) -> None:
        """Read the words on a photo, so that ``identify`` need not wait for them.

        May be called from another thread than ``identify``. A photo that is not a readable image
        is left to ``identify``, which says so.
        """
        if self._reader is not None:
            read_ahead(image)

    def embed(self, images: Iterable[ImageSource], *, progress: bool = False) -> Photos:
        """Return photos in the item space, with the logits of the tower's classes.

        Args:
            images: Photos, each as for ``identify``.
            progress: Whether to show a progress bar.

        Raises:
            InvalidImageError: If a photo is not a readable image; the message has its index.
        """
        embedder = self.recommender.embedder
        seen = run_tower(
            self.recommender.embedder.image_tower,
            images,
            head=self._head,
            views=self._views,
            device=embedder.device,
            progress=progress,
        )
        return fuse_photos(embedder.fusion, seen)

    def add_items(
        self,
        items: Frame | Sequence[Item],
        pictures: Mapping[str, Picture | None] | Sequence[Picture | None] = {},
    ) -> Added:
        """Add or replace items in the recommender, and identify them by their pictures at once.

        Arguments and errors as for ``Recommender.add_items``. A replaced item keeps its labelled
        photos.
        """
        table = read_items(items)
        embedder = self.recommender.embedder
        modalities = embedder.item_modalities(table, read_pictures(pictures, table))
        self.recommender.add_embedded(table, embedder.fuse(modalities))
        self.set_pictures(table["item_id"].to_list(), embedder.fuse(modalities.only("image")))
        return Added(added=len(table), bundle_version=self.recommender.version)

    def set_pictures(self, item_ids: Sequence[str], pictures: NDArray[np.float32]) -> None:
        """Replace the pictures that items are identified by.

        Args:
            item_ids: Items of the catalogue, distinct.
            pictures: Embeddings of the pictures alone (n, D); a row of zeros removes the picture.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
        """
        rows = torch.from_numpy(self.recommender.catalogue.rows(list_ids("item_ids", item_ids)))
        self.gallery = self.gallery.with_pictures(rows, torch.from_numpy(pictures))
        self.recommender.index.set_lines(dict.fromkeys(item_ids, ()))
        if self._words is not None:
            self._words.replace_pictures(item_ids)

    def reset_pictures(self, item_ids: Sequence[str]) -> None:
        """Identify items by the bundle's pictures again; remove those that the bundle lacks.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
        """
        bundled = self.recommender.bundle.identification.gallery
        index_of = {row: index for index, row in enumerate(bundled.picture_rows.tolist())}
        rows = self.recommender.catalogue.rows(list_ids("item_ids", item_ids))
        pictures = bundled.pictures.new_zeros(len(rows), bundled.pictures.shape[1])
        for n, row in enumerate(rows.tolist()):
            if row in index_of:
                pictures[n] = bundled.pictures[index_of[row]]
        self.gallery = self.gallery.with_pictures(torch.from_numpy(rows), pictures)
        bundled_lines = self.recommender.bundle.picture_lines
        self.recommender.index.set_lines({one: bundled_lines.get(one, ()) for one in item_ids})
        if self._words is not None:
            self._words.reset_pictures(item_ids)

    def add_photos(self, item_ids: Sequence[str], images: Sequence[ImageSource]) -> None:
        """Add labelled photos to the gallery, where they count at once.

        Args:
            item_ids: Item on each photo.
            images: Photos, each as for ``identify``.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
            InvalidImageError: If a photo is not a readable image; the message has its index.
            InvalidArgumentError: If the lengths disagree.
        """
        item_ids = list_ids("item_ids", item_ids)
        if len(item_ids) != len(images):
            raise InvalidArgumentError(
                f"images must have one entry per item_id ({len(item_ids)}), got {len(images)}"
            )
        rows = torch.from_numpy(self.recommender.catalogue.rows(item_ids))
        self.gallery = self.gallery.with_photos(rows, self.embed(images).embeddings)

    def _identify(
        self, photos: Photos, annotations: Sequence[Annotation], lines: Sequence[Lines], k: int
    ) -> list[Identification]:
        """Return the answers for photos that fit into memory together."""
        evidence = self._evidence(photos, lines)
        # Probabilities of the products and, last, of "not in the catalogue" (B, N + 1).
        probabilities = self.calibration.probabilities(evidence).cpu()
        products, known = probabilities[:, :-1], (1 - probabilities[:, -1]).tolist()
        n_live = int(self._live_rows().sum())
        top = products.topk(min(k, n_live), dim=1)
        groups = self._groups(products)
        similar = self._similar(evidence, groups, k)
        names_none = self.calibration.named.threshold is None
        degraded = (*((PRECISION_NOT_REACHED,) if names_none else ()), *self._degraded)
        return [
            Identification(
                known=self.calibration.known.passes(known[n]),
                probability=known[n],
                candidates=self._results(top.indices[n], top.values[n], "photo"),
                verdict=self._verdict(known[n], groups[n]),
                product_group=groups[n],
                annotation=annotations[n],
                similar=similar[n],
                bundle_version=self.recommender.version,
                degraded=degraded,
            )
            for n in range(len(known))
        ]

    def _evidence(self, photos: Photos, lines: Sequence[Lines]) -> Evidence:
        """Return what each source says about each product that is not deleted."""
        embeddings = self.recommender.catalogue.embeddings
        photos = Photos(*(part.to(embeddings.device) for part in photos))
        evidence = collect_evidence(photos, embeddings, self.gallery)
        if self._words is not None:
            evidence = evidence.with_words(self._words.scores(lines))
        deleted = torch.from_numpy(~self._live_rows()).to(evidence.present.device)
        return evidence.without(deleted[None, :, None].expand_as(evidence.present))

    def _similar(
        self, evidence: Evidence, groups: Sequence[Group | None], k: int
    ) -> list[tuple[Result, ...]]:
        """Return the items nearest to each photo that can be bought, without those it names."""
        catalogue = self.recommender.catalogue
        sold = torch.from_numpy(catalogue.mask(Filters())).to(evidence.present.device)
        offered = evidence.present[..., ITEM] & sold  # (B, N)
        for n, group in enumerate(groups):
            if group is not None:
                offered[n, torch.from_numpy(catalogue.rows(group.item_ids))] = False
        cosines = evidence.values[..., ITEM].masked_fill(~offered, float("-inf"))
        top = cosines.topk(min(k, len(sold)), dim=1)
        counts = offered.sum(dim=1).tolist()
        return [
            self._results(rows[:count], scores[:count], "similar")
            for rows, scores, count in zip(top.indices, top.values, counts, strict=True)
        ]

    def _live_rows(self) -> NDArray[np.bool_]:
        """Return which items are not deleted (N,); an item out of stock can still be on a photo."""
        return self.recommender.catalogue.mask(Filters(available_only=False))

    def _results(self, rows: Tensor, scores: Tensor, source: str) -> tuple[Result, ...]:
        item_ids = self.recommender.catalogue.item_ids
        return tuple(
            Result(item_ids[row], score, source)
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        )

    def _verdict(self, known: float, group: Group | None) -> Verdict:
        if group is not None:
            return "product" if len(group.item_ids) == 1 else "group"
        return "unsure" if self.calibration.known.passes(known) or known >= 0.5 else "unknown"

    def _groups(self, probabilities: Tensor) -> list[Group | None]:
        """Return the product or the group that is named for each photo, from products (B, N)."""
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
