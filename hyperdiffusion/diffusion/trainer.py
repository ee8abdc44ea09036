"""Trains the denoiser: encoded heads in; optimizer steps, validation losses and the trained model out."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.conditional_mixture import ConditionalMixture
from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from hyperdiffusion.diffusion.denoiser import (
    Denoiser,
    LatentDenoiser,
    Mixture,
    MixtureDenoiser,
    WeightDenoiser,
    default_mixture,
    make_denoiser,
    restore_denoiser,
)
from hyperdiffusion.diffusion.distributed import ProcessGroup, gather_model
from hyperdiffusion.diffusion.encode_store import EncodedStore
from hyperdiffusion.diffusion.loss import NoisedBatch, Objective
from hyperdiffusion.diffusion.marginal import Marginal, select_marginal
from hyperdiffusion.diffusion.schedule import Denoise
from hyperdiffusion.diffusion.training_config import TrainingConfig
from hyperdiffusion.diffusion.training_state import TrainingState, frozen_copy
from overfit.fit import autocast
from overfit.lr_schedule import lr_factor
from overfit.runtime.errors import BadInput

# Decay rates of AdamW's moments.
ADAM_BETAS = (0.9, 0.99)
# Steps between two validations.
VALIDATE_EVERY = 100
# Batches that a validation predicts. They take 5 % of the time, since a step's gradients take two thirds of its own.
VALIDATION_BATCHES = 16
# Upper bound on the noise draws for each validation head.
MAX_VALIDATION_DRAWS = 32
# A model must reduce the validation loss by this fraction to become the best; less may be chance.
MIN_IMPROVEMENT = 0.002
# Standard deviation of the gain from one start to another over validation heads, relative to the loss.
LEAST_GAIN = 0.03
# Training ends after this many validations in a row whose loss exceeds the best by this fraction.
MAX_RISES, RISE = 5, 0.01
# Largest part of a training over which the learning rate rises.
MAX_WARMUP_FRACTION = 0.5
# Share of the heads in a step of which nothing is known: guidance needs the unconditional model too (Ho and Salimans
# 2022). The other heads lack as large a share of their attributes, as real heads do.
CONDITION_DROPOUT = 0.15
# Factor of the published learning-rate decay.
STEP_DECAY = 0.9
# Epochs between two steps of that decay.
STEP_DECAY_EPOCHS = 200


class Trainer:
    """Trains one denoiser. `step()` until `finished`, `validate()` from time to time, then take `model()`."""

    def __init__(
        self,
        data: EncodedStore,
        config: TrainingConfig,
        *,
        device: torch.device = torch.device("cpu"),
        processes: ProcessGroup = ProcessGroup(),
        shard: bool = False,
        compile: bool = False,
    ):
        """Make the model and everything that training it needs.

        Args:
            data: Codes of the training and validation heads.
            config: How to train.
            device: Where to compute.
            processes: The processes that share every batch.
            shard: Split the model over the processes too, for one that does not fit into a single GPU.
            compile: Compile the denoiser at its first step (torch.compile).

        Raises:
            BadInput: If sharding is asked for with copies of the model (EMA, validation) or with a single process.
        """
        if shard and (processes.world_size == 1 or config.ema_decay or len(data.validation)):
            raise BadInput("`shard`: needs torchrun with several processes, `ema_decay=0` and `val_fraction=0`")
        self.config, self.device, self.processes = config, device, processes
        self.training, self.validation = data.training, data.validation.to(device)
        self.attributes = None if data.attributes is None else data.attributes.attributes
        self.values, self.validation_values = _split_values(data, device)
        self.objective = Objective.on(device, data.coordinates, config.noise_schedule)
        self.steps_per_epoch = -(-len(data.training) // config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch or config.steps
        self.baseline_loss = (
            self.objective.baseline_loss(self.validation, draws=self._draws) if self.validates else float("nan")
        )
        denoiser, loss = self._initial_denoiser()
        # The published training has neither average nor validation: no copies then, of a billion parameters each.
        ema = frozen_copy(denoiser) if config.ema_decay else None
        best = frozen_copy(denoiser) if self.validates else None
        # Before the optimizer is made: sharding replaces the parameters.
        self.parallel = processes.parallelize(denoiser, shard=shard)
        self.state = TrainingState(denoiser, _optimizer(denoiser, config), ema=ema, best=best, best_loss=loss)
        if compile:
            # In place, so that the tensors keep their names.
            denoiser.compile()

    @property
    def validates(self) -> bool:
        """Whether there are validation heads."""
        return len(self.validation) > 0

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the validation loss has stopped falling, or rises."""
        state = self.state
        stalled = self.validates and state.step - state.best_step >= self.config.patience
        return state.step >= self.total_steps or stalled or state.rises >= MAX_RISES

    @property
    def is_validation_due(self) -> bool:
        """Whether the model is to be validated after the steps done."""
        return self.state.step % VALIDATE_EVERY == 0 or self.state.step == self.total_steps

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(
            self.state.step, self.config, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch
        )

    def step(self) -> torch.Tensor:
        """Take one optimizer step and return its loss over the whole batch."""
        state, config = self.state, self.config
        batch = self._next_batch()
        for group in state.optimizer.param_groups:
            group["lr"] = self.learning_rate
        state.optimizer.zero_grad()
        with torch.random.fork_rng(), autocast(self.device):
            # Each step and process draws its dropout from a seed of its own, so that a resumed run repeats it.
            torch.manual_seed(_combined_seed(config.seed, state.step, self.processes.rank))
            loss = self.objective.loss(self.parallel, batch).mean()
        loss.backward()
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(state.denoiser.parameters(), config.grad_clip)
        state.optimizer.step()
        state.step += 1
        state.update_ema(config.ema_decay)
        return self.processes.mean(loss.detach())

    def validate(self) -> float | None:
        """Return the validation loss relative to the Gaussian baseline, and keep the model if it is the best so far.

        Without validation heads there is none.
        """
        if not self.validates:
            return None
        loss = self.validation_loss(self.state.sampled, self.validation_values)
        if loss < (1 - MIN_IMPROVEMENT) * self.state.best_loss:
            self.state.keep_as_best(loss)
        self.state.rises = self.state.rises + 1 if loss > (1 + RISE) * self.state.best_loss else 0
        return loss

    def validation_loss(self, denoise: Denoise, values: torch.Tensor | None = None) -> float:
        """Return the loss of a denoiser on the validation heads, relative to that of the Gaussian baseline.

        `values` (heads, n) are their attributes, which condition the denoiser but not the baseline.
        """
        loss = self.objective.validation_loss(denoise, self.validation, draws=self._draws, values=values)
        return loss / self.baseline_loss

    def model(self) -> Denoiser | None:
        """Return the trained model. All processes must call it; those but the main one may get None."""
        state = gather_model(self.state.result)
        if not self.processes.is_main:
            return None
        denoiser = restore_denoiser(
            self.config.transformer,
            self.objective.coordinates,
            schedule=self.config.noise_schedule,
            state=state,
            attributes=self.attributes,
        )
        return denoiser.to(self.device).requires_grad_(False).eval()

    def _initial_denoiser(self) -> tuple[LatentDenoiser | WeightDenoiser, float]:
        """The untrained denoiser, and the loss relative to the Gaussian baseline that a trained one must improve on."""
        mixture: Mixture | None
        marginal, loss = self._initial_mixture()
        if self.values is None:
            mixture = marginal
        else:
            mixture, loss = self._conditional_mixture(marginal)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            denoiser = make_denoiser(
                self.config.transformer,
                self.objective.coordinates,
                schedule=self.config.noise_schedule,
                mixture=mixture,
            )
            return denoiser.to(self.device), loss

    def _initial_mixture(self) -> tuple[Marginal | None, float]:
        """The mixture that training starts from and its loss; untrained weight coordinates predict nothing at all."""
        coordinates, config = self.objective.coordinates, self.config
        if not isinstance(coordinates, LatentCoordinates) or not self.validates:
            return None, float("inf")

        mixture, mixture_loss = select_marginal(
            self.training[torch.arange(len(self.training))],
            std=coordinates.std.cpu(),
            variance=default_mixture(coordinates).within_variance.cpu(),
            max_components=config.max_mixture_components,
            independent=config.independent_components,
            margin=self._margin,
            loss=self._mixture_loss,
        )
        return mixture, min(1.0, mixture_loss)

    def _conditional_mixture(self, marginal: Marginal | None) -> tuple[ConditionalMixture, float]:
        """The mixture of heads with attributes that training starts from, and its loss."""
        coordinates = self.objective.coordinates
        assert isinstance(coordinates, LatentCoordinates) and self.attributes is not None and self.values is not None
        gaussian = default_mixture(coordinates.to(torch.device("cpu")))
        mixture = ConditionalMixture.fit(
            self.attributes,
            self.values,
            self.training[torch.arange(len(self.training))],
            marginal=gaussian if marginal is None else marginal,
            variance=gaussian.within_variance,
        )
        if not self.validates:
            return mixture, float("inf")
        levels = mixture.levels_mixture(self.values)
        if levels is not None:
            limit = (1 - self._margin) * self._mixture_loss(mixture.marginal)
            mixture = mixture.with_marginal(levels) if self._mixture_loss(levels) < limit else mixture
        return mixture, self._mixture_loss(mixture, self.validation_values)

    @property
    def _margin(self) -> float:
        """Fraction by which a start must reduce the validation loss; less may be chance."""
        return LEAST_GAIN / len(self.validation) ** 0.5

    def _mixture_loss(self, mixture: Mixture, values: torch.Tensor | None = None) -> float:
        """The validation loss of a mixture's optimal denoiser."""
        return self.validation_loss(MixtureDenoiser(self.config.noise_schedule, mixture).to(self.device), values)

    @property
    def _draws(self) -> int:
        """Noise draws for each validation head."""
        possible = VALIDATION_BATCHES * self.config.batch_size // len(self.validation)
        return min(max(possible, 1), MAX_VALIDATION_DRAWS)

    def _next_batch(self) -> NoisedBatch:
        """This process' part of the next batch. Every process draws all of it: together they do what one would do."""
        size, part = self.config.batch_size, self.processes.part(self.config.batch_size)
        generator = torch.Generator().manual_seed(_combined_seed(self.config.seed, self.state.step))
        chosen = torch.randint(len(self.training), (size,), generator=generator)
        clean, density = self.training[chosen[part]], self.config.timestep_density
        batch = self.objective.draw(clean, generator, count=size, part=part, density=density)
        if self.values is None:
            return batch
        return replace(batch, values=drop_values(self.values[chosen], generator)[part].to(self.device))


def _optimizer(denoiser: torch.nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        denoiser.parameters(), config.lr, betas=ADAM_BETAS, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(step: int, config: TrainingConfig, *, total_steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step."""
    if config.lr_schedule == "cosine":
        warmup_steps = min(config.warmup_steps, MAX_WARMUP_FRACTION * total_steps)
        return config.lr * lr_factor(step, total_steps, warmup_steps=warmup_steps)
    rise = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.lr * rise * STEP_DECAY ** (step // steps_per_epoch // STEP_DECAY_EPOCHS)


def drop_values(
    values: Float[torch.Tensor, "B n"], generator: torch.Generator, *, share: float = CONDITION_DROPOUT
) -> Float[torch.Tensor, "B n"]:
    """Return values with a share of the rows missing, and the same share of the other entries."""
    count, columns = values.shape
    rows = torch.rand(count, 1, generator=generator) < share
    return values.masked_fill(rows | (torch.rand(count, columns, generator=generator) < share), torch.nan)


def _split_values(data: EncodedStore, device: torch.device) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Attributes of the training heads, and those of the validation heads on the device; None without attributes."""
    if data.attributes is None:
        return None, None
    count = len(data.training)
    return data.attributes.values[:count], data.attributes.values[count:].to(device)


def _combined_seed(*parts: int) -> int:
    """One seed of several numbers: torch's CPU generator uses only the lowest 32 bits of a seed."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
