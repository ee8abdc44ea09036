"""Edits: a head and requested attributes in; the head with these attributes out, otherwise as it was."""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.attributes import Attributes, Request
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.guidance import conditioned
from hyperdiffusion.diffusion.interpolate import find_fit, find_head, project_to_latent_space
from hyperdiffusion.diffusion.samplers import invert, ode
from overfit.runtime.errors import BadInput, require_between
from overfit.runtime.machine import RunContext
from overfit.store import Fits

# Steps of the probability flow from a head to noise, and of the flow back.
EDIT_STEPS = 100


@dataclass(frozen=True)
class EditedHead:
    """A head before and after an edit."""

    attributes: Attributes
    """What the values are about."""
    parameters: Float[torch.Tensor, "2 S"]
    """Parameters before and after."""
    values: Float[torch.Tensor, "2 n"]
    """Attributes before and after, measured on the latent codes by linear regression."""

    def describe(self, request: Request) -> list[str]:
        """Return one line for each requested attribute: what was measured before and after."""
        lines = []
        for name in request:
            index = self.attributes.index(name)
            before, after = (self.attributes.columns[index].format(float(row[index])) for row in self.values)
            lines.append(f"{name}: {before} before, {after} after")
        return lines


def edit_head(
    checkpoint: Checkpoint,
    head: str,
    request: Request,
    *,
    fits: Fits | None = None,
    seed: int = 0,
    given: Request | None = None,
    steps: int = EDIT_STEPS,
    context: RunContext = RunContext(),
) -> EditedHead:
    """Return a head with requested attributes.

    Args:
        checkpoint: The model, trained with attributes.
        head: Name of a scan in `fits`, with or without its suffix, or number of a sample of the seed.
        request: Values of the attributes to change.
        fits: Fits of a store to search.
        seed: Seed of the samples.
        given: Values of attributes that the sample was drawn with.
        steps: Steps of the probability flow to noise, and back.
        context: Cores for projecting a fit to the latent space.

    Raises:
        BadInput: If there is no such head, the request is empty or impossible, `given` is about a fit, there are more
            steps than timesteps, or the model has no attributes.
    """
    wanted = _parse(checkpoint, request)
    fit = None if fits is None else find_fit(head, checkpoint, fits)
    if fit is not None and given:
        raise BadInput(f"`given`: is for samples, and {head} is a scan; leave it out")
    parameters = find_head(head, checkpoint, fits=fits, seed=seed, attributes=given)[None]
    known: torch.Tensor | None
    if fits is None or fit is None:
        known = _sampled_values(checkpoint, given or {}, (seed, int(head)))
    else:
        known = _training_values(checkpoint, fits.records[fit].digest)
        parameters = project_to_latent_space(checkpoint, parameters, context=context)
    return _edit(checkpoint, parameters, wanted, known=known, steps=steps)


def edit(
    checkpoint: Checkpoint, parameters: Float[torch.Tensor, "1 S"], request: Request, *, steps: int = EDIT_STEPS
) -> EditedHead:
    """Return the head of a row of parameters, which lies in the model's latent space, with requested attributes.

    The head is taken to its noise by the probability flow of its own attributes, and back by that of the changed ones
    (Song et al. 2021, section 4.3; as Mokady et al. 2023 edit images). Its own attributes are measured on its code.
    Raises BadInput as `edit_head` does.
    """
    return _edit(checkpoint, parameters, _parse(checkpoint, request), steps=steps)


def _parse(checkpoint: Checkpoint, request: Request) -> torch.Tensor:
    attributes = checkpoint.require_conditioning().attributes
    if not request:
        raise BadInput("`set`: name what to change, such as " + " or ".join(attributes.describe()[:2]))
    return attributes.parse(request).to(checkpoint.device)


def _sampled_values(checkpoint: Checkpoint, given: Request, seed: tuple[int, int]) -> torch.Tensor:
    """The attributes (n,) that a sample was drawn with, those that were not asked for too."""
    conditioning = checkpoint.require_conditioning()
    return conditioning.complete(conditioning.attributes.parse(given).to(checkpoint.device), [seed])[0]


def _training_values(checkpoint: Checkpoint, digest: str) -> torch.Tensor | None:
    """The attributes (n,) of a training head; None if it is not one."""
    heads = checkpoint.training.heads
    return checkpoint.require_conditioning().values[heads.index(digest)] if digest in heads else None


def _edit(
    checkpoint: Checkpoint,
    parameters: torch.Tensor,
    wanted: torch.Tensor,
    *,
    known: torch.Tensor | None = None,
    steps: int,
) -> EditedHead:
    require_between(1, checkpoint.schedule.timesteps - 1, steps=steps)
    conditioning, coordinates, schedule = checkpoint.require_conditioning(), checkpoint.coordinates, checkpoint.schedule
    code = coordinates.encode(parameters)
    measured = conditioning.measure(code)
    source = measured if known is None else torch.where(known.isnan(), measured, known)
    target = torch.where(wanted.isnan(), source, wanted)
    noise = invert(conditioned(checkpoint.denoiser, source), code, schedule, steps=steps)
    edited = ode(conditioned(checkpoint.denoiser, target), lambda: noise, schedule, steps=steps)
    both = torch.cat([code, edited])
    return EditedHead(conditioning.attributes, coordinates.decode(both), conditioning.measure(both))
