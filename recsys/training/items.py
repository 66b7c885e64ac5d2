"""Train the item fusion on frozen tower embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from pytorch_metric_learning.losses import NormalizedSoftmaxLoss
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recsys.config import FusionConfig
from recsys.data.arrays import Floats, Ints
from recsys.errors import InvalidArgumentError
from recsys.models.fusion import ItemFusion, build_fusion
from recsys.models.losses import info_nce, similarity_distillation_loss
from recsys.training.loop import adamw, fit
from recsys.training.rows import Columns, EpochSampler, row_batches
from vision.training.run import FitSettings, TrainingRun

IMAGE = "image"  # the modality that photos have
MIN_EPOCH = 1_024  # rows; one epoch of a smaller catalogue is several passes over it
HEAD_TEMPERATURE = 0.1


@dataclass(frozen=True)
class ItemClasses:
    """Class labels of the items, for the heads.

    Args:
        targets: Class of each item by target name, int64 (N,); -1 where unknown.
        n_classes: Number of classes C of each target.
    """

    targets: Mapping[str, Ints]
    n_classes: Mapping[str, int]


@dataclass(frozen=True)
class ItemPhotos:
    """Customers' photos of the items.

    Args:
        embeddings: Image embeddings of the photos (n, D_image).
        rows: Row of the item on each photo, int64 (n,).
    """

    embeddings: Floats
    rows: Ints


@dataclass(frozen=True)
class ItemTrainingData:
    """What the fusion learns from, in the order of the catalogue's N items.

    A part that is None leaves its loss out.

    Args:
        modalities: Tower embeddings (N, D_m) by modality; rows of absent modalities are ignored.
        present: Which modalities each item has, bool (N, M), in the order of ``modalities``.
        title_groups: Number of each item's title, int64 (N,); items of the same title are never
            negatives of each other.
        classes: Class labels of the items.
        pairs: Pairs of rows of items that the same users take, int64 (P, 2), in either order.
        photos: Customers' photos of the items.
        teacher: Embeddings by another model (N, D_t), zeros for items that it does not have.
    """

    modalities: Mapping[str, Floats]
    present: NDArray[np.bool_]
    title_groups: Ints
    classes: ItemClasses | None = None
    pairs: Ints | None = None
    photos: ItemPhotos | None = None
    teacher: Floats | None = None

    def __len__(self) -> int:
        return len(self.present)

    @property
    def dims(self) -> dict[str, int]:
        """Embedding size D_m of each modality."""
        return {name: values.shape[1] for name, values in self.modalities.items()}


def train_items(
    data: ItemTrainingData,
    config: FusionConfig,
    run: TrainingRun,
    *,
    start: ItemFusion | None = None,
) -> ItemFusion:
    """Return a fusion trained on the items that have at least one modality.

    Without two such items there is nothing to compare, and the fusion stays as it was built.

    The loss is a weighted sum of six, each left out if there are no data for it. Contrast between
    the views of an item, and between photo and item, makes words and photos find items. By itself
    it would lose what only one modality knows, such as a brand or a colour. Linear decoders of each
    modality's input, and class heads, keep that in the fused embedding. Contrast between items that
    the same users take adds taste, and a teacher adds its similarities. Modality dropout: these
    losses sometimes see an item with one modality removed. The temperature is fixed, because on a
    small catalogue a learned temperature falls until only the right item is near, and similarities
    lose their degrees.

    Args:
        data: Embeddings, labels, pairs, photos and teacher of the items.
        config: Sizes, loss weights and schedule.
        run: Folder of the checkpoints, seed and device. An interrupted run is resumed from it.
        start: Fusion whose weights training begins with, built from ``config`` for the same
            modalities in the same order; None draws random weights.

    Raises:
        TrainingError: If the loss is not finite, or the checkpoint is damaged or of another run.
        InvalidArgumentError: If the arrays have shapes or rows that do not fit each other, or
            ``start`` fuses other modalities.
    """
    _check(data)
    if start is not None and list(start.dims.items()) != list(data.dims.items()):
        raise InvalidArgumentError(f"start must fuse {data.dims}, got {start.dims}")
    rows = np.flatnonzero(data.present.any(axis=1))
    n_photos = 0 if data.photos is None else len(data.photos.rows)
    batch_size = min(config.batch_size, len(rows))
    batches: DataLoader[int] | tuple[()] = ()
    if len(rows) > 1:
        sampler = _sampler(rows, batch_size, config.items_per_epoch, n_photos, seed=run.seed)
        batches = row_batches(sampler, batch_size)
    with isolate_rng():
        torch.manual_seed(run.seed)
        module = _FusionTraining(data, config, start, n_steps=config.epochs * len(batches))
    if batches:
        settings = FitSettings(epochs=config.epochs, precision="32-true")
        fit(module, batches, None, settings, run)
    return module.fusion.eval()


def _sampler(rows: Ints, batch_size: int, most: int, n_photos: int, *, seed: int) -> EpochSampler:
    """Return epochs to show each photo about once, or ``most`` items; no batch repeats an item."""
    per_pass = max(1, min(len(rows), most) // batch_size) * batch_size
    passes = max(1, min(-(-max(MIN_EPOCH, n_photos) // per_pass), most // per_pass))

    def draw(rng: np.random.Generator) -> Ints:
        return np.concatenate([rng.permutation(rows)[:per_pass] for _ in range(passes)])

    return EpochSampler(draw, passes * per_pass, seed=seed)


class _FusionTraining(L.LightningModule):
    """Lightning module of :func:`train_items`; a batch holds item rows."""

    def __init__(
        self,
        data: ItemTrainingData,
        config: FusionConfig,
        start: ItemFusion | None,
        *,
        n_steps: int,
    ) -> None:
        super().__init__()
        self.config, self.n_steps = config, n_steps
        self.fusion = build_fusion(config, data.dims)
        self.inputs = Columns(data.modalities)
        self.items = Columns({"present": data.present, "title_groups": data.title_groups})
        seen = _seen(data)
        if start is None:
            self.fusion.fit_scale(seen)
        else:
            self.fusion.load_state_dict(start.state_dict())
        means = {name: values.mean(dim=0).numpy() for name, values in seen.items()}
        self.means = Columns(means)
        classes = data.classes or ItemClasses({}, {})
        self.targets = Columns(classes.targets)
        self.heads = nn.ModuleList(
            NormalizedSoftmaxLoss(classes.n_classes[name], config.dim, temperature=HEAD_TEMPERATURE)
            for name in classes.targets
        )
        self.decoders = nn.ModuleList(
            nn.Linear(config.dim, size, bias=False) for size in data.dims.values()
        )
        self.partners = _partners(data)
        photos = data.photos if IMAGE in data.dims else None
        self.photos = Columns({} if photos is None else {IMAGE: photos.embeddings})
        shown = np.empty(0, dtype=np.int64) if photos is None else photos.rows
        self.photos_of = _Choices(shown, np.arange(len(shown)), len(data))
        self.teacher = Columns({} if data.teacher is None else {"embedding": data.teacher})

    def configure_optimizers(self) -> Any:
        """Return AdamW on the configured schedule."""
        return adamw(
            self,
            n_steps=self.n_steps,
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )

    def training_step(self, rows: Tensor, batch_index: int) -> Tensor:
        """Return the weighted sum of the losses for distinct item rows (B,)."""
        config = self.config
        inputs, items = self.inputs.at(rows), self.items.at(rows)
        present = items["present"]
        groups = items["title_groups"]
        projected = self.fusion.project(inputs, present)  # (B, M, D)
        whole = self.fusion.fuse(projected, present)  # (B, D)
        full = whole
        if config.modality_dropout:
            full = self.fusion.fuse(projected, _without_one(present, config.modality_dropout))
        loss = (
            config.view_weight * self._views(projected, whole, present, groups)
            + config.reconstruction_weight * self._reconstruction(full, inputs, present)
            + config.head_weight * self._heads(full, rows)
            + config.pair_weight * self._pairs(full, rows, groups)
            + config.photo_weight * self._photos(full, rows, groups)
            + config.distillation_weight * self._distillation(full, rows)
        )
        self.log("loss", loss, prog_bar=True)
        return loss

    def _views(self, projected: Tensor, full: Tensor, present: Tensor, groups: Tensor) -> Tensor:
        """Contrast each modality alone with the other modalities and with the whole item."""
        alone = []
        for m in range(present.shape[1]):
            only = torch.zeros_like(present)
            only[:, m] = present[:, m]
            alone.append(self.fusion.fuse(projected, only))
        losses = []
        for a, b in combinations(range(len(alone)), 2):
            both = present[:, a] & present[:, b]
            for left, right in ((alone[a], alone[b]), (alone[a], full), (alone[b], full)):
                losses.append(self._contrast(left[both], right[both], groups[both]))
        return _mean(losses, full)

    def _reconstruction(self, full: Tensor, inputs: dict[str, Tensor], present: Tensor) -> Tensor:
        """Return the cosine distance of centred inputs from what linear decoders make of items."""
        losses = []
        means = self.means.all()
        for m, (name, decoder) in enumerate(zip(inputs, self.decoders, strict=True)):
            has = present[:, m]
            # Without centring, what all items share would make every cosine high.
            wanted = inputs[name][has] - means[name]
            losses.append(_or_zero(1 - F.cosine_similarity(decoder(full[has]), wanted), full))
        return _mean(losses, full)

    def _heads(self, full: Tensor, rows: Tensor) -> Tensor:
        """Classify the items, for each target over the items whose label is known."""
        losses = []
        for head, labels in zip(self.heads, self.targets.at(rows).values(), strict=True):
            known = labels >= 0
            if known.any():
                losses.append(head(full[known], labels[known]))
        return _mean(losses, full)

    def _pairs(self, full: Tensor, rows: Tensor, groups: Tensor) -> Tensor:
        """Contrast each item with another that the same users took."""
        has, partners = self.partners.draw(rows)
        if len(partners) == 0:
            return full.new_zeros(())
        present = self.items.at(partners)["present"]
        return self._contrast(
            full[has], self.fusion(self.inputs.at(partners), present), groups[has]
        )

    def _photos(self, full: Tensor, rows: Tensor, groups: Tensor) -> Tensor:
        """Contrast each item with one of its photos."""
        has, photos = self.photos_of.draw(rows)
        if len(photos) == 0:
            return full.new_zeros(())
        return self._contrast(full[has], self.fusion.encode(self.photos.at(photos)), groups[has])

    def _distillation(self, full: Tensor, rows: Tensor) -> Tensor:
        """Compare similarities with those of the teacher, among the items that it knows."""
        if not self.teacher.all():
            return full.new_zeros(())
        teacher = self.teacher.at(rows)["embedding"]
        has = teacher.any(dim=1)
        return similarity_distillation_loss(
            full[has], F.normalize(teacher[has], dim=1), temperature=self.config.temperature
        )

    def _contrast(self, queries: Tensor, keys: Tensor, groups: Tensor) -> Tensor:
        if len(queries) == 0:
            return queries.sum()
        return info_nce(queries, keys, groups, temperature=self.config.temperature)


class _Choices(nn.Module):
    """A list of values for each item, from which one is drawn at random.

    A draw for each item, rather than from all values, keeps popular items from filling the batches.
    """

    starts: Tensor
    counts: Tensor
    values: Tensor

    def __init__(self, rows: Ints, values: Ints, n_rows: int) -> None:
        super().__init__()
        counts = np.bincount(rows, minlength=n_rows)
        columns = {
            "starts": np.cumsum(counts) - counts,
            "counts": counts,
            "values": values[np.argsort(rows, kind="stable")],
        }
        for name, column in columns.items():
            self.register_buffer(name, torch.from_numpy(column), persistent=False)

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return which rows have values, bool (B,), and one value for each of those rows."""
        counts = self.counts[rows]
        has = counts > 0
        offsets = (torch.rand(len(rows), device=rows.device) * counts).long()
        return has, self.values[(self.starts[rows] + offsets)[has]]


def _seen(data: ItemTrainingData) -> dict[str, Tensor]:
    """Return the items' embeddings (n_m, D_m) by modality; the photos' if no item has a picture."""
    columns = zip(data.modalities.items(), data.present.T, strict=True)
    seen = {name: torch.from_numpy(values[has]) for (name, values), has in columns}
    if data.photos is not None and IMAGE in seen and not len(seen[IMAGE]):
        seen[IMAGE] = torch.tensor(data.photos.embeddings)
    return seen


def _partners(data: ItemTrainingData) -> _Choices:
    """Return for each item the items with a modality that the same users take."""
    pairs = np.empty((0, 2), dtype=np.int64) if data.pairs is None else data.pairs
    seen: NDArray[np.bool_] = np.asarray(data.present.any(axis=1))
    both = pairs[seen[pairs].all(axis=1)]
    return _Choices(
        np.concatenate([both[:, 0], both[:, 1]]), both[:, ::-1].ravel(order="F"), len(data)
    )


def _without_one(present: Tensor, share: float) -> Tensor:
    """Return ``present`` (B, M) with a modality removed in a share of the rows with several."""
    scores = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    dropped = F.one_hot(scores.argmax(dim=1), present.shape[1]).bool()
    chosen = (torch.rand(len(present), device=present.device) < share) & (present.sum(dim=1) > 1)
    return present & ~(dropped & chosen[:, None])


def _or_zero(values: Tensor, like: Tensor) -> Tensor:
    return values.mean() if len(values) else like.new_zeros(())


def _mean(losses: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(losses).mean() if losses else like.new_zeros(())


def _check(data: ItemTrainingData) -> None:
    """Raise if the arrays do not fit each other: indexing would fail later and less clearly."""
    n_items = len(data)
    _check_shape("present", data.present, (n_items, len(data.modalities)), n_items)
    _check_shape("title_groups", data.title_groups, (n_items,), n_items)
    for name, values in data.modalities.items():
        _check_shape(f"modalities[{name!r}]", values, (n_items, values.shape[-1]), n_items)
    if data.teacher is not None:
        _check_shape("teacher", data.teacher, (n_items, data.teacher.shape[-1]), n_items)
    if data.pairs is not None:
        _check_shape("pairs", data.pairs, (len(data.pairs), 2), n_items)
        _check_rows("pairs", data.pairs, n_items)
    if data.photos is not None:
        n_photos = len(data.photos.embeddings)
        _check_shape("photos.rows", data.photos.rows, (n_photos,), n_items)
        _check_rows("photos.rows", data.photos.rows, n_items)
        if IMAGE in data.dims:
            shape = (n_photos, data.dims[IMAGE])
            _check_shape("photos.embeddings", data.photos.embeddings, shape, n_items)
    if data.classes is not None:
        _check_classes(data.classes, n_items)


def _check_shape(name: str, values: NDArray[Any], shape: tuple[int, ...], n_items: int) -> None:
    if values.shape != shape:
        raise InvalidArgumentError(
            f"{name} must have shape {shape} for {n_items} items, got {values.shape}"
        )


def _check_rows(name: str, rows: Ints, n_items: int) -> None:
    if rows.size and not 0 <= rows.min() <= rows.max() < n_items:
        raise InvalidArgumentError(
            f"{name} must be item rows in [0, {n_items}), got {rows.min()} to {rows.max()}"
        )


def _check_classes(classes: ItemClasses, n_items: int) -> None:
    for name, labels in classes.targets.items():
        _check_shape(f"targets[{name!r}]", labels, (n_items,), n_items)
        if labels.size and labels.max() >= classes.n_classes[name]:
            raise InvalidArgumentError(
                f"targets[{name!r}] must be below its n_classes {classes.n_classes[name]}, "
                f"got {labels.max()}"
            )
