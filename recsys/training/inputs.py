"""What training reads: a shop's tables in the form of arrays, and what its towers see in them."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

from recsys.catalogue.embedder import Modalities
from recsys.config import TrainConfig
from recsys.data.arrays import Ints
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.models.fusion import ItemFusion
from recsys.training.cuts import choose_cuts, choose_targets, dataset_interactions
from recsys.training.items import IMAGE, ItemPhotos
from recsys.training.labels import Labels, item_labels, title_groups
from recsys.training.pairs import item_pairs
from recsys.training.teacher import Teacher

# Columns that the towers depend on, so that new events and other prices train no tower again.
VISION_COLUMNS = ("item_id", "image", "category", "attributes")
TOWER_COLUMNS = (*VISION_COLUMNS, "title", "description")


@dataclass(frozen=True)
class ShopData:
    """A shop's tables, and everything that is computed from them once a run.

    Args:
        dataset: Validated tables.
        labels: Class labels of the items.
        title_groups: Group of each item, int64 (N,); items of one title share it.
        teacher: Embeddings of another model.
        interactions: All events, or None without any.
        target_kinds: Event kinds to recommend for.
        cuts_us: Moments of the ranker's snapshots, earliest first; the split is the last entry.
        pairs: Rows of items that go together, int64 (P, 2), from events before the first cut.
    """

    dataset: Dataset
    labels: Labels
    title_groups: Ints
    teacher: Teacher
    interactions: Interactions | None
    target_kinds: tuple[str, ...]
    cuts_us: tuple[int, ...]
    pairs: Ints

    @property
    def past(self) -> Interactions | None:
        """Events before the first cut; the ranker learns from the later ones."""
        return None if self.interactions is None else self.interactions.before(self.cuts_us[0])

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
        """Hash of everything that is read from the tables."""
        chosen = json.dumps([self.dataset.fingerprint(), self.target_kinds, self.cuts_us])
        return hashlib.sha256(chosen.encode()).hexdigest()

    @property
    def has_pictures(self) -> bool:
        """Whether an item has a picture."""
        return self.dataset.items["image"].count() > 0

    @property
    def has_texts(self) -> bool:
        """Whether an item has a title or a description."""
        items = self.dataset.items
        return items["title"].count() + items["description"].count() > 0


def read_shop(dataset: Dataset, config: TrainConfig) -> ShopData:
    """Return what training reads of a shop's tables.

    Raises:
        InvalidArgumentError: If a wanted event kind does not occur.
        DataError: If the events begin after the first cut, or the teacher does not exist.
    """
    interactions = dataset_interactions(dataset)
    targets = choose_targets(interactions, config.data.target_kinds)
    cuts_us = choose_cuts(interactions, config.split)
    past = None if interactions is None else interactions.before(cuts_us[0])
    return ShopData(
        dataset=dataset,
        labels=item_labels(dataset.items),
        title_groups=title_groups(dataset.items),
        teacher=Teacher(config.fusion.teacher, dataset.items["item_id"].to_list()),
        interactions=interactions,
        target_kinds=targets,
        cuts_us=cuts_us,
        pairs=item_pairs(past, seed=config.seed),
    )


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
