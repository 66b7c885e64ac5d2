"""The long-term taste of a user, as a regression on the items taken."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Time scales of the fading of past events, from one hour to three years.
DECAYS_DAYS = (1 / 24, 1.0, 7.0, 30.0, 90.0, 365.0, 1095.0)
START_DECAY_DAYS = 365.0
START_TRUST = 0.3  # weight of a new event against the prior
MAX_AXES = 128  # principal directions that are used; the others are mostly noise
_FLOOR = 0.1  # added to the variance of a direction, relative to the mean variance


class TasteRegression(nn.Module):
    """Posterior mean of a Bayesian linear regression of "taken" on item embeddings, per user.

    This folds a user into implicit matrix factorisation (Hu et al., 2008,
    https://doi.org/10.1109/ICDM.2008.22), with three differences. The item factors are content
    embeddings, so that new items work at once. The prior variance of each principal direction of
    the catalogue is learned (automatic relevance determination, MacKay, 1994), so that properties
    that nobody chooses by are ignored. The weight of an event fades with age and depends on its
    kind, and both are learned. Compared with a weighted mean of the items, a repeated event adds
    less, and what all items share adds nothing.

    About a hundred numbers are learned. A full matrix would overfit the few hundred items of a
    small shop, and then rank new items worse than without training.

    Args:
        dim: Size D of item embeddings.
        n_kinds: Number of event kinds.
    """

    decays_days: Tensor
    mean: Tensor
    axes: Tensor

    def __init__(self, dim: int, n_kinds: int) -> None:
        super().__init__()
        self.register_buffer("decays_days", torch.tensor(DECAYS_DAYS), persistent=False)
        self.register_buffer("mean", torch.zeros(dim))
        n_axes = min(dim, MAX_AXES)
        self.register_buffer("axes", torch.eye(dim)[:, :n_axes].contiguous())
        self.log_relevance = nn.Parameter(torch.zeros(n_axes))
        start = [0.0 if days == START_DECAY_DAYS else -3.0 for days in DECAYS_DAYS]
        # The last entry never fades: it keeps the weights of a very old history above zero.
        self.log_mixture = nn.Parameter(torch.tensor([*start, -1.0]))
        self.log_trust = nn.Embedding(n_kinds, 1)
        nn.init.constant_(self.log_trust.weight, torch.tensor(START_TRUST).log().item())

    def fit_scale(self, embeddings: Tensor) -> None:
        """Set the centre and the principal axes to those of the catalogue's embeddings (N, D).

        The relevance starts as whitening. Items whose embedding is zero are left out.
        """
        known = embeddings[embeddings.any(dim=1)]
        self.mean.copy_(known.mean(dim=0))
        centred = (known - self.mean).double()
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(known))
        kept = slice(-len(self.log_relevance), None)  # eigenvalues come smallest first
        variances, axes = variances[kept].clamp(min=0), axes[:, kept]
        variances = variances + _FLOOR * variances.mean().clamp(min=1e-12)
        self.axes.copy_(axes)
        # A typical item then has length 1, so that an event of weight 1 is as strong as the prior.
        self.log_relevance.data.copy_(-0.5 * (variances * len(variances)).log())

    def forward(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Return taste vectors (B, D), which score items by dot product; zeros without events.

        Args:
            items: Item embeddings (B, L, D).
            ages_days: Age of each event now (B, L), at least 0.
            kinds: Kind codes, int64 (B, L).
            mask: True where there is an event, bool (B, L).
        """
        inputs, solution, relevance = self._solve(items, ages_days, kinds, mask)
        with torch.autocast(items.device.type, enabled=False):
            posterior: Tensor = ((solution * inputs).sum(dim=1) * relevance) @ self.axes.T
        return posterior

    def parts(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Return what each event adds to the taste vector (B, L, D); arguments as ``forward``."""
        inputs, solution, relevance = self._solve(items, ages_days, kinds, mask)
        parts: Tensor = (solution * inputs * relevance) @ self.axes.T
        return parts

    def _solve(
        self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weighted events (B, L, axes), their coefficients (B, L, 1) and the relevance.

        The relevance of the axes has shape (axes,).
        """
        weights = self._weights(items, ages_days, kinds, mask)  # (B, L)
        relevance = self.log_relevance.exp()
        # The solution depends on small differences, which bfloat16 would lose.
        with torch.autocast(items.device.type, enabled=False):
            root = _at_least_single(weights).sqrt()[..., None]  # (B, L, 1)
            # Scaled after the product, which then has no gradient to compute.
            inputs = root * ((_at_least_single(items) - self.mean) @ self.axes) * relevance
            # Solved for events instead of dimensions, as histories are mostly shorter than D.
            gram = inputs @ inputs.transpose(1, 2)  # (B, L, L)
            gram = gram + torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
            solution = torch.cholesky_solve(root, torch.linalg.cholesky(gram))
        return inputs, solution, relevance

    def _weights(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        fading = torch.exp(-ages_days[..., None] / self.decays_days)  # (B, L, decays)
        fading = F.pad(fading, (0, 1), value=1.0)
        weights = (fading * self.log_mixture.softmax(dim=0)).sum(dim=-1)  # (B, L)
        weights = weights * self.log_trust(kinds).squeeze(-1).exp()
        counted: Tensor = weights.masked_fill(~mask | ~items.any(dim=-1), 0.0)
        return counted


def _at_least_single(values: Tensor) -> Tensor:
    """Return values in single precision, those in double precision as they are."""
    return values if values.dtype == torch.float64 else values.float()
