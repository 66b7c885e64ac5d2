"""Named presets of training augmentation; importing them is fast, for reading configurations."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vision.errors import InvalidArgumentError

Probability = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=0, lt=1)]
Range = tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]]


class Augmentation(BaseModel):
    """Ranges of the random changes to training pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_area: Range = Field(default=(1.0, 1.0), description="Share of the area that is kept.")
    crop_aspect: float = Field(
        default=1.0, ge=1, description="Crops are up to this much wider or taller than square."
    )
    flip: Probability = Field(default=0.0, description="How often left and right are swapped.")
    rotation_deg: float = Field(default=0.0, ge=0, description="Largest rotation either way.")
    brightness: Spread = Field(default=0.0, description="Largest relative change of brightness.")
    contrast: Spread = Field(default=0.0, description="Largest relative change of contrast.")
    saturation: Spread = Field(default=0.0, description="Largest relative change of saturation.")
    hue_deg: float = Field(default=0.0, ge=0, le=180, description="Largest rotation of hue.")
    grey: Probability = Field(default=0.0, description="How often all colour is dropped.")
    erase: Probability = Field(default=0.0, description="How often one rectangle is blanked.")
    erase_area: Range = Field(default=(0.02, 0.2), description="Share of the area blanked.")


PRESETS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(crop_area=(0.6, 1.0), crop_aspect=1.2, flip=0.5),
    "photo": Augmentation(
        crop_area=(0.3, 1.0),
        crop_aspect=4 / 3,
        flip=0.5,
        rotation_deg=15.0,
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        hue_deg=8.0,
    ),
    "strong": Augmentation(
        crop_area=(0.15, 1.0),
        crop_aspect=4 / 3,
        flip=0.5,
        rotation_deg=25.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue_deg=15.0,
        grey=0.05,
        erase=0.3,
    ),
    # Two views of one picture for self-supervised learning. Some are grey, because two crops share
    # their colours, which would otherwise be enough to match them.
    "views": Augmentation(
        crop_area=(0.2, 1.0),
        crop_aspect=4 / 3,
        flip=0.5,
        rotation_deg=10.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.3,
        hue_deg=18.0,
        grey=0.15,
    ),
}


def get_augmentation(preset: str) -> Augmentation:
    """Return the augmentation of this name.

    Raises:
        InvalidArgumentError: If ``preset`` is not the name of a preset.
    """
    if preset not in PRESETS:
        raise InvalidArgumentError(
            f"augmentation must be one of {', '.join(PRESETS)}, got {preset!r}"
        )
    return PRESETS[preset]


def _known(preset: str) -> str:
    get_augmentation(preset)
    return preset


Preset = Annotated[str, AfterValidator(_known)]  # the type of a configuration's field
