"""What training reads: a shop's tables in the form of arrays, and what its towers see in them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

import text.dataset
import text.finetuning
import vision.finetuning
from recsys.catalogue.embedder import Modalities
from recsys.config import TrainConfig
from recsys.data.arrays import Ints
from recsys.data.dataset import Dataset
from recsys.data.ids import trim_id
from recsys.data.interactions import Interactions, Moment
from recsys.errors import ConfigError
from recsys.models.fusion import ItemFusion
from recsys.ranking.relations import Related, related_items
from recsys.rules import Rules
from recsys.training.cuts import (
    asked_from,
    check_windows,
    choose_cuts,
    choose_targets,
    dataset_interactions,
)
from recsys.training.items import IMAGE, ItemPhotos
from recsys.training.labels import Labels, item_labels, title_groups
from recsys.training.pairs import item_pairs
from recsys.training.parts import TEXT_TRAINING, why_left_out, why_no_ranking
from recsys.training.samples import (
    PictureSamples,
    label_pictures,
    picture_samples,
    text_samples,
    warn_of_unseen_classes,
)
from recsys.training.teacher import Teacher
from recsys.training.users import split_visits, warn_of_unknown_kinds
from recsys.training.visits import order_events
from vision.networks.start import warn_of_random_weights

# Columns that the towers depend on, so that new events and other prices train no tower again.
VISION_COLUMNS = ("item_id", "image", "category", "attributes")
TOWER_COLUMNS = (*VISION_COLUMNS, "title", "description")


@dataclass(frozen=True)
class Behaviour:
    """What statistics, user encoders and rankers learn from.

    Args:
        items: Table of ``ItemSchema``.
        interactions: All events.
        target_kinds: Event kinds to recommend for.
        cuts_us: Moments of the ranker's snapshots, earliest first; the split is the last entry.
            What learns before the split learns from events before these alone.
        related: Related items of every item.
        key: Hash of all of the above but ``related``.
    """

    items: pl.DataFrame
    interactions: Interactions
    target_kinds: tuple[str, ...]
    cuts_us: tuple[Moment, ...]
    related: Related
    key: str

    @cached_property
    def asked_from_us(self) -> Moment:
        """Moment from which on events are the test set."""
        return asked_from(self.interactions.of_kinds(self.target_kinds), self.cuts_us)

    @cached_property
    def relations_key(self) -> str:
        """Hash of the relations, on which only the ranker is trained."""
        return hashlib.sha256(b"".join(part.tobytes() for part in self.related)).hexdigest()


@dataclass(frozen=True)
class ShopData:
    """A shop's tables, and everything that is computed from them once a run.

    Args:
        dataset: Validated tables.
        labels: Class labels of the items.
        title_groups: Group of each item, int64 (N,); items of one title share it.
        teacher: Embeddings of another model.
        interactions: All events, or None if they cannot train ranking.
        target_kinds: Event kinds to recommend for.
        cuts_us: Moments of the ranker's snapshots, earliest first; the split is the last entry.
        pairs: Rows of items that go together, int64 (P, 2), from events before the first cut.
        pictures: Pictures that the vision tower learns from.
        texts: Texts that the text encoder learns from.
        left_out: What is not trained, each with the reason.
    """

    dataset: Dataset
    labels: Labels
    title_groups: Ints
    teacher: Teacher
    interactions: Interactions | None
    target_kinds: tuple[str, ...]
    cuts_us: tuple[Moment, ...]
    pairs: Ints
    pictures: PictureSamples
    texts: text.dataset.Samples
    left_out: Mapping[str, str]

    @property
    def past(self) -> Interactions | None:
        """Events before the first cut; the ranker learns from the later ones."""
        return None if self.interactions is None else self.interactions.before(self.cuts_us[0])

    @cached_property
    def behaviour(self) -> Behaviour | None:
        """What ranking learns from, or None without events that can train it."""
        if self.interactions is None:
            return None
        items = self.dataset.items
        return Behaviour(
            items=items,
            interactions=self.interactions,
            target_kinds=self.target_kinds,
            cuts_us=self.cuts_us,
            related=related_items(self.dataset.relations, items["item_id"].to_list()),
            key=self.key,
        )

    @cached_property
    def vision_key(self) -> str:
        """Hash of what the vision tower depends on."""
        return self.dataset.select_items(VISION_COLUMNS).fingerprint()

    @cached_property
    def towers_key(self) -> str:
        """Hash of what either tower depends on."""
        return self.dataset.select_items(TOWER_COLUMNS).fingerprint()

    @cached_property
    def key(self) -> str:
        """Hash of everything that is read from the tables but the relations."""
        tables = replace(self.dataset, relations=None)
        cuts = [one if isinstance(one, int) else one.tolist() for one in self.cuts_us]
        chosen = json.dumps([tables.fingerprint(), self.target_kinds, cuts])
        return hashlib.sha256(chosen.encode()).hexdigest()


def check_rules(rules: Rules, items: pl.DataFrame) -> None:
    """Raise if rules name an item that the items table lacks.

    Raises:
        ConfigError: If they do; the message names the first few.
    """
    known = set(items["item_id"])
    unknown = [one for one in rules.item_ids if trim_id(one) not in known]
    if unknown:
        raise ConfigError(
            f"rules must name items of the items table ({len(known)}), got unknown {unknown[:5]}; "
            "remove them from [rules], or add the items"
        )


def read_shop(dataset: Dataset, config: TrainConfig) -> ShopData:
    """Return what training reads of a shop's tables, and what they cannot train.

    Raises:
        InvalidArgumentError: If a wanted event kind does not occur.
        DataError: If there are neither titles nor pictures to learn from, the ranker has nothing
            to learn from before or between the cuts, or the teacher cannot be used.
        VisionError: If the vision tower cannot be built as configured.
        TextError: If the checkpoint of the text encoder cannot be used.
        TrainingError: If the user encoder has nothing to learn from before the first cut.
        ConfigError: If the rules name an item that the items table lacks.
    """
    check_rules(config.rules, dataset.items)
    interactions = dataset_interactions(dataset)
    no_ranking = why_no_ranking(interactions)
    if no_ranking is not None:
        interactions = None
    targets = choose_targets(interactions, config.data.target_kinds)
    cuts_us: tuple[Moment, ...] = ()
    past = None
    if interactions is not None:
        cuts_us = cut_events(dataset.items, interactions, targets, config)
        past = interactions.before(cuts_us[0])
        warn_of_unknown_kinds(config.users, interactions.kind_names)
    labels, pairs = item_labels(dataset.items), item_pairs(past, seed=config.seed)
    pictures = picture_samples(dataset, label_pictures(dataset))
    texts = text_samples(dataset.items, labels, pairs)
    groups = title_groups(dataset.items)
    left_out = why_left_out(dataset, pictures, texts, groups, config)
    if "vision" not in left_out:
        warn_of_unseen_classes(pictures)
        vision.finetuning.check_samples(pictures.train, config.vision, pictures.validation)
        vision.finetuning.check_start(pictures.train.classes, config.vision)
        warn_of_random_weights(config.vision)
    if not {"text", TEXT_TRAINING} & {*left_out}:
        text.finetuning.check_samples(texts, config.text, None)
    if "text" not in left_out:
        text.finetuning.check_start(config.text)
    return ShopData(
        dataset=dataset,
        labels=labels,
        title_groups=groups,
        teacher=Teacher(config.fusion.teacher, dataset.items["item_id"].to_list()),
        interactions=interactions,
        target_kinds=targets,
        cuts_us=cuts_us,
        pairs=pairs,
        pictures=pictures,
        texts=texts,
        left_out=left_out if no_ranking is None else {**left_out, "ranking": no_ranking},
    )


def cut_events(
    items: pl.DataFrame, interactions: Interactions, targets: tuple[str, ...], config: TrainConfig
) -> tuple[Moment, ...]:
    """Return the moments of ``choose_cuts``, between which users and rankers can learn.

    Raises:
        DataError: If the ranker has nothing to learn from before or between the cuts.
        TrainingError: If the user encoder has nothing to learn from before the first cut.
    """
    cuts_us = choose_cuts(interactions, targets, config.split, seed=config.seed)
    check_windows(items, interactions, targets, cuts_us)
    visits = order_events(interactions.before(cuts_us[0]))
    split_visits(visits, config.users, config.seed)
    return cuts_us


@dataclass(frozen=True)
class Material:
    """What the networks above the towers are trained on.

    Args:
        shop: The shop's tables.
        modalities: Tower embeddings of the items.
        photos: Training photos that name their item, or None without any.
        start: Fusion that the towers were aligned with, or None.
        key: Hash of all of the above.
    """

    shop: ShopData
    modalities: Modalities
    photos: ItemPhotos | None
    start: ItemFusion | None
    key: str

    def only(self, modality: str) -> "Material":
        """Return the material with one modality, for an ablation."""
        kept = Modalities(
            {modality: self.modalities.embeddings[modality]},
            {modality: self.modalities.present[modality]},
        )
        photos = self.photos if modality == IMAGE else None
        key = f"{self.key}-{modality}"
        return replace(self, modalities=kept, photos=photos, start=None, key=key)
