"""Learns the latent space of a store: fitted networks (heads, P) in; a basis of few directions and codes out.

Two fits of one head differ in most of their weights without any visible difference: only 17 % of a new fit's offset
lies in the span of 112 others. So directions are learned by their effect on the surface, not by distances between
weights. All heads share a mean and a basis, each head has a code z, and all are trained until the network mean + z B
agrees with head i's fit about its surface: a linear hypernetwork (Ha et al. 2017) with the codes of an auto-decoder
(Park et al., DeepSDF, 2019), trained on the networks of stage 1 alone.
"""

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from hyperdiffusion.diffusion.encode import (
    ADAM_BETAS,
    AutoDecoder,
    LatentSpaceConfig,
    code_optimizer,
    code_table,
    fit_codes,
)
from overfit.field import Field
from overfit.field_labels import FieldLabels
from overfit.geometry.bounding_cube import Cube
from overfit.runtime.errors import require_at_least
from overfit.runtime.machine import RunContext

# Steps between two updates of the loss beside the progress bar.
SHOW_LOSS_EVERY = 50


def learn_latent_space(
    field: Field,
    cube: Cube,
    *,
    weights: Float[torch.Tensor, "heads P"],
    config: LatentSpaceConfig = LatentSpaceConfig(),
    seed: int = 0,
    context: RunContext = RunContext(),
) -> tuple[LatentCoordinates, Float[torch.Tensor, "heads D"]]:
    """Return the latent space of fitted networks, and their codes in it, both on CPU.

    Args:
        field: The networks' architecture.
        cube: The cube in millimetres that they cover.
        weights: The fitted networks, on the device to compute on.
        config: Size of the latent space and how it is learned.
        seed: Seed of the order of heads and points.
        context: CPU cores and progress bar.
    """
    require_at_least(0, seed=seed)
    decoder = _principal_components(field, weights, config)
    shared = [{"params": [decoder.directions], "lr": config.basis_lr}, {"params": [decoder.mean], "lr": config.mean_lr}]
    optimizers = [
        code_optimizer(decoder.codes, config.code_lr),
        torch.optim.Adam(shared, betas=ADAM_BETAS, fused=True),
    ]
    labels = FieldLabels.of(field, cube, weights=weights, context=context)
    with context.progress(config.latent_steps, "learning the latent space", "step") as bar:

        def show(loss: torch.Tensor) -> None:
            bar.update()
            if bar.n % SHOW_LOSS_EVERY == 0:
                bar.set_postfix_str(f"loss {loss:.3f}")

        fit_codes(
            decoder,
            labels,
            optimizers=optimizers,
            steps=config.latent_steps,
            penalty=config.code_penalty,
            config=config,
            seed=seed,
            on_step=show,
        )
    mean, directions, codes = (tensor.detach() for tensor in (decoder.mean, decoder.directions, decoder.codes.weight))
    coordinates = LatentCoordinates.from_codes(mean.cpu(), directions.cpu(), codes=codes.cpu(), sizes=field.sizes)
    return coordinates, coordinates.encode(torch.addmm(mean, codes, directions).cpu())


def _principal_components(field: Field, weights: torch.Tensor, config: LatentSpaceConfig) -> AutoDecoder:
    """Where learning starts: the principal components of the weights themselves, all trainable."""
    start = LatentCoordinates.from_weights(weights.cpu(), field.sizes)
    # At most half as many directions as heads, lest each head get one of its own.
    rank = max(1, min(config.latent_dim, start.size, len(weights) // 2))
    directions = (start.std[:, None] * start.basis)[:rank].to(weights.device)
    codes = start.encode(weights.cpu())[:, :rank].to(weights.device)
    return AutoDecoder(
        field,
        start.mean.to(weights.device).clone().requires_grad_(),
        directions.clone().requires_grad_(),
        code_table(codes),
    )
