import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.bundle.manifest import MANIFEST
from recsys.bundle.sealing import seal
from recsys.config import OffersConfig, TrainConfig
from recsys.errors import BundleError, MissingPartError
from recsys.pipeline import Run
from recsys.recommender import Recommender
from recsys.training.stages import Workspace


def copy_of(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / bundle.name))


def test_a_folder_of_bundles_opens_the_latest(tiny_bundle: Path) -> None:
    assert Bundle(tiny_bundle.parent / "latest").version == Bundle(tiny_bundle.parent).version


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_bundle_that_may_not_be_read_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    weights = copy_of(tiny_bundle, tmp_path) / "user_encoder.safetensors"
    weights.chmod(0)
    with pytest.raises(BundleError, match=f"{weights}: Permission denied; give access"):
        Bundle(weights.parent)


def test_a_bundle_holds_no_pickle(tiny_bundle: Path) -> None:
    kinds = {path.suffix for path in tiny_bundle.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".parquet", ".safetensors", ".npy", ".txt"}


def test_item_embeddings_are_mapped_and_read_only(tiny_bundle: Path) -> None:
    embeddings = Bundle(tiny_bundle).item_embeddings
    assert isinstance(embeddings, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        embeddings[0] = 0


def test_one_flipped_bit_of_the_weights_is_noticed(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_bundle, tmp_path)
    weights = folder / "user_encoder.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"user_encoder.safetensors was changed"):
        Bundle(folder)


def test_a_missing_folder_says_how_to_get_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="train one with `recsys train`"):
        Bundle(tmp_path / "nothing")


@pytest.mark.parametrize("part", ["user_ranker", "statistics"])
def test_a_ranker_of_other_features_asks_for_training(
    tiny_bundle: Path, tmp_path: Path, part: str
) -> None:
    def as_before(description: dict[str, Any]) -> None:
        description["features"] = ["popularity"]
        description["ranker"] = {"hidden": 8, "dropout": 0.0}
        for name in ("rankers", "choice", "tempo"):
            del description[name]

    bundle = Bundle(rewritten(tiny_bundle, tmp_path, as_before))
    with pytest.raises(BundleError, match=r"ranks by the features \['popularity'\].*train again"):
        getattr(bundle, part)
    assert bundle.fusion
    assert len(bundle.interactions)


def test_an_ablation_says_which_parts_it_lacks(tiny_run: Run) -> None:
    bundle = Bundle(tiny_run.ablations["text-only"])
    assert bundle.parts == {"ranking"}
    with pytest.raises(MissingPartError, match="no 'vision' part"):
        _ = bundle.vision


def test_a_workspace_is_not_a_bundle(tmp_path: Path) -> None:
    Workspace(tmp_path, announce=lambda name: None).run("a", {}, lambda folder: None)
    with pytest.raises(BundleError, match="found none"):
        Bundle(tmp_path)


def test_the_description_is_plain_json(tiny_bundle: Path) -> None:
    description = json.loads((tiny_bundle / "bundle.json").read_text())
    assert description["target_kinds"] == ["purchase", "cart"]
    assert set(description["modalities"]) == {"text", "image"}


def test_offers_are_sealed_and_an_older_bundle_has_the_defaults(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    assert Bundle(tiny_bundle).offers == OffersConfig().model_dump()
    fewer = rewritten(tiny_bundle, tmp_path, lambda one: one.update(offers={"new": 3}))
    assert Bundle(fewer).offers == {"new": 3}
    before = rewritten(tiny_bundle, tmp_path, lambda one: one.pop("offers"))
    assert Bundle(before).offers == {}
    assert Recommender.load(before).recommend("user-1")


def rewritten(bundle: Path, root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Return a copy of a bundle whose description is changed, sealed again."""

    def fill(folder: Path) -> None:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        description = json.loads((folder / "bundle.json").read_text())
        change(description)
        (folder / "bundle.json").write_text(json.dumps(description, indent=1))

    return seal(root, fill)


def test_a_bundle_that_holds_whole_configurations_loads(
    tiny_bundle: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    def as_before(description: dict[str, Any]) -> None:
        fusion = tiny_config.fusion.model_copy(update={"teacher": "/home/somebody/teacher.parquet"})
        description["fusion"] = fusion.model_dump(mode="json")
        description["users"] = tiny_config.users.model_dump(mode="json")
        del description["items_as_of_us"]

    old = Bundle(rewritten(tiny_bundle, tmp_path, as_before))
    new = Bundle(tiny_bundle)
    assert old.version != new.version
    assert old.items_as_of_us is None
    for one, other in (
        (old.fusion, new.fusion),
        (old.user_ranker.encoder, new.user_ranker.encoder),
    ):
        assert one.spec == other.spec
        state = other.state_dict()
        assert all(value.equal(state[name]) for name, value in one.state_dict().items())
