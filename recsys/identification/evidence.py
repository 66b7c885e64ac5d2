"""What is known of how products look, and what each part of it says of a photo."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

SOURCES = ("picture", "item", "photos", "head")
PICTURE, ITEM, PHOTOS, HEAD = range(len(SOURCES))
NEAREST = 3  # labelled photos of a product that speak for it; one may be a wrong label
COMPARED_AT_ONCE = 4_000_000  # pairs of photos; sorting them takes 32 bytes each


class Photos(NamedTuple):
    """Photos as the vision tower and the fusion see them, without any words."""

    embeddings: Tensor  # (B, D), unit length
    logits: Tensor  # (B, C) of the head that tells products apart; C is 0 without one


@dataclass(frozen=True)
class Gallery:
    """Pictures and labelled photos by product, and the classifier's classes that are products.

    Pictures are taken alone, without the title: what a photo shows is closer to other pictures
    than to an item that words are part of, so that in one list a photo of the wrong product would
    beat the right item. Each kind is a source of its own, and what it is worth is fitted.

    Args:
        pictures: The shop's own pictures (P, D), unit length.
        picture_rows: Item row of each, int64 (P,), distinct.
        photos: Labelled photos (Q, D), unit length.
        photo_rows: Item row of each, int64 (Q,).
        head_rows: Item row that each class of the head is, int64 (C,); -1 for none.
    """

    pictures: Tensor
    picture_rows: Tensor
    photos: Tensor
    photo_rows: Tensor
    head_rows: Tensor

    def with_pictures(self, rows: Tensor, pictures: Tensor) -> "Gallery":
        """Return the gallery with the pictures of some products replaced.

        Args:
            rows: Of the products (n,), distinct.
            pictures: Theirs (n, D); one of zeros is none, and takes away what was there.
        """
        rows, pictures = rows.to(self.picture_rows), pictures.to(self.pictures)
        others, there = ~torch.isin(self.picture_rows, rows), pictures.any(dim=1)
        return replace(
            self,
            pictures=torch.cat([self.pictures[others], pictures[there]]),
            picture_rows=torch.cat([self.picture_rows[others], rows[there]]),
        )

    def with_photos(self, rows: Tensor, photos: Tensor) -> "Gallery":
        """Return the gallery with more labelled photos (n, D) of the products in ``rows`` (n,)."""
        return replace(
            self,
            photos=torch.cat([self.photos, photos.to(self.photos)]),
            photo_rows=torch.cat([self.photo_rows, rows.to(self.photo_rows)]),
        )

    def to(self, device: torch.device | str) -> "Gallery":
        """Return the gallery on a device."""
        return Gallery(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class Evidence(NamedTuple):
    """What each source says of each product, for some photos.

    The head speaks by logits, not by probabilities: their level tells what it knows from what it
    does not (Liu et al., 2020, https://arxiv.org/abs/2010.03759), and a softmax takes it away.
    """

    values: Tensor  # (B, N, S): cosines, and the head's logits; 0 where absent
    present: Tensor  # bool (B, N, S)

    def without(self, hidden: Tensor) -> "Evidence":
        """Return the evidence as if what is hidden, bool (B, N, S), had never been known."""
        return Evidence(self.values.masked_fill(hidden, 0.0), self.present & ~hidden)

    def take(self, photos: Tensor) -> "Evidence":
        """Return the evidence of some of the photos, by number or mask."""
        return Evidence(*(part[photos] for part in self))


def collect_evidence(photos: Photos, items: Tensor, gallery: Gallery) -> Evidence:
    """Return what every source says of every product.

    Args:
        photos: B photos.
        items: Item embeddings (N, D); an item of zeros has nothing to compare.
        gallery: Its rows are below N.
    """
    queries, n_items = photos.embeddings, len(items)
    values = queries.new_zeros(len(queries), n_items, len(SOURCES))
    present = torch.zeros(n_items, len(SOURCES), dtype=torch.bool, device=queries.device)
    values[:, gallery.picture_rows, PICTURE] = queries @ gallery.pictures.T
    present[gallery.picture_rows, PICTURE] = True
    values[..., ITEM] = queries @ items.T
    present[:, ITEM] = items.any(dim=1)
    rows, nearest = nearest_photos(queries, gallery.photos, gallery.photo_rows)
    values[:, rows, PHOTOS] = nearest
    present[rows, PHOTOS] = True
    known = gallery.head_rows >= 0
    values[:, gallery.head_rows[known], HEAD] = photos.logits[:, known]
    present[gallery.head_rows[known], HEAD] = True
    return Evidence(values, present.expand(len(queries), -1, -1))


def nearest_photos(queries: Tensor, photos: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the products that have photos (P,), and how near their nearest ones are (B, P).

    That is the mean cosine of a product's ``NEAREST`` nearest photos, or of all if it has fewer. A
    product looks different from the front and in a heap: the mean of all photos, a prototype
    (Snell et al., 2017, https://arxiv.org/abs/1703.05175), is like none of them.

    Args:
        queries: Photos to compare (B, D), unit length.
        photos: Labelled photos (Q, D), unit length.
        rows: Item row of each, int64 (Q,).
    """
    products, counts = rows.unique(return_counts=True)
    if len(products) == 0:
        return products, queries.new_zeros(len(queries), 0)
    starts = counts.cumsum(dim=0) - counts
    places = torch.arange(NEAREST, device=rows.device)
    there = places < counts[:, None]  # (P, NEAREST)
    chosen = (starts[:, None] + places).clamp(max=len(rows) - 1)
    means = []
    for some in queries.split(max(1, COMPARED_AT_ONCE // len(rows))):
        cosines = (some @ photos.T).double()  # (b, Q)
        # One sort groups by product and orders each group by nearness: cosines span less than 4.
        keys = (4.0 * rows - cosines).sort(dim=1).values
        nearest = 4.0 * products[:, None] - keys[:, chosen]  # (b, P, NEAREST)
        mean = nearest.masked_fill(~there, 0.0).sum(dim=2) / there.sum(dim=1)
        means.append(mean.to(queries.dtype))
    return products, torch.cat(means)
