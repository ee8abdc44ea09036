"""Independent components of heads: coordinates (heads, D) in; the posterior mean of noised heads out.

Glasses, a beard or a cap are there or not, each for itself. A Gaussian mixture would need one component for every
combination, and heads of every combination to learn them from. Independent component analysis finds the directions
along which heads are least Gaussian, and a mixture of few Gaussians along each of them is a distribution of all
combinations. Its optimal denoiser is known in closed form, since noise is independent along all directions too.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.closed_form import ClosedFormDistribution
from hyperdiffusion.diffusion.em import fit_gaussians

# Numbers of coordinates, the first ones, in whose span directions are sought.
SPANS = (8, 16, 32, 64)
# Heads that each of these coordinates needs: with fewer, the directions found are peculiar to these heads.
MIN_HEADS_PER_COORDINATE = 14
# Gaussians along each direction.
GAUSSIANS = 3
# Lower bound of a Gaussian's variance, so that none shrinks to a single head.
MIN_VARIANCE = 0.005
# Nats that the mixture along a direction must explain more of a head than one Gaussian does; less may be chance.
MIN_GAIN = 0.02
# Steps of FastICA. Directions along which heads are Gaussian never converge, and do not matter.
MAX_STEPS = 100


class IndependentComponents(ClosedFormDistribution):
    """A distribution that is a product of mixtures of K Gaussians along D orthonormal directions."""

    TENSORS = ("directions", "probabilities", "means", "variances")

    directions: torch.Tensor
    probabilities: torch.Tensor
    means: torch.Tensor
    variances: torch.Tensor
    within_variance: torch.Tensor

    def __init__(
        self,
        directions: Float[torch.Tensor, "D D"],
        probabilities: Float[torch.Tensor, "D K"],
        means: Float[torch.Tensor, "D K"],
        variances: Float[torch.Tensor, "D K"],
    ):
        """Make a distribution; `directions` are rows, and each has K Gaussians."""
        super().__init__(directions, probabilities, means, variances)

    def _derive(self) -> None:
        # (D,) mean variance inside the Gaussians along each coordinate.
        within = (self.probabilities * self.variances).sum(1)
        self.register_buffer("within_variance", within @ self.directions.square(), persistent=False)

    @classmethod
    def fit(
        cls, coordinates: Float[torch.Tensor, "heads D"], variance: Float[torch.Tensor, " D"], *, span: int
    ) -> "IndependentComponents":
        """Return the distribution of heads with directions in the span of the first coordinates.

        Where heads are Gaussian, all Gaussians are the same one. `variance` is that of unseen whitened heads.
        """
        size = len(variance)
        directions = torch.eye(size)
        directions[:span, :span] = _least_gaussian_directions(coordinates[:, :span])
        # The variance along each direction, as if all were Gaussian.
        along = directions.square() @ variance
        probabilities, means = torch.full((size, GAUSSIANS), 1 / GAUSSIANS), torch.zeros(size, GAUSSIANS)
        variances = along[:, None].repeat(1, GAUSSIANS)
        narrowed = (coordinates[:, :span] * variance[:span].sqrt()) @ directions[:span, :span].T
        for index, values in enumerate(narrowed.T):
            found, gain = _mixture_along(values)
            if gain > MIN_GAIN:
                probabilities[index], means[index], variances[index] = found
        return cls(directions, probabilities, means, variances)

    @classmethod
    def select(
        cls,
        coordinates: Float[torch.Tensor, "heads D"],
        *,
        variance: Float[torch.Tensor, " D"],
        loss: Callable[["IndependentComponents"], float],
    ) -> tuple["IndependentComponents | None", float]:
        """Return the distribution with the lowest validation loss, and that loss; None if there are too few heads.

        Args:
            coordinates: Whitened training heads.
            variance: Variance of unseen heads along each whitened coordinate.
            loss: Validation loss of a distribution.
        """
        best, best_loss = None, float("inf")
        for span in SPANS:
            if span > len(variance) or span * MIN_HEADS_PER_COORDINATE > len(coordinates):
                break
            candidate = cls.fit(coordinates, variance, span=span)
            if (candidate_loss := loss(candidate)) < best_loss:
                best, best_loss = candidate, candidate_loss
        return best, best_loss

    @property
    def components(self) -> int:
        """Number of directions along which there is more than one Gaussian."""
        return int((self.means != self.means[:, :1]).any(1).sum())

    def with_spread(self, factor: float) -> "IndependentComponents":
        """Return the distribution with all standard deviations multiplied by a factor."""
        return IndependentComponents(self.directions, self.probabilities, self.means, factor**2 * self.variances)

    def forward(
        self, noised: Float[torch.Tensor, "B D"], alpha_bar: Float[torch.Tensor, "B 1"]
    ) -> Float[torch.Tensor, "B D"]:
        """Return the mean of x_0 given x_t by Bayes' rule; `alpha_bar` belongs to each row's timestep."""
        # In full precision: log densities are large, and their differences matter.
        with torch.autocast(noised.device.type, enabled=False):
            alpha_bar = alpha_bar[:, :, None]
            # (B, D, K), along the directions.
            offset = (noised @ self.directions.T)[:, :, None] - alpha_bar.sqrt() * self.means
            total = alpha_bar * self.variances + 1 - alpha_bar
            log_density = self.probabilities.log() - (offset.square() / total + total.log()) / 2
            mean = self.means + alpha_bar.sqrt() * self.variances / total * offset
            return (log_density.softmax(-1) * mean).sum(-1) @ self.directions


def _least_gaussian_directions(coordinates: Float[torch.Tensor, "heads M"]) -> Float[torch.Tensor, "M M"]:
    """Orthonormal rows, by FastICA (Hyvärinen 1999)."""
    # Its import takes longer than a command that trains nothing.
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    values = coordinates.double() - coordinates.double().mean(0)
    # Nearly white already: whitening without a rotation keeps the directions' meaning.
    energy, axes = torch.linalg.eigh(torch.cov(values.T, correction=0))
    white = values @ (axes / energy.sqrt()) @ axes.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        analysis = FastICA(whiten=False, max_iter=MAX_STEPS, random_state=0).fit(white.numpy())
    return torch.from_numpy(analysis.components_).float()


def _mixture_along(values: Float[torch.Tensor, " heads"]) -> tuple[Float[torch.Tensor, "3 K"], float]:
    """Probabilities, means and variances of the Gaussians along a direction; nats a head gained over one Gaussian."""
    samples = values[:, None].double().numpy()
    quantiles = np.quantile(samples, (np.arange(GAUSSIANS) + 0.5) / GAUSSIANS)
    mixture = fit_gaussians(samples, GAUSSIANS, added_variance=MIN_VARIANCE, means=quantiles[:, None])
    gaussian = fit_gaussians(samples, 1, added_variance=MIN_VARIANCE)
    found = (mixture.weights_, mixture.means_[:, 0], mixture.covariances_[:, 0, 0])
    return torch.from_numpy(np.stack(found)).float(), mixture.score(samples) - gaussian.score(samples)
