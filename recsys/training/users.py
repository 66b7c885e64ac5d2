"""Train the user encoder: its vectors should score highest the items that users take next."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.config import UserConfig
from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.errors import InvalidArgumentError, TrainingError
from recsys.models.losses import catalogue_softmax_loss, sampled_softmax_loss
from recsys.models.user_encoder import UserEncoder, build_user_encoder
from recsys.training.loop import adamw, fit
from recsys.training.rows import Columns, EpochSampler, row_batches
from recsys.training.visits import (
    OrderedEvents,
    Visits,
    build_visits,
    draw_visits,
    order_events,
)
from vision.training.callbacks import VALIDATION_LOSS
from vision.training.run import FitSettings, TrainingRun

logger = logging.getLogger(__name__)

START_TEMPERATURE = 0.1
MIN_TEMPERATURE = 0.01  # as in CLIP; below it single items dominate the loss
MORE_EPOCHS = 3  # for an encoder that has learned from most of the events
ENCODED_TOGETHER = 64  # histories of a like length
VALIDATION_VISITS = 5_000  # enough for a steady loss, few enough not to slow down an epoch
FOREVER_US = np.iinfo(np.int64).max


class UserEncoders(NamedTuple):
    """The user encoder, trained up to three moments.

    Args:
        first: Trained on the events before the first cut. It gives the rankers their training
            features, since it knows none of the answers.
        held_out: Trained on the events before the split.
        served: Trained on all events; None for an ablation, which is only evaluated.
        key: Hash of what they depend on.
    """

    first: UserEncoder
    held_out: UserEncoder
    served: UserEncoder | None
    key: str


def train_users(
    interactions: Interactions,
    item_embeddings: NDArray[np.float32],
    item_available_from_us: Ints,
    config: UserConfig,
    run: TrainingRun,
    *,
    start: UserEncoder | None = None,
) -> UserEncoder:
    """Return an encoder whose user vectors rank items by dot product, likely next items first.

    Each example is one visit of a user: the history before it, and targets drawn from the user's
    events of the following days, as in PinnerFormer (Pancha et al., 2022,
    https://arxiv.org/abs/2205.04507). Training on the very next event alone would not fit the task,
    since a basket has no order and recommendations are judged by what happens over days. The loss
    is a softmax over the items on offer when the visit began, with a learned temperature. The
    latest events are held out for early stopping, and no training target lies among them.

    Args:
        interactions: Events to train and validate on.
        item_embeddings: Item embeddings (N, D) of unit length or zero; they are not trained.
        item_available_from_us: Time at which each item came on offer, int64 (N,).
        config: Sizes and schedule.
        run: Folder of the checkpoints, seed and device. An interrupted run is resumed from it.
        start: Encoder of earlier events to go on from, for ``MORE_EPOCHS`` at most; None starts
            from the beginning.

    Raises:
        TrainingError: If there is nothing to train or validate on, the loss is not finite, or the
            checkpoint is damaged or of another run.
        InvalidArgumentError: If the arrays differ in their number of items.
    """
    items: dict[str, NDArray[Any]] = {
        "embeddings": item_embeddings,
        "available_from_us": item_available_from_us,
    }
    for name, values in items.items():
        if len(values) != interactions.n_items:
            raise InvalidArgumentError(
                f"item {name} must have one row for each of the {interactions.n_items} items of "
                f"the interactions, got {len(values)}"
            )
    if start is not None:
        config = config.model_copy(update={"epochs": min(config.epochs, MORE_EPOCHS)})
    events = order_events(interactions)
    train, validation = split_visits(events, config, run.seed)
    drawn = int(np.minimum(np.bincount(train.users), config.histories_per_user).sum())
    size = min(drawn, config.histories_per_epoch)
    sampler = EpochSampler(
        lambda rng: draw_visits(train, config.histories_per_user, rng)[:size], size, seed=run.seed
    )
    batches = row_batches(sampler, config.batch_size)
    # Validation visits are numbered after those of training.
    validation_rows = range(len(train), len(train) + len(validation))
    with isolate_rng():
        torch.manual_seed(run.seed)
        module = _UserTraining(
            events,
            (train, validation),
            items,
            interactions.kind_names,
            config,
            n_steps=config.epochs * len(batches),
        )
        if start is not None:
            module.encoder.load_state_dict(start.state_dict())
    settings = FitSettings(config.epochs, config.patience, "best", config.precision)
    fit(module, batches, row_batches(validation_rows, config.batch_size), settings, run)
    return module.encoder


def warn_of_unknown_kinds(config: UserConfig, kind_names: Sequence[str]) -> None:
    """Log which kinds the configuration weighs that no event has; the defaults may have such."""
    weighed = config.kind_weights if "kind_weights" in config.model_fields_set else {}
    unknown = sorted(weighed.keys() - set(kind_names))
    if unknown:
        logger.warning(
            "[users] kind_weights should name kinds of the events (%s), got %s, which no event has",
            ", ".join(kind_names),
            ", ".join(unknown),
        )


def split_visits(events: OrderedEvents, config: UserConfig, seed: int) -> tuple[Visits, Visits]:
    """Return the visits to train on, and a sample of the later visits to validate on.

    Args:
        events: Events sorted by user, then time.
        config: Horizon of the targets, and share of the events to validate on.
        seed: Random seed of the sample.

    Raises:
        TrainingError: If either of the two would be empty.
    """
    times_us = np.sort(events.times_us)
    cut = times_us[int(len(times_us) * (1 - config.validation_share))] if len(times_us) else 0
    train = build_visits(events, config.horizon_days, until_us=cut)
    later = build_visits(events, config.horizon_days, until_us=FOREVER_US)
    later = later.take(later.times_us >= cut)
    if not len(train) or not len(later):
        raise TrainingError(
            "the user encoder needs visits at two times or more before the first cut, to train on "
            f"the earlier and validate on the later, got events at {len(np.unique(times_us))} "
            "times; shorten [split] horizon, lower n_cuts, or leave the events out to train "
            "without ranking"
        )
    chosen = np.random.default_rng(seed).permutation(len(later))[:VALIDATION_VISITS]
    return train, later.take(chosen)


class _UserTraining(L.LightningModule):
    """Lightning module of :func:`train_users`; a batch holds numbers of visits."""

    def __init__(
        self,
        events: OrderedEvents,
        visits: tuple[Visits, Visits],
        items: dict[str, NDArray[Any]],
        kind_names: Sequence[str],
        config: UserConfig,
        *,
        n_steps: int,
    ) -> None:
        super().__init__()
        self.config, self.n_steps = config, n_steps
        embeddings = items["embeddings"]
        self.encoder = build_user_encoder(config, dim=embeddings.shape[1], n_kinds=len(kind_names))
        counts = np.bincount(events.rows, minlength=len(embeddings))
        with torch.no_grad():  # newcomers begin at the average of the items taken
            self.encoder.newcomer.copy_(torch.from_numpy(counts / counts.sum() @ embeddings))
        self.encoder.taste.fit_scale(torch.from_numpy(embeddings))
        # Popularity says nothing about a user's taste. A bias for each item absorbs it during
        # training, so that the vectors need not, and is then dropped: the ranker has features for
        # popularity.
        self.popularity = nn.Embedding(len(embeddings), 1)
        with torch.no_grad():
            self.popularity.weight.copy_(torch.from_numpy(np.log1p(counts))[:, None])
        self.log_temperature = nn.Parameter(torch.tensor(START_TEMPERATURE).log())
        self.items = Columns(items)
        self.events = Columns(events._asdict())
        self.visits = Columns(
            {
                name: np.concatenate([getattr(part, name) for part in visits])
                for name in ("times_us", "history_starts", "visit_starts", "target_stops")
            }
        )
        weights = [config.kind_weights.get(name, 1.0) for name in kind_names]
        self.kinds = Columns({"weights": np.array(weights, dtype=np.float32)})

    def configure_optimizers(self) -> Any:
        """Return AdamW on the configured schedule."""
        return adamw(
            self,
            n_steps=self.n_steps,
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )

    def training_step(self, positions: Tensor, batch_index: int) -> Tensor:
        """Return the loss of visits (B,), with targets drawn at random."""
        shape = (len(positions), self.config.n_targets)
        loss = self._loss(positions, torch.rand(shape, device=positions.device))
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, positions: Tensor, batch_index: int) -> None:
        """Log the loss of visits (B,), with targets spread evenly over their ranges."""
        n_targets = self.config.n_targets
        places = (torch.arange(n_targets, device=positions.device) + 0.5) / n_targets
        loss = self._loss(positions, places.expand(len(positions), -1))
        self.log(VALIDATION_LOSS, loss, prog_bar=True, batch_size=len(positions))

    def _loss(self, positions: Tensor, places: Tensor) -> Tensor:
        """Return the loss with targets at ``places`` (B, K) in [0, 1) of each visit's range."""
        visits, events = self.visits.at(positions), self.events.all()
        length = (visits["target_stops"] - visits["visit_starts"])[:, None]
        # Rounding may lift a place just below 1 to the end of a long range.
        offsets = torch.minimum((places * length).long(), length - 1)
        chosen = visits["visit_starts"][:, None] + offsets  # (B, K)
        targets = events["rows"][chosen]
        weights = self.kinds.all()["weights"][events["kinds"][chosen]]
        return self._softmax_loss(self._encode(visits), targets, weights, visits["times_us"])

    def _encode(self, visits: dict[str, Tensor]) -> Tensor:
        """Return user vectors (B, D) from the latest events before each visit.

        Histories of a like length are padded together, for the time grows with the square of the
        longest, and most are far shorter than a batch's longest.
        """
        lengths = visits["visit_starts"] - visits["history_starts"]
        order = lengths.argsort(stable=True)
        parts = [
            self._encode_alike({name: one[some] for name, one in visits.items()})
            for some in order.split(ENCODED_TOGETHER)
        ]
        return torch.cat(parts)[order.argsort()]

    def _encode_alike(self, visits: dict[str, Tensor]) -> Tensor:
        """Return user vectors (B, D), the histories padded to the longest of them."""
        longest = int((visits["visit_starts"] - visits["history_starts"]).max())
        n_events = max(1, min(longest, self.encoder.history_length))
        events, back = self.events.all(), torch.arange(-n_events, 0, device=self.device)
        places = visits["visit_starts"][:, None] + back  # (B, L)
        mask = places >= visits["history_starts"][:, None]
        places = places.clamp(min=0)
        ages_us = (visits["times_us"][:, None] - events["times_us"][places]).clamp(min=0)
        vectors: Tensor = self.encoder(
            self.items.all()["embeddings"][events["rows"][places]],
            ages_us / MICROSECONDS_PER_DAY,
            events["kinds"][places],
            mask,
        )
        return vectors

    def _softmax_loss(
        self, vectors: Tensor, targets: Tensor, weights: Tensor, times_us: Tensor
    ) -> Tensor:
        """Return the softmax loss over all items on offer, or a sample in a large catalogue."""
        items = self.items.all()
        embeddings, available_from_us = items["embeddings"], items["available_from_us"]
        n_items = len(embeddings)
        temperature = self.log_temperature.exp().clamp(min=MIN_TEMPERATURE)
        lowest = torch.finfo(torch.float32).min
        if n_items <= self.config.full_softmax_items:
            logits = (vectors @ embeddings.T).float() / temperature  # (B, N)
            logits = logits + self.popularity.weight.T
            absent = available_from_us > times_us[:, None]
            # A target was on offer when it was taken, perhaps days after the visit began.
            absent.scatter_(1, targets, False)
            return catalogue_softmax_loss(logits.masked_fill(absent, lowest), targets, weights)
        drawn = torch.randint(n_items, (self.config.n_negatives,), device=targets.device)
        negatives = (vectors @ embeddings[drawn].T).float() / temperature  # (B, S)
        negatives = negatives + self.popularity(drawn).T
        absent = available_from_us[drawn] > times_us[:, None]
        absent |= (targets[..., None] == drawn).any(dim=1)
        positives = (vectors[:, None] * embeddings[targets]).sum(dim=2).float() / temperature
        positives = positives + self.popularity(targets).squeeze(-1)
        return sampled_softmax_loss(
            positives, negatives.masked_fill(absent, lowest), weights, n_items=n_items
        )
