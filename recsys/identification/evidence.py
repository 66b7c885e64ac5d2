"""What is known of how products look, and what each kind of evidence says about a photo."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.identification.regression import Regression
from recsys.identification.words import WordScores


class Source(NamedTuple):
    """One kind of evidence: how much a photo resembles each product, by one number for each.

    A new kind is appended to ``SOURCES``, and ``collect_evidence`` fills its column of ``values``
    and ``present``. Nothing else knows of it: its weight is fitted like the others', it adds
    nothing where it is absent, and bundles fitted before it existed give it no weight.

    Args:
        name: Name of the source.
        weight: Weight that the fit starts from: what one unit of the value adds to the logit.
        pivot: Value that speaks neither for nor against a product, where the fit starts.
        pivot_deviation: How far the fit may easily move the pivot.
        from_photos: Whether it comes from customers' photos, so that a product that was just added
            lacks it.
    """

    name: str
    weight: float
    pivot: float
    pivot_deviation: float
    from_photos: bool


# Cosines differ by a tenth where logits differ by one, and a cosine of a half, a logit of 4, or a
# third of the words or of a label, speaks neither for nor against a product.
SOURCES = (
    Source("picture", 10.0, 0.5, 0.2, from_photos=False),
    Source("item", 10.0, 0.5, 0.2, from_photos=False),
    Source("photos", 10.0, 0.5, 0.2, from_photos=True),
    Source("head", 1.0, 4.0, 2.0, from_photos=True),
    Source("words", 10.0, 0.3, 0.2, from_photos=False),
    Source("regression", 10.0, 0.3, 0.2, from_photos=True),
)
PICTURE, ITEM, PHOTOS, HEAD, WORDS, REGRESSION = range(len(SOURCES))
NEAREST = 3  # labelled photos of a product that are averaged; one may have a wrong label
PAIRS_AT_ONCE = 4_000_000  # pairs of photos; sorting them takes 32 bytes each


class Photos(NamedTuple):
    """Photos in the item space, embedded without any words."""

    embeddings: Tensor  # (B, D), unit length
    logits: Tensor  # (B, C) of the head whose classes are products; C is 0 without such a head
    features: Tensor  # (B, F) of the tower's backbone


@dataclass(frozen=True)
class Gallery:
    """Pictures and labelled photos by product, and the classes of the head that are products.

    A picture is embedded alone, without the title. What a photo shows is closer to other pictures
    than to an item that words are part of, so in one list a photo of the wrong product would beat
    the right item. Each kind is therefore a source of its own, with a fitted weight.

    Args:
        pictures: The shop's own pictures (P, D), unit length.
        picture_rows: Item row of each picture, int64 (P,), distinct.
        photos: Labelled photos (Q, D), unit length.
        photo_rows: Item row of each photo, int64 (Q,).
        head_rows: Item row of each class of the head, int64 (C,); -1 for a class that is not a
            single product.
        feature_mean: Fields of a ``Regression`` on the labelled photos that the bundle was trained
            with (F,).
        landmarks: Likewise (M, F); M is 0 in bundles of earlier releases.
        landmark_weights: Likewise (M, P).
        regressed_rows: Likewise, int64 (P,).
    """

    pictures: Tensor
    picture_rows: Tensor
    photos: Tensor
    photo_rows: Tensor
    head_rows: Tensor
    feature_mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    landmarks: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    landmark_weights: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    regressed_rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def with_regression(self, fitted: Regression) -> "Gallery":
        """Return the gallery with a regression on its labelled photos."""
        return replace(
            self,
            feature_mean=fitted.mean,
            landmarks=fitted.landmarks,
            landmark_weights=fitted.weights,
            regressed_rows=fitted.rows,
        )

    def with_pictures(self, rows: Tensor, pictures: Tensor) -> "Gallery":
        """Return the gallery with the pictures of some products replaced.

        Args:
            rows: Item rows of the products (n,), distinct.
            pictures: New picture embeddings (n, D); a row of zeros removes the picture.
        """
        rows, pictures = rows.to(self.picture_rows), pictures.to(self.pictures)
        kept, there = ~torch.isin(self.picture_rows, rows), pictures.any(dim=1)
        return replace(
            self,
            pictures=torch.cat([self.pictures[kept], pictures[there]]),
            picture_rows=torch.cat([self.picture_rows[kept], rows[there]]),
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
    """What each source says about each product, for some photos.

    The head contributes logits instead of probabilities: their level separates what it knows from
    what it does not (Liu et al., 2020, https://arxiv.org/abs/2010.03759), and a softmax removes it.
    """

    values: Tensor  # (B, N, S): cosines, logits and shares of words; 0 where a source is absent
    present: Tensor  # bool (B, N, S)

    def without(self, hidden: Tensor) -> "Evidence":
        """Return the evidence with the sources in ``hidden``, bool (B, N, S), made absent."""
        return Evidence(self.values.masked_fill(hidden, 0.0), self.present & ~hidden)

    def with_words(self, scores: WordScores) -> "Evidence":
        """Return the evidence with what the words on the photos say."""
        values, present = self.values.clone(), self.present.clone()
        there = torch.from_numpy(scores.present).to(present.device)
        values[..., WORDS] = torch.from_numpy(scores.values).to(values).masked_fill(~there, 0.0)
        present[..., WORDS] = there
        return Evidence(values, present)

    def take(self, photos: Tensor) -> "Evidence":
        """Return the evidence of some of the photos, chosen by index or mask."""
        return Evidence(*(part[photos] for part in self))


def collect_evidence(photos: Photos, items: Tensor, gallery: Gallery) -> Evidence:
    """Return what every source but ``WORDS`` says about every product.

    Args:
        photos: The B photos to compare.
        items: Item embeddings (N, D); an item of zeros has no ``ITEM`` source.
        gallery: Gallery of the same catalogue; its rows are below N.
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
    if len(gallery.landmarks):
        fitted = (gallery.feature_mean, gallery.landmarks, gallery.landmark_weights)
        regression = Regression(*fitted, gallery.regressed_rows)
        values[:, gallery.regressed_rows, REGRESSION] = regression.scores(photos.features)
        present[gallery.regressed_rows, REGRESSION] = True
    known = gallery.head_rows >= 0
    values[:, gallery.head_rows[known], HEAD] = photos.logits[:, known]
    present[gallery.head_rows[known], HEAD] = True
    return Evidence(values, present.expand(len(queries), -1, -1))


def nearest_photos(
    queries: Tensor, photos: Tensor, rows: Tensor, *, pairs_at_once: int = PAIRS_AT_ONCE
) -> tuple[Tensor, Tensor]:
    """Return the products that have photos (P,), and the similarity of each one's photos (B, P).

    The similarity is the mean cosine of a product's ``NEAREST`` nearest photos, or of all of them
    if it has fewer. A product looks different from the front and in a heap, so the mean of all its
    photos, a prototype (Snell et al., 2017, https://arxiv.org/abs/1703.05175), resembles none.

    Args:
        queries: Photos to compare (B, D), unit length.
        photos: Labelled photos (Q, D), unit length.
        rows: Item row of each labelled photo, int64 (Q,).
        pairs_at_once: Maximum number of cosines in memory, but at least one query's.
    """
    products, counts = rows.unique(return_counts=True)
    if len(products) == 0:
        return products, queries.new_zeros(len(queries), 0)
    starts = counts.cumsum(dim=0) - counts
    places = torch.arange(NEAREST, device=rows.device)
    there = places < counts[:, None]  # (P, NEAREST)
    chosen = (starts[:, None] + places).clamp(max=len(rows) - 1)
    means = []
    for some in queries.split(max(1, pairs_at_once // len(rows))):
        cosines = (some @ photos.T).double()  # (b, Q)
        # One sort groups by product and orders each group by nearness: cosines span less than 4.
        keys = (4.0 * rows - cosines).sort(dim=1).values
        nearest = 4.0 * products[:, None] - keys[:, chosen]  # (b, P, NEAREST)
        mean = nearest.masked_fill(~there, 0.0).sum(dim=2) / there.sum(dim=1)
        means.append(mean.to(queries.dtype))
    return products, torch.cat(means)
