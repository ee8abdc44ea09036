"""Interpolation and mixing: the parameters of two heads (S,) in; the parameters of heads between them out.

A head is a row of parameters, of its warp and its network, fitted or sampled. Nothing here needs a condition or
training of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.attributes import Request
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.coordinates import WeightCoordinates
from hyperdiffusion.diffusion.encode import encode_heads
from hyperdiffusion.diffusion.generate import BATCH_SIZE, sample
from hyperdiffusion.diffusion.samplers import invert, ode
from overfit.runtime.errors import BadInput, require_at_least
from overfit.runtime.machine import RunContext
from overfit.store import Fits

# Steps of the probability flow from heads to noise, and of the flow back.
FLOW_STEPS = 50
# Angle in radians below which two vectors count as parallel.
MIN_ANGLE = 1e-4

Space = Literal["weights", "noise"]


def interpolate(
    first: Float[torch.Tensor, " S"], second: Float[torch.Tensor, " S"], *, frames: int
) -> Float[torch.Tensor, "frames S"]:
    """Return heads on the straight line between two, both included: all fits share a basin of the loss."""
    _require_frames(frames)
    return torch.lerp(first, second, torch.linspace(0, 1, frames, device=first.device)[:, None])


def interpolate_in_noise(
    checkpoint: Checkpoint,
    *,
    first: Float[torch.Tensor, " S"],
    second: Float[torch.Tensor, " S"],
    frames: int,
) -> Float[torch.Tensor, "frames S"]:
    """Return heads generated from noise between the noises of two heads.

    The noises are found by the probability flow (Song et al. 2021, section 4.3) and interpolated spherically. The
    first and last head are as the model generates them: close to the given ones, not equal.
    """
    _require_frames(frames)
    clean = checkpoint.coordinates.encode(torch.stack([first, second]))
    noises = invert(checkpoint.denoiser, clean, checkpoint.schedule, steps=FLOW_STEPS)
    path = slerp(noises[0], noises[1], frames=frames)
    return checkpoint.coordinates.decode(ode(checkpoint.denoiser, lambda: path, checkpoint.schedule, steps=FLOW_STEPS))


def interpolate_heads(
    checkpoint: Checkpoint,
    *,
    first: Float[torch.Tensor, " S"],
    second: Float[torch.Tensor, " S"],
    frames: int,
    space: Space = "weights",
    context: RunContext = RunContext(),
) -> Float[torch.Tensor, "frames S"]:
    """Return heads between two in a space; for that of the noise, both are first projected to the latent space."""
    if space == "weights":
        return interpolate(first, second, frames=frames)
    _require_frames(frames)
    ends = project_to_latent_space(checkpoint, torch.stack([first, second]), context=context)
    return interpolate_in_noise(checkpoint, first=ends[0], second=ends[1], frames=frames)


def project_to_latent_space(
    checkpoint: Checkpoint, heads: Float[torch.Tensor, "heads S"], *, context: RunContext = RunContext()
) -> Float[torch.Tensor, "heads S"]:
    """Return the networks in the model's latent space that agree best with heads about their surfaces."""
    if isinstance(checkpoint.coordinates, WeightCoordinates):
        return heads
    codes = encode_heads(checkpoint.space, heads, coordinates=checkpoint.coordinates, context=context)
    return checkpoint.coordinates.decode(codes)


def slerp(
    first: Float[torch.Tensor, " D"], second: Float[torch.Tensor, " D"], *, frames: int
) -> Float[torch.Tensor, "frames D"]:
    """Return vectors at even angles between two (Shoemake 1985), with their lengths interpolated linearly."""
    first_length, second_length = first.norm(), second.norm()
    angle = torch.arccos((first @ second / (first_length * second_length)).clamp(-1, 1))
    fraction = torch.linspace(0, 1, frames, device=first.device)[:, None]
    if angle < MIN_ANGLE:
        return torch.lerp(first, second, fraction)
    first_part = torch.sin((1 - fraction) * angle) * first / first_length
    second_part = torch.sin(fraction * angle) * second / second_length
    return (first_part + second_part) / angle.sin() * torch.lerp(first_length, second_length, fraction)


def mix_layers(
    first: Float[torch.Tensor, " S"], second: Float[torch.Tensor, " S"], *, sizes: Sequence[int]
) -> Float[torch.Tensor, "mixes S"]:
    """Return heads that take some layers from each of two: head k its first k layers from the second head.

    This is style mixing (Karras et al. 2019) on weights.

    Args:
        first: Parameters of the head that gives the last layers.
        second: Parameters of the head that gives the first layers; the warp belongs to the first of them.
        sizes: Entries of each layer's weight and bias in flat order, as `HeadSpace.token_sizes`.
    """
    ends = torch.tensor([0, *sizes]).cumsum(0)[::2].tolist()
    return torch.stack([torch.cat([second[:end], first[end:]]) for end in ends])


def find_head(
    head: str,
    checkpoint: Checkpoint,
    *,
    fits: Fits | None = None,
    seed: int = 0,
    attributes: Request | None = None,
) -> Float[torch.Tensor, " S"]:
    """Return the parameters of a head: a fit by its scan's name, or a sample by its number.

    Args:
        head: Name of a scan in `fits`, with or without its suffix, or number of a sample of the seed.
        checkpoint: The model that samples are drawn from.
        fits: Fits of a store to search; they must have the model's field, cube and warps.
        seed: Seed of the samples.
        attributes: Values of attributes that the samples are drawn with.

    Raises:
        BadInput: If there is no such head, or the fits do not belong to the model.
    """
    require_at_least(0, seed=seed)
    fit = None if fits is None else find_fit(head, checkpoint, fits)
    if fits is not None and fit is not None:
        return fits.parameters[fit].to(checkpoint.device)
    if head.isdecimal():
        # With the heads before it in its batch, so that it is rounded as `sample` rounds it.
        before = int(head) % BATCH_SIZE
        return sample(checkpoint, before + 1, first=int(head) - before, seed=seed, attributes=attributes)[-1]
    raise BadInput(f"{head}: no head of this name; give a number, or the name of a scan in `store`")


def find_fit(head: str, checkpoint: Checkpoint, fits: Fits) -> int | None:
    """Return which of the fits is that of a scan, by its name; None if none is.

    Raises BadInput if the fits do not belong to the model.
    """
    if fits.space != checkpoint.space:
        raise BadInput("`store`: its fits have another field, cube or alignment than the model; give its own store")
    rows = {name: row for row, record in enumerate(fits.records) for name in (record.name, Path(record.name).stem)}
    return rows.get(head)


def _require_frames(frames: int) -> None:
    if frames < 2:
        raise BadInput(f"`frames={frames}`: give 2 or more, both ends included")
