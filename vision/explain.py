"""Heat maps of what a tower's prediction rests on in a picture: Grad-CAM, LIME and SHAP."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vision.arrays import Floats
from vision.batches import ImageSource, open_picture
from vision.errors import InvalidArgumentError, MissingExtraError
from vision.networks.feature_maps import record_maps
from vision.tower import VisionTower
from vision.transforms import build_reader, normalise

Method = Literal["grad_cam", "lime", "shap"]

# Colours of the parts that support a class and of those that oppose it.
SUPPORTING, OPPOSING = (230, 30, 30), (30, 90, 230)
PERTURBED_AT_ONCE = 32


class Explanation(NamedTuple):
    """A class, its probability, and how much each part of the picture supports it."""

    class_name: str
    probability: float
    heat: Floats  # (H, W), largest magnitude 1, negative where the class is less likely for it
    picture: Image.Image  # square, as the tower reads it


@dataclass(frozen=True)
class Perturbation:
    """How ``lime`` and ``shap`` grey out patches of a picture.

    Attributes:
        grid: Number of patches along each side of the picture.
        evaluations: Number of pictures with patches greyed out that the tower predicts.
        seed: Random seed of the choice of patches.
    """

    grid: int = 7
    evaluations: int = 500
    seed: int = 0


DEFAULT_PERTURBATION = Perturbation()


def explain(
    tower: VisionTower,
    image: ImageSource,
    *,
    target: str | None = None,
    class_name: str | None = None,
    method: Method = "grad_cam",
    perturbation: Perturbation = DEFAULT_PERTURBATION,
) -> Explanation:
    """Return which parts of a picture support a class, as a heat map.

    ``grad_cam`` (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) weights the channels of
    the last feature map by their mean gradient. It needs one pass and gives no negative heat.
    ``lime`` (Ribeiro et al., 2016, https://arxiv.org/abs/1602.04938) fits a ridge regression to the
    probabilities of pictures with some patches greyed out. ``shap`` (Lundberg and Lee, 2017,
    https://arxiv.org/abs/1705.07874) estimates Shapley values from such pictures. Both use the
    patches of a regular grid instead of superpixels, and need the extra ``explain``.

    Args:
        tower: Tower whose prediction is explained.
        image: PIL image, file content or path.
        target: Target that the class belongs to. None is the last target.
        class_name: Class to explain. None is the most probable class.
        method: Name of the method.
        perturbation: Patches and number of evaluations for ``lime`` and ``shap``.

    Raises:
        InvalidArgumentError: If the target, class or method is unknown, or the grid does not fit.
        MissingExtraError: If ``lime`` or ``shap`` is asked for and captum is not installed.
        ImageError: If the image cannot be read.
    """
    if target is None:
        target = list(tower.classes)[-1]
    names = tower.classes[_check_known("target", target, tower.classes)]
    explainer = EXPLAINERS[_check_known("method", method, EXPLAINERS)]
    pixels = build_reader(tower.preprocess)(open_picture(image, tower.preprocess.size))
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    images = normalise(pixels[None].to(tower.device), tower.preprocess)
    was_training = tower.training
    tower.eval()
    try:
        probabilities = tower.logits(images)[target].softmax(dim=1)[0].detach()
        wanted = int(probabilities.argmax())
        if class_name is not None:
            wanted = names.index(_check_known("class_name", class_name, names))
        heat = explainer(tower, images, target, wanted, perturbation)
    finally:
        tower.train(was_training)
    heat = heat / heat.abs().max().clamp(min=torch.finfo(heat.dtype).tiny)
    return Explanation(
        names[wanted], float(probabilities[wanted]), heat.float().cpu().numpy(), picture
    )


def overlay(explanation: Explanation, *, strength: float = 0.6) -> Image.Image:
    """Return the picture with supporting parts in red and opposing parts in blue.

    Args:
        explanation: Result of ``explain``.
        strength: Opacity of the colour where the heat is largest, 0 to 1.
    """
    heat = explanation.heat[..., None]
    colour = np.where(heat > 0, np.array(SUPPORTING), np.array(OPPOSING))
    opacity = strength * np.abs(heat)
    blended = (1.0 - opacity) * np.asarray(explanation.picture) + opacity * colour
    return Image.fromarray(blended.round().astype(np.uint8))


def _check_known(argument: str, name: str, names: Collection[str]) -> str:
    """Return the name if it is one of the names, and raise an error that lists them if not."""
    if name not in names:
        shown = list(names)[:20]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise InvalidArgumentError(
            f"{argument} must be one of {', '.join(shown)}{more}, got {name!r}"
        )
    return name


def _grad_cam(
    tower: VisionTower, images: Tensor, target: str, wanted: int, _: Perturbation
) -> Tensor:
    # The gradient must reach the map even if every layer before it is frozen.
    images = images.requires_grad_()
    width = next(tower.project.parameters()).shape[1]
    with torch.enable_grad(), record_maps(tower.backbone, width) as maps:
        logit = tower.logits(images)[target][0, wanted]
    for feature_map in reversed(maps):
        (gradient,) = torch.autograd.grad(
            logit, feature_map.values, retain_graph=True, allow_unused=True
        )
        # A network that reads only its class token ignores the last tokens of the patches, so this
        # searches for the last map on which the logit depends.
        if gradient is not None and feature_map.to_map(gradient).any():
            weights = feature_map.to_map(gradient).mean(dim=(1, 2))
            values = feature_map.to_map(feature_map.values.detach())
            heat = torch.einsum("c,chw->hw", weights, values).relu()
            side = tower.preprocess.size
            return F.interpolate(heat[None, None], (side, side), mode="bilinear")[0, 0]
    raise InvalidArgumentError(
        f"grad_cam needs a feature map, and backbone {tower.spec.name!r} at size "
        f"{tower.preprocess.size} has no map of more than one cell that the class depends on; "
        'use method="lime" or "shap"'
    )


def _lime(
    tower: VisionTower, images: Tensor, target: str, wanted: int, perturbation: Perturbation
) -> Tensor:
    attr = _captum()
    from captum._utils.models.linear_model import SkLearnRidge

    # Captum's default, a lasso, drops every patch that changes the probability by less than 0.04.
    lime = attr.Lime(_probabilities(tower, target), interpretable_model=SkLearnRidge(alpha=1.0))
    return _over_patches(lime, images, wanted, perturbation)


def _shap(
    tower: VisionTower, images: Tensor, target: str, wanted: int, perturbation: Perturbation
) -> Tensor:
    shap = _captum().KernelShap(_probabilities(tower, target))
    return _over_patches(shap, images, wanted, perturbation)


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise MissingExtraError(
            "LIME and SHAP need captum: pip install 'vitrine-recsys[explain]'"
        ) from error
    return attr


def _probabilities(tower: VisionTower, target: str) -> Callable[[Tensor], Tensor]:
    return lambda images: tower.logits(images)[target].softmax(dim=1)


def _over_patches(
    attribution: Any, images: Tensor, wanted: int, perturbation: Perturbation
) -> Tensor:
    """Return the heat map (H, W), in which every pixel has the attribution of its patch."""
    side, grid = images.shape[-1], perturbation.grid
    if not 2 <= grid <= side:
        raise InvalidArgumentError(
            f"grid must be between 2 and {side} (the picture's pixels), got {grid}"
        )
    band = torch.arange(side, device=images.device) * grid // side
    patches = band[:, None] * grid + band  # (H, W)
    # captum draws from torch's global generator, whose state is restored afterwards.
    with torch.random.fork_rng():
        torch.manual_seed(perturbation.seed)
        weights: Tensor = attribution.attribute(
            images,
            target=wanted,
            baselines=0.0,  # the mean colour, once normalised
            feature_mask=patches[None, None],
            n_samples=perturbation.evaluations,
            perturbations_per_eval=PERTURBED_AT_ONCE,
            return_input_shape=False,
        )
    return weights[0][patches]


Explainer = Callable[[VisionTower, Tensor, str, int, Perturbation], Tensor]
EXPLAINERS: dict[str, Explainer] = {"grad_cam": _grad_cam, "lime": _lime, "shap": _shap}
