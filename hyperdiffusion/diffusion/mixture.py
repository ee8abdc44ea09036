"""A Gaussian mixture of heads: coordinates (heads, D) in; the posterior mean of noised heads out.

A folder of scans often holds several populations, such as two scanners, open and closed mouths, or adults and
children, with no heads in between. One Gaussian fills that gap and a mixture does not; its optimal denoiser is known
in closed form. The transformer corrects its prediction.

Other populations differ in few directions, but there their shape is no ellipsoid: hair of several lengths, or a ring of
poses. A mixture in the first coordinates alone describes it with few numbers, also from few heads.
"""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans, vq

from hyperdiffusion.diffusion.closed_form import ClosedFormDistribution
from hyperdiffusion.diffusion.em import fit_gaussians

# Numbers of components to try besides one.
COMPONENT_COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
# Runs of k-means, of which the one with the least distortion counts.
KMEANS_RUNS = 8
# Shrinkage of a component's off-diagonal covariance: most components have fewer heads than there are coordinates.
SHRINKAGE = 0.5
# Heads that each component needs, relative to the number of coordinates ...
MIN_HEADS_PER_COORDINATE = 0.25
# ... and in any case.
MIN_HEADS = 2
# More components must reduce the validation loss by this fraction; less may be chance.
MIN_IMPROVEMENT = 0.05
# Mixtures whose components differ in the first coordinates only: numbers of these coordinates, and of components.
LEADING_SPANS, LEADING_COUNTS = (2, 4, 8, 16), (2, 4, 8, 16, 32)
# Heads that such a component needs for each of these coordinates.
MIN_HEADS_PER_LEADING_COORDINATE = 4
# Added to the variances of such components, so that none shrinks to a single head.
LEADING_VARIANCE = 0.01


class GaussianMixture(ClosedFormDistribution):
    """A mixture of K Gaussians, each with its own principal axes. With K = 1 it is the Gaussian of whitened heads."""

    TENSORS = ("probabilities", "means", "variances", "rotations")

    probabilities: torch.Tensor
    means: torch.Tensor
    variances: torch.Tensor
    rotations: torch.Tensor
    rotated_means: torch.Tensor
    within_variance: torch.Tensor

    def __init__(
        self,
        probabilities: Float[torch.Tensor, " K"],
        means: Float[torch.Tensor, "K D"],
        variances: Float[torch.Tensor, "K D"],
        rotations: Float[torch.Tensor, "K D D"],
    ):
        """Make a mixture; `variances` are along the columns of `rotations`."""
        super().__init__(probabilities, means, variances, rotations)

    def _derive(self) -> None:
        rotated_means = torch.einsum("kd,kde->ke", self.means, self.rotations)
        # (D,) mean variance inside the components along each coordinate.
        within = torch.einsum("k,kde,ke->d", self.probabilities, self.rotations.square(), self.variances)
        self.register_buffer("rotated_means", rotated_means, persistent=False)
        self.register_buffer("within_variance", within, persistent=False)

    @classmethod
    def single(cls, variance: Float[torch.Tensor, " D"]) -> "GaussianMixture":
        """Return one Gaussian of zero mean with the given variances along the coordinates."""
        mean = torch.zeros_like(variance)
        return cls(variance.new_ones(1), mean[None], variance[None], torch.diag_embed(mean + 1)[None])

    @classmethod
    def from_clusters(
        cls,
        coordinates: Float[torch.Tensor, "heads D"],
        cluster: Int[torch.Tensor, " heads"],
        variance: Float[torch.Tensor, " D"],
    ) -> "GaussianMixture":
        """Return the mixture with one component a cluster; `variance` is that of unseen whitened heads."""
        narrowed = coordinates.double() * variance.sqrt()
        clusters = [narrowed[cluster == index] for index in cluster.unique()]
        probabilities = torch.tensor([len(heads) / len(coordinates) for heads in clusters])
        means = torch.stack([heads.mean(0) for heads in clusters])
        covariance = torch.stack([torch.cov(heads.T, correction=0) for heads in clusters])
        diagonal = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
        variances, rotations = torch.linalg.eigh(torch.lerp(covariance, diagonal, SHRINKAGE))
        return cls(probabilities, means.float(), variances.clamp(min=0).float(), rotations.float())

    @classmethod
    def in_leading(
        cls, coordinates: Float[torch.Tensor, "heads D"], variance: Float[torch.Tensor, " D"], *, span: int, count: int
    ) -> "GaussianMixture":
        """Return a mixture whose components differ in the first `span` coordinates only, by maximum likelihood (EM)."""
        leading = (coordinates * variance.sqrt())[:, :span].double().numpy()
        fitted = fit_gaussians(leading, count, added_variance=LEADING_VARIANCE)
        own_variances, own_rotations = torch.linalg.eigh(torch.from_numpy(fitted.covariances_))
        means, variances = torch.zeros(count, len(variance)), variance.repeat(count, 1)
        rotations = torch.eye(len(variance)).repeat(count, 1, 1)
        means[:, :span], variances[:, :span] = torch.from_numpy(fitted.means_).float(), own_variances.float()
        rotations[:, :span, :span] = own_rotations.float()
        return cls(torch.from_numpy(fitted.weights_).float(), means, variances, rotations)

    @classmethod
    def select(
        cls,
        coordinates: Float[torch.Tensor, "heads D"],
        *,
        std: Float[torch.Tensor, " D"],
        variance: Float[torch.Tensor, " D"],
        max_components: int,
        margin: float,
        loss: Callable[["GaussianMixture"], float],
    ) -> tuple["GaussianMixture", float]:
        """Return the mixture that larger ones do not clearly improve on, and its loss.

        Args:
            coordinates: Whitened training heads. For components that differ in all coordinates they are clustered by
                k-means in unwhitened coordinates.
            std: Standard deviation of the weights along each coordinate.
            variance: Variance of unseen heads along each whitened coordinate.
            max_components: Upper bound on K.
            margin: Fraction by which components in the first coordinates must reduce the validation loss.
            loss: Validation loss of a mixture.
        """
        best = cls.single(variance)
        best_loss = loss(best)
        unwhitened = (coordinates * std).numpy()
        for count in COMPONENT_COUNTS:
            if count > max_components:
                break
            cluster = torch.from_numpy(vq(unwhitened, kmeans(unwhitened, count, KMEANS_RUNS, rng=0)[0])[0])
            smallest = cluster.bincount(minlength=count).min()
            if smallest < max(MIN_HEADS, MIN_HEADS_PER_COORDINATE * len(std)):
                break
            candidate = cls.from_clusters(coordinates, cluster, variance)
            if (candidate_loss := loss(candidate)) < (1 - MIN_IMPROVEMENT) * best_loss:
                best, best_loss = candidate, candidate_loss
        for span, count in itertools.product(LEADING_SPANS, LEADING_COUNTS):
            if (
                span <= len(std)
                and count <= max_components
                and count * span * MIN_HEADS_PER_LEADING_COORDINATE <= len(coordinates)
            ):
                candidate = cls.in_leading(coordinates, variance, span=span, count=count)
                if (candidate_loss := loss(candidate)) < (1 - margin) * best_loss:
                    best, best_loss = candidate, candidate_loss
        return best, best_loss

    @property
    def components(self) -> int:
        """K, the number of Gaussians."""
        return len(self.probabilities)

    def with_spread(self, factor: float) -> "GaussianMixture":
        """Return the mixture with all standard deviations multiplied by a factor."""
        return GaussianMixture(self.probabilities, self.means, factor**2 * self.variances, self.rotations)

    def forward(
        self, noised: Float[torch.Tensor, "B D"], alpha_bar: Float[torch.Tensor, "B 1"]
    ) -> Float[torch.Tensor, "B D"]:
        """Return the mean of x_0 given x_t by Bayes' rule; `alpha_bar` belongs to each row's timestep."""
        # In full precision: log densities are large, and their differences matter.
        with torch.autocast(noised.device.type, enabled=False):
            alpha_bar = alpha_bar[:, :, None]
            # (B, K, D), along each component's axes.
            offset = torch.einsum("bd,kde->bke", noised, self.rotations) - alpha_bar.sqrt() * self.rotated_means
            total = alpha_bar * self.variances + 1 - alpha_bar
            log_density = self.probabilities.log() - (offset.square() / total + total.log()).sum(-1) / 2
            mean = self.rotated_means + alpha_bar.sqrt() * self.variances / total * offset
            return torch.einsum("bk,bke,kde->bd", log_density.softmax(-1), mean, self.rotations)
