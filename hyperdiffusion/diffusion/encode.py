"""Encodes heads in a latent space: parameters of fitted heads (heads, S) and a basis in; codes (heads, D) out.

A code is found as in an auto-decoder (Park et al., DeepSDF, 2019): by gradient descent, so that the decoded network
agrees with the fitted one about its surface. Weights that have no effect on the surface do not matter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from overfit.canonical.warp import UNIT_MM
from overfit.field_labels import FIELD_LOSS, FieldLabels, fitted_distances
from overfit.fit import autocast, losses
from overfit.labels import LabelBatch
from overfit.lr_schedule import lr_factor
from overfit.neural_head import HeadSpace
from overfit.runtime.errors import require_at_least, require_between
from overfit.runtime.machine import RunContext

# Fraction of the steps over which the learning rates rise.
WARMUP_FRACTION = 0.05
# Weight of a warp's mean squared error, in mm^2, beside the loss of the field.
WARP_WEIGHT = 1.0
# Points at which all heads' distances are known.
SHARED_POINTS = 16_384
# Decay rates of Adam's moments.
ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class LatentSpaceConfig:
    """How the latent space is learned and heads are encoded in it."""

    latent_dim: int = 128
    """Upper bound on the latent space's dimension; it is also at most half the number of heads."""
    latent_steps: int = 12_000
    """Optimizer steps that learn the latent space."""
    prior_steps: int = 2_000
    """Optimizer steps that learn the directions which a prior lacks."""
    latent_batch_size: int = 16
    """Heads in one step of learning the latent space or encoding."""
    latent_points: int = 512
    """Points of each head in one step of learning the latent space or encoding."""
    basis_lr: float = 3e-4
    """Adam's peak learning rate for the basis."""
    mean_lr: float = 1e-3
    """Adam's peak learning rate for the mean network."""
    code_lr: float = 2e-2
    """Adam's peak learning rate for the codes while the basis is learned."""
    code_penalty: float = 3e-3
    """Weight of the codes' squared norm while the basis is learned; unneeded directions shrink."""
    mixed_share: float = 0.5
    """Share of the heads in one step of learning the latent space that are random mixtures of fitted heads, if heads
    are aligned. A random draw from the latent space is such a mixture."""
    encode_steps: int = 300
    """Steps for encoding one batch of heads with a fixed basis."""
    encode_lr: float = 0.1
    """Adam's peak learning rate for encoding; codes are whitened then, so that it is larger than `code_lr`."""
    encode_penalty: float = 1e-4
    """Weight of the codes' squared norm for encoding; a larger one draws new heads towards the mean."""
    warp_dim: int = 64
    """Upper bound on the dimensions of the warps in the latent space: principal components of the heads' warps; at most
    half the number of heads."""
    max_latent_heads: int = 2048
    """Upper bound on the heads that the latent space is learned on; the others are encoded afterwards."""

    def __post_init__(self) -> None:
        require_at_least(
            1,
            latent_dim=self.latent_dim,
            latent_steps=self.latent_steps,
            warp_dim=self.warp_dim,
            latent_batch_size=self.latent_batch_size,
            latent_points=self.latent_points,
            encode_steps=self.encode_steps,
            max_latent_heads=self.max_latent_heads,
        )
        require_at_least(
            0,
            basis_lr=self.basis_lr,
            mean_lr=self.mean_lr,
            code_lr=self.code_lr,
            code_penalty=self.code_penalty,
            encode_lr=self.encode_lr,
            encode_penalty=self.encode_penalty,
        )
        require_between(0, 1, mixed_share=self.mixed_share)


@dataclass(frozen=True)
class AutoDecoder:
    """A linear map from codes to heads, with a table of codes: parameters = mean + codes @ directions."""

    space: HeadSpace
    """How a head's parameters are read."""
    mean: Float[torch.Tensor, " S"]
    """The head of the zero code."""
    directions: Float[torch.Tensor, "D S"]
    """What each entry of a code adds to the parameters."""
    codes: torch.nn.Embedding
    """One code a head; sparse, since few heads take part in a step and the others' moments must not decay."""
    fixed: Float[torch.Tensor, "F S"] | None = None
    """Directions that are not learned; the first F entries of a code lie along them, if there are any."""

    def decode(self, codes: Float[torch.Tensor, "B D_F"]) -> Float[torch.Tensor, "B S"]:
        """Return the parameters of codes."""
        if self.fixed is None:
            return torch.addmm(self.mean, codes, self.directions)
        along_fixed, along_others = codes.split([len(self.fixed), len(self.directions)], dim=1)
        return torch.addmm(torch.addmm(self.mean, along_fixed, self.fixed), along_others, self.directions)

    def losses(
        self,
        parameters: Float[torch.Tensor, "B S"],
        points: Float[torch.Tensor, "B n 3"],
        distance: Float[torch.Tensor, "B n"],
    ) -> Float[torch.Tensor, " B"]:
        """Return the loss of decoded networks by signed distances at points."""
        with autocast(self.directions.device):
            logits = self.space.field(self.space.weights(parameters), points)
        return losses(logits.float(), distance, FIELD_LOSS)


@dataclass(frozen=True)
class HeadLabels:
    """What fitted heads say about their surfaces, and their warps."""

    field: LabelBatch
    """Points near each surface and their signed distances, in canonical space."""
    warp: Float[torch.Tensor, "heads W"]
    """The warps' parameters."""

    @classmethod
    def of(
        cls, space: HeadSpace, parameters: Float[torch.Tensor, "heads S"], *, context: RunContext = RunContext()
    ) -> "HeadLabels":
        """Return the labels of heads, on the device of their parameters."""
        weights = space.weights(parameters)
        labels = FieldLabels.of(space.field, space.cube, weights=weights, context=context)
        return cls(labels, space.warp_parameters(parameters))


@dataclass(frozen=True)
class SharedLabels:
    """The signed distances of all fitted heads at the same points, near their surfaces.

    Surfaces of aligned heads lie close to each other, so that a mixture of their signed distances is a head as smooth
    as they are.
    """

    points: Float[torch.Tensor, "n 3"]
    """Points in the field's cube."""
    distance: Float[torch.Tensor, "n heads"]
    """The fitted networks' signed distances there, in millimetres."""

    @classmethod
    def of(
        cls, space: HeadSpace, weights: Float[torch.Tensor, "heads P"], *, labels: LabelBatch, seed: int
    ) -> "SharedLabels":
        """Return the distances of networks at some of their labelled points."""
        points = labels.points.flatten(0, 1)
        chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:SHARED_POINTS]
        points = points[chosen.to(points.device)]
        distance = fitted_distances(space.field, weights, points=points.expand(len(weights), -1, -1))
        return cls(points, distance.T.contiguous())


@dataclass(frozen=True)
class Mixtures:
    """What random mixtures of fitted heads should be: signed distances mix as the codes do.

    Without this, only fitted heads are learned, and what lies between them is left to chance.
    """

    labels: SharedLabels
    """The heads that are mixed."""
    count: int
    """Mixtures in one step."""

    def loss(self, decoder: AutoDecoder, points: int, *, generator: torch.Generator) -> Float[torch.Tensor, " count"]:
        """Return the loss of new mixtures at as many random points; their codes have no gradient."""
        at, distance = self.labels.points, self.labels.distance
        heads = distance.shape[1]
        # As many standard normal numbers as heads: mixtures have the mean and the covariance of the heads.
        shares = torch.randn(self.count, heads, generator=generator).to(at.device) / heads**0.5
        chosen = torch.randint(len(at), (points,), generator=generator).to(at.device)
        codes, mixed = _mixed(decoder.codes.weight.detach(), shares), _mixed(distance[chosen].T, shares)
        return decoder.losses(decoder.decode(codes), at[chosen].expand(self.count, -1, -1), mixed)


def _mixed(rows: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The mean of rows (heads, d), and on top their differences from it in shares (count, heads)."""
    mean = rows.mean(0)
    return mean + shares @ (rows - mean)


def encode_heads(
    space: HeadSpace,
    parameters: Float[torch.Tensor, "heads S"],
    *,
    coordinates: LatentCoordinates,
    config: LatentSpaceConfig = LatentSpaceConfig(),
    context: RunContext = RunContext(),
) -> Float[torch.Tensor, "heads D"]:
    """Return the codes whose heads agree best with fitted heads about surfaces and warps; the basis stays fixed."""
    directions = coordinates.directions
    codes = code_table(torch.zeros(len(parameters), len(directions), device=parameters.device))
    fit_codes(
        AutoDecoder(space, coordinates.mean, directions, codes),
        HeadLabels.of(space, parameters, context=context),
        optimizers=[code_optimizer(codes, config.encode_lr)],
        steps=config.encode_steps * -(-len(parameters) // config.latent_batch_size),
        penalty=config.encode_penalty,
        config=config,
    )
    return codes.weight.detach()


def code_table(codes: Float[torch.Tensor, "heads D"]) -> torch.nn.Embedding:
    """Return a trainable table that starts with these codes."""
    return torch.nn.Embedding.from_pretrained(codes.clone(), freeze=False, sparse=True)


def code_optimizer(codes: torch.nn.Embedding, lr: float) -> torch.optim.Optimizer:
    """Return the optimizer of a table of codes."""
    return torch.optim.SparseAdam(codes.parameters(), lr, betas=ADAM_BETAS)


def fit_codes(
    decoder: AutoDecoder,
    labels: HeadLabels,
    *,
    optimizers: Sequence[torch.optim.Optimizer],
    steps: int,
    penalty: float,
    config: LatentSpaceConfig,
    mixtures: Mixtures | None = None,
    seed: int = 0,
    on_step: Callable[[torch.Tensor], None] = lambda loss: None,
) -> None:
    """Minimise the decoded networks' loss on labels, in place, over the parameters of `optimizers`.

    Args:
        decoder: What decodes codes; its codes are those of the labels' heads.
        labels: What the fitted heads say.
        optimizers: Their learning rates are the peaks of a rise and a cosine fall.
        steps: Number of steps.
        penalty: Weight of the codes' squared norm.
        config: Heads and points in a step.
        mixtures: What mixtures of the labels' heads should be; they replace some of the heads in a step.
        seed: Seed of the batches.
        on_step: Called with the mean loss after every step.
    """

    def factor(step: int) -> float:
        return lr_factor(step, steps, warmup_steps=WARMUP_FRACTION * steps)

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    generator = torch.Generator().manual_seed(seed)
    batch_size = config.latent_batch_size - (mixtures.count if mixtures else 0)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if not len(order):
            order = torch.randperm(decoder.codes.num_embeddings, generator=generator)
        heads, order = order[:batch_size], order[batch_size:]
        points = torch.randint(labels.field.points.shape[1], (config.latent_points,), generator=generator)
        codes, loss = _loss(decoder, labels, heads, points)
        for optimizer in optimizers:
            optimizer.zero_grad()
        total = loss.sum() + penalty * codes.square().sum()
        if mixtures:
            total = total + mixtures.loss(decoder, config.latent_points, generator=generator).sum()
        total.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        on_step(loss.detach().mean())


def _loss(
    decoder: AutoDecoder, labels: HeadLabels, heads: torch.Tensor, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The codes (B, D) of some heads, and their loss (B,) by their warps and at some of each head's points."""
    # Non-blocking: a GPU gets its next step while it is still busy with this one.
    device = decoder.directions.device
    heads, points = heads.to(device, non_blocking=True), points.to(device, non_blocking=True)
    codes = decoder.codes(heads)
    parameters = decoder.decode(codes)
    loss = decoder.losses(parameters, labels.field.points[heads][:, points], labels.field.distance[heads][:, points])
    if decoder.space.warps.size:
        error_mm = UNIT_MM * (decoder.space.warp_parameters(parameters) - labels.warp[heads])
        loss = loss + WARP_WEIGHT * error_mm.square().mean(1)
    return codes, loss
