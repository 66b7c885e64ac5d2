"""Where in a picture a tower saw a class: Grad-CAM, LIME and SHAP as a heat map."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vision.batches import ImageSource, open_picture
from vision.errors import InvalidArgumentError, MissingExtraError
from vision.networks.feature_maps import record_maps
from vision.tower import VisionTower
from vision.transforms import build_reader, normalise

Method = Literal["grad_cam", "lime", "shap"]

FOR, AGAINST = (230, 30, 30), (30, 90, 230)
CHANGED_AT_ONCE = 32


class Explanation(NamedTuple):
    """What a tower took a picture for, and which parts of it spoke for that."""

    class_name: str
    probability: float
    heat: NDArray[np.float32]  # (H, W); largest magnitude 1, negative where it speaks against
    picture: Image.Image  # square, as the tower saw it


class _Perturbation(NamedTuple):
    grid: int
    evaluations: int
    seed: int


def explain(
    tower: VisionTower,
    image: ImageSource,
    *,
    target: str | None = None,
    class_name: str | None = None,
    method: Method = "grad_cam",
    seed: int = 0,
    grid: int = 7,
    evaluations: int = 500,
) -> Explanation:
    """Return which parts of a picture speak for a class.

    ``grad_cam`` (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) weighs the channels of
    the last feature map by their mean gradient; one pass, no negative heat. ``lime`` (Ribeiro et
    al., 2016, https://arxiv.org/abs/1602.04938) fits a ridge regression to the probability of
    pictures with patches greyed out, ``shap`` (Lundberg and Lee, 2017,
    https://arxiv.org/abs/1705.07874) the Shapley values; both cut a plain grid instead of
    superpixels, and both need the extra ``explain``.

    Args:
        tower: Whose answer is explained.
        image: A picture, a file's bytes or a path.
        target: Whose classes; the last target if None.
        class_name: The class to explain; the most probable one if None.
        method: How.
        seed: Seed of which patches are greyed out; this and the rest are of ``lime`` and ``shap``.
        grid: Patches along each side of the picture.
        evaluations: Pictures with patches greyed out that the tower is asked about.

    Raises:
        InvalidArgumentError: If there is no such target, class or method, or the grid does not fit.
        ImageError: If the image cannot be read.
    """
    target = list(tower.classes)[-1] if target is None else _known("target", target, tower.classes)
    names = tower.classes[target]
    explainer = EXPLAINERS[_known("method", method, EXPLAINERS)]
    pixels = build_reader(tower.preprocess)(open_picture(image, tower.preprocess.size))
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    images = normalise(pixels[None].to(tower.device), tower.preprocess)
    was_training = tower.training
    tower.eval()
    try:
        probabilities = tower.logits(images)[target].softmax(dim=1)[0].detach()
        wanted = int(probabilities.argmax())
        if class_name is not None:
            wanted = names.index(_known("class_name", class_name, names))
        heat = explainer(tower, images, target, wanted, _Perturbation(grid, evaluations, seed))
    finally:
        tower.train(was_training)
    heat = heat / heat.abs().max().clamp(min=torch.finfo(heat.dtype).tiny)
    return Explanation(
        names[wanted], float(probabilities[wanted]), heat.float().cpu().numpy(), picture
    )


def overlay(explanation: Explanation, *, strength: float = 0.6) -> Image.Image:
    """Return the picture with red over what speaks for the class and blue over what is against.

    Args:
        explanation: What ``explain`` gave.
        strength: Opacity of the colour where the heat is largest, 0 to 1.
    """
    heat = explanation.heat[..., None]
    colour = np.where(heat > 0, np.array(FOR), np.array(AGAINST))
    opacity = strength * np.abs(heat)
    blended = (1.0 - opacity) * np.asarray(explanation.picture) + opacity * colour
    return Image.fromarray(blended.round().astype(np.uint8))


def _known(argument: str, name: str, names: Any) -> str:
    if name not in names:
        shown = list(names)[:20]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise InvalidArgumentError(
            f"{argument} must be one of {', '.join(shown)}{more}, got {name!r}"
        )
    return name


def _grad_cam(
    tower: VisionTower, images: Tensor, target: str, wanted: int, _: _Perturbation
) -> Tensor:
    # The gradient must reach the map, even if every layer before it is frozen.
    images = images.requires_grad_()
    width = next(tower.project.parameters()).shape[1]
    with torch.enable_grad(), record_maps(tower.backbone, width) as maps:
        logit = tower.logits(images)[target][0, wanted]
    for one in reversed(maps):
        (gradient,) = torch.autograd.grad(logit, one.values, retain_graph=True, allow_unused=True)
        # Of a network that reads its class token alone, the last tokens of the patches decide
        # nothing: the last map is the last one that the logit depends on.
        if gradient is not None and one.to_map(gradient).any():
            weights = one.to_map(gradient).mean(dim=(1, 2))
            heat = torch.einsum("c,chw->hw", weights, one.to_map(one.values.detach())).relu()
            side = tower.preprocess.size
            return F.interpolate(heat[None, None], (side, side), mode="bilinear")[0, 0]
    raise InvalidArgumentError(
        f"grad_cam needs a feature map, and backbone {tower.spec.name!r} at size "
        f"{tower.preprocess.size} has none of more than one cell that the class depends on; "
        'use method="lime" or "shap"'
    )


def _lime(
    tower: VisionTower, images: Tensor, target: str, wanted: int, perturbation: _Perturbation
) -> Tensor:
    attr = _captum()
    from captum._utils.models.linear_model import SkLearnRidge

    # Lime's own default, a lasso, drops every patch that moves the probability by less than 0.04.
    lime = attr.Lime(_probabilities(tower, target), interpretable_model=SkLearnRidge(alpha=1.0))
    return _over_patches(lime, images, wanted, perturbation)


def _shap(
    tower: VisionTower, images: Tensor, target: str, wanted: int, perturbation: _Perturbation
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
    attribution: Any, images: Tensor, wanted: int, perturbation: _Perturbation
) -> Tensor:
    """Return the attribution of every pixel's patch (H, W)."""
    side, grid = images.shape[-1], perturbation.grid
    if not 2 <= grid <= side:
        raise InvalidArgumentError(
            f"grid must be between 2 and {side} (the picture's pixels), got {grid}"
        )
    band = torch.arange(side, device=images.device) * grid // side
    patches = band[:, None] * grid + band  # (H, W)
    # captum draws from torch's global generator, which is handed back as it was found.
    with torch.random.fork_rng():
        torch.manual_seed(perturbation.seed)
        weights: Tensor = attribution.attribute(
            images,
            target=wanted,
            baselines=0.0,  # the mean colour, once normalised
            feature_mask=patches[None, None],
            n_samples=perturbation.evaluations,
            perturbations_per_eval=CHANGED_AT_ONCE,
            return_input_shape=False,
        )
    return weights[0][patches]


Explainer = Callable[[VisionTower, Tensor, str, int, _Perturbation], Tensor]
EXPLAINERS: dict[str, Explainer] = {"grad_cam": _grad_cam, "lime": _lime, "shap": _shap}
