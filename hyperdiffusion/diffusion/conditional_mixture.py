"""Heads given their attributes: values (heads, n) and codes (heads, D) in; the posterior mean of noised codes out.

The mean of a code is linear in the features of its attributes. It is learned in closed form, which controls generated
heads even when few training heads are known; the transformer learns the rest. Where only some attributes are known, the
others follow from them and from the noised code: all of it is jointly Gaussian.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import nn

from hyperdiffusion.diffusion.attributes import Attributes, Categorical
from hyperdiffusion.diffusion.feature_prior import FeaturePrior
from hyperdiffusion.diffusion.marginal import Marginal, restore_marginal
from hyperdiffusion.diffusion.mixture import GaussianMixture
from hyperdiffusion.diffusion.ridge import Ridge, ridge
from hyperdiffusion.diffusion.tied_mixture import TiedMixture
from overfit.runtime.tensor_file import with_prefix

# Smallest variance that remains along a direction that the attributes explain.
MIN_VARIANCE = 0.01
# Directions along which the attributes move the mean less than this, relative to the most, are rounding errors.
MIN_RELATIVE_SHIFT = 1e-4


class ConditionalMixture(nn.Module):
    """p(x_0) as a mixture, and p(x_0 | c) as a Gaussian about a mean that is linear in the features of c."""

    coefficients: torch.Tensor

    def __init__(
        self,
        attributes: Attributes,
        coefficients: Float[torch.Tensor, "F D"],
        *,
        prior: FeaturePrior,
        marginal: Marginal,
        residual: GaussianMixture,
    ):
        """Make a mixture.

        Args:
            attributes: What c is about.
            coefficients: What each feature adds to the mean.
            prior: The distribution of features.
            marginal: The distribution of heads of which nothing is known.
            residual: The distribution about the mean, a single Gaussian.
        """
        super().__init__()
        self.attributes = attributes
        self.register_buffer("coefficients", coefficients)
        self.prior, self.marginal, self.residual = prior, marginal, residual

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
        """Return the mixture of training heads; `variance` is that of unseen whitened heads.

        A missing feature counts as its mean given the known ones. What it leaves open is part of the residual, which is
        a little too wide for heads of which all is known.
        """
        some = ~values.isnan().all(1)
        features, known = attributes.features(values[some]), attributes.per_feature(~values[some].isnan())
        prior = FeaturePrior.fit(features, known)
        features = prior.complete(features, known)
        fit = ridge(features, codes[some])
        residual = _residual(features, fit, variance)
        return cls(attributes, fit.coefficients, prior=prior, marginal=marginal, residual=residual)

    @classmethod
    def restore(cls, attributes: Attributes, state: Mapping[str, torch.Tensor]) -> "ConditionalMixture":
        """Return the mixture with a `state_dict`. Raises KeyError if the state is another's."""
        return cls(
            attributes,
            state["coefficients"],
            prior=FeaturePrior(state["prior.scale"]),
            marginal=restore_marginal(with_prefix(state, "marginal.")),
            residual=GaussianMixture(*(state[f"residual.{name}"] for name in GaussianMixture.TENSORS)),
        )

    def levels_mixture(self, values: Float[torch.Tensor, "heads n"]) -> TiedMixture | None:
        """Return the distribution of heads whose levels are those of any of these heads; None if none has all levels.

        Numbers are normally distributed about what the levels say: one Gaussian for each number that a head has would
        leave gaps between them.
        """
        categorical = torch.tensor([isinstance(column, Categorical) for column in self.attributes.columns])
        complete = values[~values[:, categorical].isnan().any(1)]
        if not len(complete) or not categorical.any():
            return None
        levels, counts = complete.masked_fill(~categorical, 0).unique(dim=0, return_counts=True)
        features = self.attributes.features(levels.masked_fill(~categorical, torch.nan))
        known = self.attributes.per_feature(categorical)
        means = self.prior.complete(features, known.expand_as(features)) @ self.coefficients
        axes, variances = self.residual.rotations[0].double(), self.residual.variances[0].double()
        coefficients = self.coefficients.double()
        covariance = (axes * variances) @ axes.T
        covariance = covariance + coefficients.T @ self.prior.covariance_given(known) @ coefficients
        variances, axes = torch.linalg.eigh(covariance)
        return TiedMixture(counts / len(complete), means, variances.clamp(min=0).float(), axes.float())

    def with_marginal(self, marginal: Marginal) -> "ConditionalMixture":
        """Return the mixture with another distribution of heads of which nothing is known."""
        return ConditionalMixture(
            self.attributes, self.coefficients, prior=self.prior, marginal=marginal, residual=self.residual
        )

    def with_spread(self, factor: float) -> "ConditionalMixture":
        """Return the mixture with all standard deviations multiplied by a factor."""
        return ConditionalMixture(
            self.attributes,
            self.coefficients,
            prior=self.prior.with_spread(factor),
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
        unknown = values.isnan().all(1, keepdim=True)
        with torch.autocast(noised.device.type, enabled=False):
            if unknown.all():
                return self.marginal(noised, alpha_bar)
            # The mean of x_0 is linear in the features, so that it may be taken at theirs.
            mean = self._features(noised, alpha_bar, values) @ self.coefficients
            conditional = mean + self.residual(noised - alpha_bar.sqrt() * mean, alpha_bar)
            return torch.where(unknown, self.marginal(noised, alpha_bar), conditional) if unknown.any() else conditional

    def within_variance(self, values: Float[torch.Tensor, "B n"]) -> Float[torch.Tensor, "B D"]:
        """Return the variance inside the components along each coordinate, less what missing attributes add to it."""
        unknown = values.isnan().all(1, keepdim=True)
        return torch.where(unknown, self.marginal.within_variance, self.residual.within_variance)

    def _features(self, noised: torch.Tensor, alpha_bar: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Features (B, F); where some are known, missing ones are their mean given these and x_t."""
        features, known = self.attributes.features(values), ~values.isnan()
        partly = known.any(1) & ~known.all(1)
        if partly.any():
            chosen = self.attributes.per_feature(known[partly])
            features[partly] = self._completed(features[partly], chosen, noised[partly], alpha_bar[partly])
        return features

    def _completed(
        self,
        features: Float[torch.Tensor, "B F"],
        known: Bool[torch.Tensor, "B F"],
        noised: Float[torch.Tensor, "B D"],
        alpha_bar: Float[torch.Tensor, "B 1"],
    ) -> Float[torch.Tensor, "B F"]:
        """Features given the known ones and x_t, which is linear in the features, with noise."""
        axes, alpha_bar = self.residual.rotations[0].double(), alpha_bar.double()
        shifts = self.coefficients.double() @ axes
        total = alpha_bar * self.residual.variances[0].double() + 1 - alpha_bar
        weighted = (noised.double() @ axes) / total
        return self.prior.complete(
            features,
            known,
            precision=alpha_bar[:, :, None] * torch.einsum("fd,bd,gd->bfg", shifts, 1 / total, shifts),
            information=alpha_bar.sqrt() * weighted @ shifts.T,
        )


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
