"""The denoiser in training: coordinates of heads in; steps, verdicts on heads held out, and a state to resume out."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from overfit.errors import BadInput
from overfit.fit import autocast

from .checkpoint import read_tensors, same_run, write_tensors
from .diffusion import Denoise, Schedule, posterior
from .mixture import Mixture
from .processes import Processes, take_up, take_up_moments, whole, whole_moments
from .subspace import Subspace
from .tokens import Coordinates, Plain
from .transformer import Denoiser, PlainDenoiser, Shape, denoiser_of, restored

STATE = "hyperdiffusion training state"
# Noises drawn for each held-out head, the same every time.
JUDGE_DRAWS = 32
# A model must be better by this share to replace the best one: less is chance.
MARGIN = 0.002
# The published fall of the rate: to 0.9 of it every 200 epochs.
STAIR, STAIR_EPOCHS = 0.9, 200


@dataclass(frozen=True)
class Training:
    """How stage 2 is trained."""

    # What is diffused: places in the learned subspace (function), along the principal axes of the weights (weights),
    # the weights at one scale for all (scaled), or as they are, the published way (raw).
    coordinates: Literal["function", "weights", "scaled", "raw"] = "function"
    # The subspace.
    subspace: Subspace = Subspace()
    # The denoiser.
    shape: Shape = Shape()
    # Groups of heads, at most, that its training starts from, each a Gaussian; the held-out heads say how many.
    groups: int = 8
    # The noise that it learns to take away.
    schedule: Schedule = Schedule()
    # Optimiser steps at most: on two cores two and a half minutes.
    steps: int = 4000
    # Passes through the heads, which go before the steps where they are given.
    epochs: int = 0
    # Heads in a step, each at a time step of its own.
    batch: int = 32
    # Share of the store that is not trained on but judges the training: the model is kept as it was when it guessed
    # these heads best. Stores of less than 20 heads are trained on as a whole, to the end.
    held_out: float = 0.1
    # Heads that judge, at most.
    judges: int = 256
    # Steps without a better guess after which the training ends.
    patience: int = 500
    # Peak learning rate of AdamW.
    rate: float = 5e-4
    # How it falls: to zero as a cosine, or in the published stairs.
    fall: Literal["cosine", "stairs"] = "cosine"
    # Steps until that peak.
    warmup: int = 100
    # Weight decay.
    decay: float = 0.05
    # Largest norm of a step's gradient; 0 leaves it as it is.
    clip: float = 1.0
    # Share of the old in the moving average of the weights that is sampled from (EMA); 0 takes the last ones.
    average: float = 0.998
    # Another seed gives another model from the same store.
    seed: int = 0
    # Seconds between two savings of the state from which a killed run goes on; more where they would take more than a
    # twentieth of the time.
    save_every: float = 30.0
    # Steps between two pictures of samples, which lie beside the checkpoint under its name; more on the same condition.
    show_every: int = 500


class Heads(Protocol):
    """Coordinates of heads, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """Those (B, D) of some heads."""


class Learner:
    """A training in memory: what a step changes, and how it is kept."""

    def __init__(self, coordinates: Coordinates, data: Heads, judges: torch.Tensor, training: Training,
                 device: torch.device, processes: Processes = Processes(), shard: bool = False,
                 compiled: bool = False):
        """`data` are the heads learned from, `judges` (heads, D) those held out; `coordinates` lie on the device.

        With `shard` the processes share out the model itself too, for one that does not fit into one of them; with
        `compiled` the first step translates it into machine code. Raises BadInput where shares would need copies, or
        where there is one process.
        """
        if shard and (processes.count == 1 or training.average or len(judges)):
            raise BadInput("--shard: takes torchrun with several processes, --average 0 and --held-out 0")
        self.coordinates, self.data, self.judges = coordinates, data, judges.to(device)
        self.training, self.device, self.processes = training, device, processes
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self.denoiser = denoiser_of(training.shape, training.schedule, coordinates).to(device)
        # Error of the plain guess on the held-out heads, of which other errors are given as shares.
        self.plain = self._error(self._plain_guess) if len(judges) else float("nan")
        # How good the model in `kept` is, and when it was made. An untrained one is a mixture, to be left only for what
        # is better than a Gaussian too; in plain coordinates it is nothing.
        self.best, self.best_at = float("inf"), 0
        if len(judges) and not isinstance(coordinates, Plain):
            self.denoiser.mixture, least = self._mixture()
            self.best = min(1.0, least / self.plain)
        if shard:
            processes.shard(self.denoiser)
        self.stepped = self.denoiser if processes.count == 1 or shard else DistributedDataParallel(self.denoiser)
        # The published training averages nothing and judges nothing: no copies then, of a billion parameters each.
        self.average = _frozen(self.denoiser) if training.average else self.denoiser
        self.kept = _frozen(self.denoiser) if len(judges) else self.average
        if compiled:
            # In place, so that its tensors keep their names.
            self.denoiser.compile()
        self.optimiser = torch.optim.AdamW(self.denoiser.parameters(), training.rate, betas=(0.9, 0.99),
                                           weight_decay=training.decay, fused=True)
        self.steps = training.epochs * self.epoch or training.steps
        self.done = 0

    @property
    def groups(self) -> int:
        """Gaussians that the training starts from; none in plain coordinates."""
        return 0 if isinstance(self.coordinates, Plain) else len(self.denoiser.mixture)

    @property
    def epoch(self) -> int:
        """Steps in a pass through the heads."""
        return -(-len(self.data) // self.training.batch)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the held-out heads see no more gain."""
        idle = self.done - self.best_at if len(self.judges) else 0
        return self.done >= self.steps or idle >= self.training.patience

    def step(self) -> torch.Tensor:
        """One optimiser step; returns its loss over the whole batch."""
        training, processes = self.training, self.processes
        # Each step draws from a generator of its own, so that a run that goes on draws what it would have drawn.
        random = torch.Generator().manual_seed(_seed(training.seed, self.done))
        # Every process draws the whole batch and takes its part: together they do what one would.
        chosen = torch.randint(len(self.data), (training.batch,), generator=random)
        part = processes.part(training.batch)
        clean, step, noise = self._drawn(self.data[chosen[part]], random, training.batch, part)
        self.optimiser.param_groups[0]["lr"] = self._rate()
        self.optimiser.zero_grad()
        with torch.random.fork_rng(), autocast(self.device):
            torch.manual_seed(_seed(training.seed, self.done, processes.rank))
            loss = self._loss(self.stepped, clean, step, noise).mean()
        loss.backward()
        if training.clip:
            torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), training.clip)
        self.optimiser.step()
        self.done += 1
        if training.average:
            # A short run's average must forget its start too.
            keep = min(training.average, self.done / (self.done + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.denoiser.parameters()), 1 - keep)
        return processes.mean(loss.detach())

    def _drawn(self, clean: torch.Tensor, random: torch.Generator, count: int, part: slice,
               ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clean coordinates (B, D) on the device, with a time step and noise for each: a part of `count` draws."""
        step = torch.randint(self.training.schedule.timesteps, (count,), generator=random)[part]
        if self.device.type == "cuda":
            # A batch of raw weights has a million numbers: drawn here, they would take as long as the step there.
            random = torch.Generator(self.device).manual_seed(int(torch.randint(2**62, (), generator=random)))
        noise = torch.randn(count, clean.shape[1], generator=random, device=random.device)[part]
        return self._sent(clean), self._sent(step), noise

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the device. A GPU that is still at the last batch does not hold up the next one."""
        if self.device.type == "cuda" and not tensor.is_cuda:
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _loss(self, denoise: Denoise, clean: torch.Tensor, step: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Squared error of the clean coordinates that a denoiser expects (x0 prediction), of each of `clean` (B, D)."""
        off = denoise(self.training.schedule.noised(clean, noise, step), step).float() - clean
        if isinstance(self.coordinates, Plain):
            return off.square().mean(1)
        # An axis weighs as much as new heads vary along it, and all time steps weigh alike: an error counts by what the
        # noise leaves to guess (SNR + 1 weighting, Salimans and Ho 2022). Else the noisiest steps, at which nothing can
        # be learned, are most of the loss.
        share = self.coordinates.share
        _, unknown = posterior(noise, self.denoiser.signal[step][:, None], share)
        return (off / unknown * self.denoiser.width).square().mul(share).mean(1)

    def _mixture(self) -> tuple[Mixture, float]:
        """The groups that guess the held-out heads best, and their loss."""
        learned = self.data[torch.arange(len(self.data))]

        def loss(mixture: Mixture) -> float:
            mixture = mixture.to(self.device)
            return self._error(lambda noised, step: mixture(noised, self.denoiser.signal[step][:, None]))

        mixture, least = Mixture.best(learned, self.coordinates.deviation.cpu(), self.denoiser.mixture.within.cpu(),
                                      self.training.groups, loss)
        return mixture.to(self.device), least

    def _plain_guess(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """What a model must beat: the best linear guess of a new head, or in plain coordinates the mean head."""
        if isinstance(self.coordinates, Plain):
            return self.judges.mean(0).expand_as(noised)
        return posterior(noised, self.denoiser.signal[step][:, None], self.coordinates.share)[0]

    def judge(self) -> float:
        """Loss of the average on the held-out heads, as a share of the plain guess's; keeps the best model."""
        if not len(self.judges):
            self.best_at = self.done
            return float("nan")
        judged = self._error(self.average) / self.plain
        if judged < (1 - MARGIN) * self.best:
            self.best, self.best_at = judged, self.done
            self.kept.load_state_dict(self.average.state_dict())
        return judged

    @torch.no_grad()
    def _error(self, denoise: Denoise) -> float:
        """Loss of a denoiser on the held-out heads, by the same noises every time."""
        random = torch.Generator().manual_seed(0)
        # One draw after another: of raw weights, all at once would be a gigabyte.
        return sum(float(self._loss(denoise, *self._drawn(self.judges, random, len(self.judges), slice(None))).mean())
                   for _ in range(JUDGE_DRAWS)) / JUDGE_DRAWS

    def _rate(self) -> float:
        training = self.training
        rise = min(1.0, (self.done + 1) / training.warmup) if training.warmup else 1.0
        if training.fall == "stairs":
            return training.rate * rise * STAIR ** (self.done // self.epoch // STAIR_EPOCHS)
        return training.rate * rise * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * self.done / self.steps)).item())

    def model(self) -> Denoiser | PlainDenoiser | None:
        """The model to keep, whole; all processes must ask for it, and those but the first may get None."""
        state = whole(self.kept)
        if not self.processes.first:
            return None
        made = restored(self.training.shape, self.training.schedule, self.coordinates, state)
        return made.to(self.device).requires_grad_(False).eval()

    def save(self, path: Path, about: dict) -> None:
        """Write the state; all processes must take part."""
        tensors = {}
        for model, part in self._models().items():
            tensors |= {f"{part}.{name}": tensor for name, tensor in whole(model).items()}
        tensors |= {f"optimiser.{name}.{moment}": tensor
                    for name, found in whole_moments(self.denoiser, self.optimiser).items()
                    for moment, tensor in found.items()}
        if self.processes.first:
            write_tensors(path, tensors, {**about, "done": self.done, "best": self.best, "best_at": self.best_at})

    def restore(self, path: Path, about: dict) -> None:
        """Take up a saved state. Raises BadInput where it is of another run than `about`, as given to `save`."""
        tensors, theirs = read_tensors(path, STATE, "delete it to start again")
        same_run(path, theirs, about)

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        for model, name in self._models().items():
            take_up(model, part(f"{name}."))
        moments: dict[str, dict] = {}
        for name, tensor in part("optimiser.").items():
            parameter, moment = name.rsplit(".", 1)
            moments.setdefault(parameter, {})[moment] = tensor
        take_up_moments(self.denoiser, self.optimiser, moments)
        self.done, self.best, self.best_at = (theirs[name] for name in ("done", "best", "best_at"))

    def _models(self) -> dict[torch.nn.Module, str]:
        """The models, each once, and their names: without an average or judges, some are the same."""
        models: dict[torch.nn.Module, str] = {}
        for name in ("denoiser", "average", "kept"):
            models.setdefault(getattr(self, name), name)
        return models


def _seed(*parts: int) -> int:
    """One seed of several numbers: torch's generator on CPU knows only its lowest 32 bits."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _frozen(model: Denoiser) -> Denoiser:
    return deepcopy(model).requires_grad_(False).eval()


def split(count: int, training: Training) -> tuple[Sequence[int], Sequence[int]]:
    """Indices of a store's heads: those that judge the training, and those that are learned from."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(training.seed)).tolist()
    judges = min(round(count * training.held_out), training.judges) if count >= 20 else 0
    return order[:judges], order[judges:]
