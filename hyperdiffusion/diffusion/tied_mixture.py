"""A Gaussian mixture of tied covariance: means (K, D) and one covariance in; the posterior mean of noised heads out.

With one Gaussian for each combination of levels among the training heads, it is the distribution of heads of which no
attribute is known.
"""

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.closed_form import ClosedFormDistribution


class TiedMixture(ClosedFormDistribution):
    """A mixture of K Gaussians that differ in their means only."""

    TENSORS = ("probabilities", "means", "axis_variances", "axes")

    probabilities: torch.Tensor
    means: torch.Tensor
    axis_variances: torch.Tensor
    axes: torch.Tensor
    rotated_means: torch.Tensor
    within_variance: torch.Tensor

    def __init__(
        self,
        probabilities: Float[torch.Tensor, " K"],
        means: Float[torch.Tensor, "K D"],
        axis_variances: Float[torch.Tensor, " D"],
        axes: Float[torch.Tensor, "D D"],
    ):
        """Make a mixture; variances are along the columns of `axes`, which are orthonormal."""
        super().__init__(probabilities, means, axis_variances, axes)

    def _derive(self) -> None:
        self.register_buffer("rotated_means", self.means @ self.axes, persistent=False)
        # (D,) variance inside the Gaussians along each coordinate.
        self.register_buffer("within_variance", self.axes.square() @ self.axis_variances, persistent=False)

    @property
    def components(self) -> int:
        """K, the number of Gaussians."""
        return len(self.means)

    def with_spread(self, factor: float) -> "TiedMixture":
        """Return the mixture with all standard deviations multiplied by a factor."""
        return TiedMixture(self.probabilities, self.means, factor**2 * self.axis_variances, self.axes)

    def forward(
        self, noised: Float[torch.Tensor, "B D"], alpha_bar: Float[torch.Tensor, "B 1"]
    ) -> Float[torch.Tensor, "B D"]:
        """Return the mean of x_0 given x_t by Bayes' rule; `alpha_bar` belongs to each row's timestep."""
        # In full precision: log densities are large, and their differences matter.
        with torch.autocast(noised.device.type, enabled=False):
            rotated = noised @ self.axes
            total = alpha_bar * self.axis_variances + 1 - alpha_bar
            # (B, K) without a table of (B, K, D); what all Gaussians have in common is left out.
            log_density = alpha_bar.sqrt() * (rotated / total) @ self.rotated_means.T
            log_density = log_density - alpha_bar / 2 * ((1 / total) @ self.rotated_means.square().T)
            centre = (self.probabilities.log() + log_density).softmax(1) @ self.rotated_means
            gain = alpha_bar.sqrt() * self.axis_variances / total
            return (centre + gain * (rotated - alpha_bar.sqrt() * centre)) @ self.axes.T
