"""A prior's latent space for other heads: its coordinates and fitted heads in; coordinates and the heads' codes out.

The heads lie in the prior's space (`overfit --prior`). They are encoded along its directions, and at most half as many
others as there are heads are added for what it lacks.

The covariance of few heads has no full rank, and its principal components are as much chance as population. It is
shrunk towards that of heads with the same variances along the prior's directions, which do not correlate in the prior.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from hyperdiffusion.diffusion.encode import (
    AutoDecoder,
    HeadLabels,
    LatentSpaceConfig,
    SharedLabels,
    code_optimizer,
    code_table,
    fit_codes,
)
from hyperdiffusion.diffusion.latent_space import learn, near_surface, principal_components, warp_components
from hyperdiffusion.diffusion.prior import NEAREST_PENALTY, principal_directions
from overfit.field_labels import fitted_distances
from overfit.neural_head import HeadSpace
from overfit.runtime.machine import RunContext

# Correlations shrink by this share at least: fewer heads than directions have a covariance without full rank.
MIN_SHRINKAGE = 1e-3
# Smallest variance, relative to the largest one: a direction in which few heads happen to agree.
MIN_RELATIVE_VARIANCE = 1e-6


@dataclass(frozen=True)
class ExtendedPart:
    """One part of heads' parameters: mean + codes @ directions."""

    mean: Float[torch.Tensor, " Q"]
    """The part of the heads' mean."""
    directions: Float[torch.Tensor, "d Q"]
    """The prior's, and then the added ones."""
    codes: Float[torch.Tensor, "heads d"]
    """The heads' codes."""

    @property
    def spread(self) -> float:
        """Root of the heads' variance, summed over the directions."""
        return float((self.codes.var(0) * self.directions.square().sum(1)).sum().sqrt())


def extend_latent_space(
    space: HeadSpace,
    parameters: Float[torch.Tensor, "heads S"],
    prior: LatentCoordinates,
    *,
    config: LatentSpaceConfig = LatentSpaceConfig(),
    seed: int = 0,
    context: RunContext = RunContext(),
) -> tuple[LatentCoordinates, Float[torch.Tensor, "heads D"]]:
    """Return a prior's latent space with what it lacks of other heads, and their codes in it, both on CPU.

    Args:
        space: How the heads' parameters are read; the prior's.
        parameters: The fitted heads, on the device to compute on.
        prior: The prior's coordinates.
        config: Size of the latent space and how it is learned.
        seed: Seed of the order of heads and points.
        context: CPU cores and progress bar.
    """
    warp_part, network_part = space.warp_parameters(prior.directions).clone(), space.weights(prior.directions)
    if space.warps.cuts_neck:
        # Where a head was cut is no part of its shape, and only these heads know about theirs.
        warp_part[:, -1] = 0
    warp_rows, network_rows = principal_directions(warp_part), principal_directions(network_part)
    warps = extend_warps(space.warp_parameters(parameters).cpu(), warp_rows, config)
    networks = extend_networks(
        HeadSpace(space.field, space.cube),
        space.weights(parameters),
        network_rows,
        config=config,
        seed=seed,
        context=context,
    )
    mean, codes = torch.cat([warps.mean, networks.mean]), torch.cat([warps.codes, networks.codes], dim=1)
    directions = torch.block_diag(warps.directions, networks.directions)
    # Warps and networks have other units: each part's variance is 1 in all.
    sizes = torch.cat([part.directions.norm(dim=1) / part.spread for part in (warps, networks)]).double()
    coordinates = LatentCoordinates.from_covariance(
        mean + codes.mean(0) @ directions,
        directions,
        covariance=shrunk_covariance(codes.double(), sizes),
        sizes=space.token_sizes,
    )
    return coordinates, coordinates.encode(torch.addmm(mean, codes, directions))


def extend_warps(
    warps: Float[torch.Tensor, "heads W"], prior: Float[torch.Tensor, "d W"], config: LatentSpaceConfig
) -> ExtendedPart:
    """Return warps along a prior's directions, and the principal components of what these leave."""
    mean = warps.mean(0)
    codes = (warps - mean) @ torch.linalg.pinv(prior)
    rest = warps - mean - codes @ prior
    added = warp_components(rest, config)
    return ExtendedPart(mean, torch.cat([prior, added]), torch.cat([codes, rest @ added.T], dim=1))


def extend_networks(
    space: HeadSpace,
    weights: Float[torch.Tensor, "heads P"],
    prior: Float[torch.Tensor, "d P"],
    *,
    config: LatentSpaceConfig,
    seed: int,
    context: RunContext,
) -> ExtendedPart:
    """Return networks along a prior's directions about their mean, and along learned ones for what these leave."""
    labels = HeadLabels.of(space, weights, context=context)
    shared = SharedLabels.of(space, weights, labels=labels.field, seed=seed)
    codes = code_table(torch.zeros(len(weights), len(prior), device=weights.device))
    decoder = AutoDecoder(space, weights.mean(0), prior.to(weights.device), codes)
    fit_codes(
        decoder,
        labels,
        optimizers=[code_optimizer(codes, config.encode_lr)],
        steps=config.encode_steps * -(-len(weights) // config.latent_batch_size),
        penalty=NEAREST_PENALTY,
        config=config,
    )
    found = codes.weight.detach()
    decoded = decoder.decode(found)
    known = fitted_distances(space.field, decoded, points=shared.points.expand(len(weights), -1, -1)).T
    white = principal_components(
        near_surface(shared.distance - known, shared), max(1, min(config.latent_dim, len(weights) // 2))
    )
    white = white.float().to(weights.device)
    missing = weights - decoded
    added = (white.T @ (missing - missing.mean(0)) / len(weights)).requires_grad_()
    mean = (decoder.mean + missing.mean(0)).requires_grad_()
    codes = code_table(torch.cat([found, white], dim=1))
    decoder = AutoDecoder(space, mean, added, codes, fixed=decoder.directions)
    learn(decoder, labels, shared, steps=config.prior_steps, config=config, seed=seed, context=context)
    directions = torch.cat([prior, added.detach().cpu()])
    return ExtendedPart(mean.detach().cpu(), directions, codes.weight.detach().cpu())


def shrunk_covariance(
    codes: Float[torch.Tensor, "heads D"], sizes: Float[torch.Tensor, " D"]
) -> Float[torch.Tensor, "D D"]:
    """Return the covariance of heads, its correlations less by a share (Schäfer and Strimmer 2005, target D).

    The share is the one with the least expected squared error of all covariances, estimated as there. They count by
    the `sizes` of what a unit of each entry changes: what is seen matters.
    """
    count, centred = len(codes), codes - codes.mean(0)
    covariance = torch.cov(codes.T)
    scaled = centred * sizes
    products = scaled.T @ scaled / count
    # The variance of each estimated covariance, from the spread of the heads' products.
    variance = count / (count - 1) ** 3 * (scaled.square().T @ scaled.square() - count * products.square())
    off = ~torch.eye(len(sizes), dtype=torch.bool)
    squares = (count / (count - 1) * products)[off].square().sum()
    share = float((variance[off].sum() / squares.clamp(min=1e-300)).clamp(MIN_SHRINKAGE, 1))
    variances = covariance.diagonal().clamp(min=MIN_RELATIVE_VARIANCE * covariance.diagonal().max())
    return torch.lerp(covariance, torch.diag(variances), share)
