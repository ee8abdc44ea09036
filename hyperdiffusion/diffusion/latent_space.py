"""Learns the latent space of a store: parameters of fitted heads (heads, S) in; a basis and the heads' codes out.

Two fits of one head differ in most of their weights without any visible difference: only 17 % of a new fit's offset
lies in the span of 112 others. So directions are learned by their effect on the surface, not by distances between
weights. All heads share a mean and a basis, each head has a code z, and all are trained until the network mean + z B
agrees with head i's fit about its surface: a linear hypernetwork (Ha et al. 2017) with the codes of an auto-decoder
(Park et al., DeepSDF, 2019), trained on the networks of stage 1 alone.

If heads are aligned, their surfaces lie close to each other, and signed distances mix to those of a head. So the codes
start as the principal components of signed distances at the same points, not of weights, and random mixtures of heads
are trained too, as a random draw is one.

Warps are linear in what they do, so that their principal components are the best basis. Both bases are then rotated
together to the principal components of all codes: what warps and networks have in common is one coordinate.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.coordinates import MIN_RELATIVE_STD, LatentCoordinates
from hyperdiffusion.diffusion.encode import (
    ADAM_BETAS,
    AutoDecoder,
    HeadLabels,
    LatentSpaceConfig,
    Mixtures,
    SharedLabels,
    code_optimizer,
    code_table,
    fit_codes,
)
from overfit.neural_head import HeadSpace
from overfit.runtime.errors import require_at_least
from overfit.runtime.machine import RunContext

# Steps between two updates of the loss beside the progress bar.
SHOW_LOSS_EVERY = 50
# Distance from the surface (mm) over which its weight in the principal components falls by 1/e.
COMPONENT_FALLOFF_MM = 3.0
# Larger distances (mm) count as this one there.
COMPONENT_BAND_MM = 10.0


def learn_latent_space(
    space: HeadSpace,
    parameters: Float[torch.Tensor, "heads S"],
    *,
    config: LatentSpaceConfig = LatentSpaceConfig(),
    seed: int = 0,
    context: RunContext = RunContext(),
) -> tuple[LatentCoordinates, Float[torch.Tensor, "heads D"]]:
    """Return the latent space of fitted heads, and their codes in it, both on CPU.

    Args:
        space: How the heads' parameters are read.
        parameters: The fitted heads, on the device to compute on.
        config: Size of the latent space and how it is learned.
        seed: Seed of the order of heads and points.
        context: CPU cores and progress bar.
    """
    require_at_least(0, seed=seed)
    networks = HeadSpace(space.field, space.cube)
    weights = space.weights(parameters)
    labels = HeadLabels.of(networks, weights, context=context)
    # Signed distances of heads that are not aligned do not mix to those of a head.
    shared = SharedLabels.of(networks, weights, labels=labels.field, seed=seed) if space.warps.size else None
    # At most half as many directions as heads, lest each head get one of its own.
    rank = max(1, min(config.latent_dim, len(weights) // 2))
    codes = principal_components(near_surface(shared.distance, shared) if shared else weights, rank)
    decoder = _regression(networks, weights, codes)
    learn(decoder, labels, shared, steps=config.latent_steps, config=config, seed=seed, context=context)
    learned = [tensor.detach().cpu() for tensor in (decoder.mean, decoder.directions, decoder.codes.weight)]
    mean, directions, codes = _with_warps(space.warp_parameters(parameters).cpu(), learned, config)
    coordinates = LatentCoordinates.from_codes(mean, directions, codes=codes, sizes=space.token_sizes)
    return coordinates, coordinates.encode(torch.addmm(mean, codes, directions))


def learn(
    decoder: AutoDecoder,
    labels: HeadLabels,
    shared: SharedLabels | None,
    *,
    steps: int,
    config: LatentSpaceConfig,
    seed: int,
    context: RunContext,
) -> None:
    """Fit mean, directions and codes of a decoder to labels in place, and to mixtures of heads at shared points."""
    mixed = min(round(config.mixed_share * config.latent_batch_size), config.latent_batch_size - 1)
    common = [{"params": [decoder.directions], "lr": config.basis_lr}, {"params": [decoder.mean], "lr": config.mean_lr}]
    optimizers = [
        code_optimizer(decoder.codes, config.code_lr),
        torch.optim.Adam(common, betas=ADAM_BETAS, fused=True),
    ]
    with context.progress(steps, "learning the latent space", "step") as bar:

        def show(loss: torch.Tensor) -> None:
            bar.update()
            if bar.n % SHOW_LOSS_EVERY == 0:
                bar.set_postfix_str(f"loss {loss:.3f}")

        fit_codes(
            decoder,
            labels,
            optimizers=optimizers,
            steps=steps,
            penalty=config.code_penalty,
            config=config,
            mixtures=Mixtures(shared, mixed) if shared and mixed else None,
            seed=seed,
            on_step=show,
        )


def _with_warps(
    warps: torch.Tensor, learned: Sequence[torch.Tensor], config: LatentSpaceConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (S,), directions (D, S) and codes (heads, D) of heads, from warps (heads, W) and those of the networks."""
    mean, directions, codes = learned
    warp_mean = warps.mean(0)
    rows = warp_components(warps - warp_mean, config)
    return (
        torch.cat([warp_mean, mean]),
        torch.block_diag(rows, directions),
        torch.cat([(warps - warp_mean) @ rows.T, codes], dim=1),
    )


def warp_components(centred: Float[torch.Tensor, "heads W"], config: LatentSpaceConfig) -> Float[torch.Tensor, "d W"]:
    """Return the principal components of warps' differences from their mean, of which there are at most half."""
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    # Largest first; without warps there is none.
    varying = int((singular > MIN_RELATIVE_STD * singular[:1]).sum())
    return rows[: min(varying, config.warp_dim, max(1, len(centred) // 2))]


def near_surface(distance: Float[torch.Tensor, "n heads"], shared: SharedLabels) -> Float[torch.Tensor, "heads n"]:
    """Return distances at shared points, clamped and weighted by how close the points are to all surfaces."""
    known = shared.distance.clamp(-COMPONENT_BAND_MM, COMPONENT_BAND_MM)
    weight = torch.exp(-known.abs().mean(1, keepdim=True) / COMPONENT_FALLOFF_MM)
    return (weight.sqrt() * distance.clamp(-COMPONENT_BAND_MM, COMPONENT_BAND_MM)).T


def principal_components(rows: Float[torch.Tensor, "heads d"], rank: int) -> Float[torch.Tensor, "heads D"]:
    """Return white codes of rows, `rank` numbers each or fewer."""
    centred = rows.cpu().double()
    left, singular, _ = torch.linalg.svd(centred - centred.mean(0), full_matrices=False)
    kept = singular > MIN_RELATIVE_STD * singular[0]
    return len(rows) ** 0.5 * left[:, kept][:, :rank]


def _regression(networks: HeadSpace, weights: torch.Tensor, codes: torch.Tensor) -> AutoDecoder:
    """Where learning starts: the linear map from white codes (heads, D) that is closest to the weights (heads, P)."""
    truth = weights.cpu().double()
    mean = truth.mean(0)
    directions = codes.T @ (truth - mean) / len(codes)
    mean, directions, codes = (tensor.float().to(weights.device) for tensor in (mean, directions, codes))
    return AutoDecoder(networks, mean.requires_grad_(), directions.requires_grad_(), code_table(codes))
