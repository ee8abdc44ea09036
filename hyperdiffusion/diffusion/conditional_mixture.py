"""Heads given their attributes: values (heads, n) and codes (heads, D) in; the posterior mean of noised codes out.

The mean of a code is linear in the features of its attributes. It is learned in closed form, which controls generated
heads even when few training heads are known; the transformer learns the rest. Where only some attributes are known, the
others follow from them and from the noised code: all of it is jointly Gaussian.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import nn

from hyperdiffusion.diffusion.attributes import Attributes, Categorical
from hyperdiffusion.diffusion.marginal import Marginal, restore_marginal
from hyperdiffusion.diffusion.mixture import GaussianMixture
from hyperdiffusion.diffusion.ridge import Ridge, ridge
from hyperdiffusion.diffusion.tied_mixture import TiedMixture
from overfit.runtime.tensor_file import with_prefix

# Smallest variance that remains along a direction that the attributes explain.
MIN_VARIANCE = 0.01
# Directions along which the attributes move the mean less than this, relative to the most, are rounding errors.
MIN_RELATIVE_SHIFT = 1e-4
# Variance of a known feature, so that it can be observed like the code; features have a variance of about 1.
KNOWN_VARIANCE = 1e-6


class ConditionalMixture(nn.Module):
    """p(x_0) as a mixture, and p(x_0 | c) as a Gaussian about a mean that is linear in the features of c."""

    coefficients: torch.Tensor
    feature_scale: torch.Tensor

    def __init__(
        self,
        attributes: Attributes,
        coefficients: Float[torch.Tensor, "F D"],
        *,
        feature_scale: Float[torch.Tensor, "F F"],
        marginal: Marginal,
        residual: GaussianMixture,
    ):
        """Make a mixture.

        Args:
            attributes: What c is about.
            coefficients: What each feature adds to the mean.
            feature_scale: Features of heads are this times standard normal variables.
            marginal: The distribution of heads of which nothing is known.
            residual: The distribution about the mean.
        """
        super().__init__()
        self.attributes = attributes
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("feature_scale", feature_scale)
        self.marginal, self.residual = marginal, residual

    @classmethod
    def fit(
        cls,
        attributes: Attributes,
        values: Float[torch.Tensor, "heads n"],
        codes: Float[torch.Tensor, "heads D"],
        *,
        marginal: Marginal,
        variance: Float[torch.Tensor, " D"],
    ) -> "ConditionalMixture":
        """Return the mixture of training heads; `variance` is that of unseen whitened heads."""
        known = ~values.isnan().all(1)
        features = attributes.features(values[known])
        fit = ridge(features, codes[known])
        return cls(
            attributes,
            fit.coefficients,
            feature_scale=_feature_scale(attributes, features, values[known]),
            marginal=marginal,
            residual=_residual(features, fit, variance),
        )

    @classmethod
    def restore(cls, attributes: Attributes, state: Mapping[str, torch.Tensor]) -> "ConditionalMixture":
        """Return the mixture with a `state_dict`. Raises KeyError if the state is another's."""
        marginal = restore_marginal(with_prefix(state, "marginal."))
        residual = GaussianMixture(*(state[f"residual.{name}"] for name in GaussianMixture.TENSORS))
        coefficients = state["coefficients"]
        # Earlier versions took missing features for zero.
        scale = state.get("feature_scale", coefficients.new_zeros(len(coefficients), len(coefficients)))
        return cls(attributes, coefficients, feature_scale=scale, marginal=marginal, residual=residual)

    def over(self, values: Float[torch.Tensor, "heads n"]) -> TiedMixture | None:
        """Return the distribution of heads whose levels are those of any of these heads; None if none has levels.

        Numbers are normally distributed about what the levels say: one Gaussian for each number that a head has would
        leave gaps between them.
        """
        categorical = torch.tensor([isinstance(column, Categorical) for column in self.attributes.columns])
        levels = values.masked_fill(~categorical, torch.nan)
        levels = levels[~levels.isnan().all(1)]
        if not len(levels):
            return None
        noise = levels.new_zeros(len(levels), self.coefficients.shape[1])
        means = self._features(noise, levels.new_zeros(len(levels), 1), levels) @ self.coefficients
        scale, coefficients = self.feature_scale.double(), self.coefficients.double()
        known = categorical.double().repeat_interleave(torch.tensor(self.attributes.sizes))
        precision = torch.eye(len(scale), dtype=torch.float64) + scale.T @ (known[:, None] / KNOWN_VARIANCE * scale)
        shift = scale.T @ coefficients
        axes, variances = self.residual.rotations[0].double(), self.residual.variances[0].double()
        covariance = (axes * variances) @ axes.T + shift.T @ torch.linalg.solve(precision, shift)
        variances, axes = torch.linalg.eigh(covariance)
        return TiedMixture(means, variances.clamp(min=0).float(), axes.float())

    def with_marginal(self, marginal: Marginal) -> "ConditionalMixture":
        """Return the mixture with another distribution of heads of which nothing is known."""
        return ConditionalMixture(
            self.attributes,
            self.coefficients,
            feature_scale=self.feature_scale,
            marginal=marginal,
            residual=self.residual,
        )

    def with_spread(self, factor: float) -> "ConditionalMixture":
        """Return the mixture with all standard deviations multiplied by a factor."""
        return ConditionalMixture(
            self.attributes,
            self.coefficients,
            feature_scale=self.feature_scale,
            marginal=self.marginal.with_spread(factor),
            residual=self.residual.with_spread(factor),
        )

    def forward(
        self,
        noised: Float[torch.Tensor, "B D"],
        alpha_bar: Float[torch.Tensor, "B 1"],
        values: Float[torch.Tensor, "B n"],
    ) -> Float[torch.Tensor, "B D"]:
        """Return the mean of x_0 given x_t and the known values, by Bayes' rule."""
        with torch.autocast(noised.device.type, enabled=False):
            mean = self._features(noised, alpha_bar, values) @ self.coefficients
            conditional = mean + self.residual(noised - alpha_bar.sqrt() * mean, alpha_bar)
            unknown = values.isnan().all(1, keepdim=True)
            return torch.where(unknown, self.marginal(noised, alpha_bar), conditional) if unknown.any() else conditional

    def _features(self, noised: torch.Tensor, alpha_bar: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Features (B, F) of heads; missing ones are their mean given the known ones and x_t.

        The mean of x_0 is linear in the features, so that it may be taken at theirs.
        """
        features = self.attributes.features(values)
        missing = values.isnan()
        if not missing.any():
            return features
        sizes = torch.tensor(self.attributes.sizes, device=values.device)
        known = (~missing).double().repeat_interleave(sizes, dim=1)
        scale, alpha_bar = self.feature_scale.double(), alpha_bar.double()
        # With u standard normal, features are `scale` times u; along the residual's axes, x_t is sqrt(alpha_bar) times
        # `shifts` times u with noise of variance `total`.
        shifts = (scale.T @ self.coefficients.double()) @ self.residual.rotations[0].double()
        total = alpha_bar * self.residual.variances[0].double() + 1 - alpha_bar
        precision = torch.eye(len(scale), dtype=torch.float64, device=values.device)
        precision = precision + torch.einsum("fu,bf,fv->buv", scale, known / KNOWN_VARIANCE, scale)
        precision = precision + alpha_bar[:, :, None] * torch.einsum("ud,bd,vd->buv", shifts, 1 / total, shifts)
        rotated = noised.double() @ self.residual.rotations[0].double()
        observed = (known / KNOWN_VARIANCE * features.double()) @ scale
        observed = observed + alpha_bar.sqrt() * (rotated / total) @ shifts.T
        found = (torch.linalg.solve(precision, observed) @ scale.T).to(features.dtype)
        return torch.where(known.bool(), features, found)

    def within_variance(self, values: Float[torch.Tensor, "B n"]) -> Float[torch.Tensor, "B D"]:
        """Return the variance inside the components along each coordinate."""
        unknown = values.isnan().all(1, keepdim=True)
        return torch.where(unknown, self.marginal.within_variance, self.residual.within_variance)


def _feature_scale(
    attributes: Attributes, features: Float[torch.Tensor, "heads F"], values: Float[torch.Tensor, "heads n"]
) -> Float[torch.Tensor, "F F"]:
    """The symmetric root of the features' covariance, each entry from the heads of which both attributes are known."""
    known = (~values.isnan()).double().repeat_interleave(torch.tensor(attributes.sizes), dim=1)
    features = features.double()
    covariance = features.T @ features / (known.T @ known).clamp(min=1)
    # Of different heads for each entry, it may have negative eigenvalues.
    variances, axes = torch.linalg.eigh(covariance)
    return ((axes * variances.clamp(min=0).sqrt()) @ axes.T).float()


def _residual(
    features: Float[torch.Tensor, "heads F"], fit: Ridge, variance: Float[torch.Tensor, " D"]
) -> GaussianMixture:
    """The Gaussian of whitened codes about their mean.

    The attributes lower the variance in the span of their shifts only. There it is that of left-out heads; elsewhere it
    is 1, which needs no estimate.
    """
    _, shift, directions = torch.linalg.svd((features @ fit.coefficients).double(), full_matrices=False)
    directions = directions[shift > MIN_RELATIVE_SHIFT * shift.max().clamp(min=MIN_RELATIVE_SHIFT)]
    left = (fit.residuals.double() @ directions.T).square().mean(0).clamp(MIN_VARIANCE, 1.0)
    covariance = torch.eye(len(variance), dtype=torch.float64) + directions.T @ ((left - 1)[:, None] * directions)
    std = variance.double().sqrt()
    variances, rotation = torch.linalg.eigh(std[:, None] * covariance * std)
    mean = torch.zeros(1, len(variance))
    return GaussianMixture(torch.ones(1), mean, variances.clamp(min=0).float()[None], rotation.float()[None])
