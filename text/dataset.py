"""Texts with labels and relations, split into words once and read as whole batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from text.encoder import TextEncoder
from text.errors import InvalidArgumentError
from text.training.pairs import Pairs
from text.training.queries import TokenizedText, tokenize_words

UNKNOWN = -1


@dataclass(frozen=True)
class Samples:
    """Texts, their labels, and what else they should be found by.

    Attributes:
        texts: Titles, or titles with descriptions (n).
        targets: Class indices of the texts, by target, int64 (n,); -1 where unknown.
        classes: Class names, by target, in the same order as ``targets``.
        categories: Category paths such as ``("Apparel", "Topwear", "Tshirts")``, one per text (n),
            each empty where unknown. An empty sequence stands for no categories at all.
        pairs: Rows of two texts that go together, such as items bought together, int64 (P, 2). The
            order within a pair does not matter.
    """

    texts: Sequence[str]
    targets: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    categories: Sequence[Sequence[str]] = ()
    pairs: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))

    def __post_init__(self) -> None:
        if isinstance(self.texts, str):
            raise InvalidArgumentError(
                f"texts must be a sequence of strings, got {self.texts[:40]!r}"
            )
        self._check_targets()
        if len(self.categories) not in {0, len(self.texts)}:
            raise InvalidArgumentError(
                f"categories must have one path per text ({len(self.texts)}), or be empty, "
                f"got {len(self.categories)}"
            )
        self._check_pairs()

    def _check_targets(self) -> None:
        if list(self.targets) != list(self.classes):
            raise InvalidArgumentError(
                f"targets and classes must name the same targets in the same order, "
                f"got {list(self.targets)} and {list(self.classes)}"
            )
        for name, labels in self.targets.items():
            if labels.dtype != np.int64 or labels.shape != (len(self.texts),):
                raise InvalidArgumentError(
                    f"targets[{name!r}] must be int64 ({len(self.texts)},), "
                    f"got {labels.dtype} {labels.shape}"
                )
            count = len(self.classes[name])
            if labels.size and not UNKNOWN <= labels.min() <= labels.max() < count:
                raise InvalidArgumentError(
                    f"targets[{name!r}] must be between -1 and {count - 1}, "
                    f"got {labels.min()} to {labels.max()}"
                )

    def _check_pairs(self) -> None:
        pairs, count = self.pairs, len(self.texts)
        if pairs.dtype != np.int64 or pairs.ndim != 2 or pairs.shape[1] != 2:
            raise InvalidArgumentError(
                f"pairs must be int64 (P, 2), got {pairs.dtype} {pairs.shape}"
            )
        if pairs.size and not 0 <= pairs.min() <= pairs.max() < count:
            raise InvalidArgumentError(
                f"pairs must be rows between 0 and {count - 1}, got {pairs.min()} to {pairs.max()}"
            )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def category_texts(self) -> list[str]:
        """The category path of every text as one string (n); empty without categories."""
        return [" ".join(path) for path in self.categories]


class Batch(NamedTuple):
    """A batch of texts with their labels and relations."""

    rows: list[int]  # rows of the samples (B)
    texts: list[TokenizedText]
    labels: Tensor  # int64 (B, number of targets)
    categories: list[TokenizedText]  # (B), or empty without categories
    pairs: Pairs  # those of all texts, by row


class TextSet(Dataset[Batch]):
    """Texts as words of token ids, in memory.

    Args:
        samples: Texts, labels and relations.
        encoder: Encoder whose tokenizer splits the texts.
    """

    def __init__(self, samples: Samples, encoder: TextEncoder) -> None:
        self.texts = tokenize_words(encoder, samples.texts)
        self.categories = tokenize_words(encoder, samples.category_texts)
        self.pairs = Pairs(self.texts, samples.pairs)
        columns = [*samples.targets.values()]
        labels = np.stack(columns, axis=1) if columns else np.zeros((len(samples), 0), np.int64)
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> Batch:
        """Return one text as a batch."""
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return a whole batch. The loader of torch calls this method where it exists."""
        categories = [self.categories[row] for row in rows] if self.categories else []
        return Batch(
            rows, [self.texts[row] for row in rows], self.labels[rows], categories, self.pairs
        )


class EpochShuffle(Sampler[int]):
    """A new order every epoch, which depends on seed and epoch alone, so a resumed run repeats it.

    Args:
        count: Number of rows.
        seed: Random seed of all orders.
        size: Largest number of rows in an epoch; None is all of them.
    """

    def __init__(self, count: int, seed: int, size: int | None = None) -> None:
        self.count, self.seed, self.epoch = count, seed, 0
        self.size = count if size is None else min(count, size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch. Lightning calls this method."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        order: list[int] = (
            np.random.default_rng([self.seed, self.epoch])
            .permutation(self.count)[: self.size]
            .tolist()
        )
        return iter(order)
