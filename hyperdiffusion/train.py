"""Training of stage 2: a store of fitted networks in, a checkpoint out. Run again, it goes on where it was."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from overfit.errors import BadInput
from overfit.fit import autocast
from overfit.store import Fits, Store
from overfit.workers import Machine

from .checkpoint import Checkpoint, read_tensors, write_tensors
from .diffusion import Schedule
from .tokens import Tokens
from .transformer import Denoiser, Shape

STATE = "hyperdiffusion training state"


@dataclass(frozen=True)
class Training:
    """How the denoiser is trained."""

    # The denoiser.
    shape: Shape = Shape()
    # The noise that it learns to take away.
    schedule: Schedule = Schedule()
    # Optimiser steps: on two cores about three minutes.
    steps: int = 3000
    # Heads in a step, each at a time step of its own.
    batch: int = 64
    # Peak learning rate of AdamW; it falls to zero as a cosine.
    rate: float = 5e-4
    # Steps until that peak.
    warmup: int = 100
    # Weight decay.
    decay: float = 0.01
    # Share of the old in the moving average of the weights that is sampled from (EMA).
    average: float = 0.998
    # Another seed gives another model from the same store.
    seed: int = 0
    # Seconds between two savings of the state from which a killed run goes on.
    save_every: float = 30.0


Wandb = Literal["disabled", "offline", "online"]


def train(store: Path | str, checkpoint: Path | str, training: Training = Training(), machine: Machine = Machine(),
          wandb: Wandb = "disabled") -> Checkpoint:
    """Learn the distribution of a store's weights and write a checkpoint.

    While it trains, the state lies beside the checkpoint (`.state`) and is taken up by the same command; a finished
    checkpoint of the same store and settings is returned as it is. Raises BadInput where the store has fewer than two
    heads or weights that are not finite, or where the checkpoint was made from something else.
    """
    checkpoint = Path(checkpoint)
    device = machine.use()
    fits = Store(Path(store)).read()
    _usable(Path(store), fits)
    about = {"kind": STATE, "settings": asdict(training), "heads": [record.digest for record in fits.records]}
    if checkpoint.exists():
        return _finished(checkpoint, about)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    run = _Run(fits, training, device)
    state = checkpoint.with_name(checkpoint.name + ".state")
    if state.exists():
        run.restore(state, about)
    log = _logger(wandb, about["settings"])
    saved = time.monotonic()
    with tqdm(total=training.steps, initial=run.done, desc="training", unit="step") as bar:
        while run.done < training.steps:
            loss = run.step()
            bar.update()
            if run.done % 50 == 0:
                bar.set_postfix_str(f"loss {loss:.4f}")
                log({"loss": float(loss), "rate": run.optimiser.param_groups[0]["lr"]}, run.done)
            if time.monotonic() - saved > training.save_every:
                run.save(state, about)
                saved = time.monotonic()
    made = Checkpoint(fits.field, fits.cube, run.tokens, training.schedule, run.average.eval(), about)
    made.save(checkpoint)
    state.unlink(missing_ok=True)
    return made


class _Run:
    """A training in memory: what a step changes, and how it is kept."""

    def __init__(self, fits: Fits, training: Training, device: torch.device):
        self.training, self.device = training, device
        self.tokens = Tokens.of(fits.weights, fits.field.sizes)
        self.data = self.tokens.encode(fits.weights).to(device)
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self.denoiser = Denoiser(training.shape, self.tokens.ranks).to(device)
        self.average = deepcopy(self.denoiser).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.denoiser.parameters(), training.rate, betas=(0.9, 0.99),
                                           weight_decay=training.decay, fused=True)
        self.done = 0

    def step(self) -> torch.Tensor:
        """One optimiser step; returns its loss, the mean squared error of the clean coordinates (x0 prediction)."""
        training = self.training
        # Each step draws from a generator of its own, so that a run that goes on draws what it would have drawn.
        random = torch.Generator().manual_seed(training.seed * 2**32 + self.done)
        chosen = torch.randint(len(self.data), (training.batch,), generator=random)
        step = torch.randint(training.schedule.timesteps, (training.batch,), generator=random)
        noise = torch.randn(training.batch, self.data.shape[1], generator=random)
        clean, step, noise = self.data[chosen.to(self.device)], step.to(self.device), noise.to(self.device)
        with autocast(self.device):
            expected = self.denoiser(training.schedule.noised(clean, noise, step), step)
        loss = (expected.float() - clean).square().mean()
        self.optimiser.param_groups[0]["lr"] = _rate(training, self.done)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimiser.step()
        self.done += 1
        # A short run's average must forget its start too.
        keep = min(training.average, self.done / (self.done + 10))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.denoiser.parameters()), 1 - keep)
        return loss.detach()

    def save(self, path: Path, about: dict) -> None:
        tensors = {f"denoiser.{name}": tensor for name, tensor in self.denoiser.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
        write_tensors(path, tensors, {**about, "done": self.done})

    def restore(self, path: Path, about: dict) -> None:
        """Take up a saved state. Raises BadInput where it belongs to another store or other settings."""
        tensors, theirs = read_tensors(path, STATE, "delete it to start again")
        _same(path, theirs, about)

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self.denoiser.load_state_dict(part("denoiser."))
        self.average.load_state_dict(part("average."))
        moments: dict[int, dict] = {}
        for name, tensor in part("optimiser.").items():
            index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.done = theirs["done"]


def _rate(training: Training, done: int) -> float:
    rise = min(1.0, (done + 1) / training.warmup)
    fall = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done / training.steps)).item())
    return training.rate * rise * fall


def _usable(store: Path, fits: Fits) -> None:
    if len(fits.records) < 2:
        raise BadInput(f"{store}: holds one head, and no distribution is learned from one; fit more scans into it")
    finite = torch.isfinite(fits.weights).all(1)
    if not finite.all():
        name = fits.records[int((~finite).nonzero()[0])].name
        raise BadInput(f"{store}: the weights of {name} are not finite; delete weights.safetensors and fit again")


def _finished(path: Path, about: dict) -> Checkpoint:
    made = Checkpoint.load(path)
    _same(path, made.training, about)
    return made


def _same(path: Path, theirs: dict, ours: dict) -> None:
    # Through JSON, as theirs went.
    if theirs.get("heads") != ours["heads"]:
        raise BadInput(f"{path}: was trained on other heads; give another checkpoint name, or delete it to train anew")
    for name, value in ours["settings"].items():
        if name != "save_every" and theirs["settings"].get(name) != value:
            raise BadInput(f"{path}: was trained with {name} {theirs['settings'].get(name)}, not {value}; "
                           "use its settings, or give another checkpoint name")


def _logger(mode: Wandb, settings: dict) -> Callable[[dict, int], None]:
    """A function that logs figures at a step; wandb is imported only where it is asked for."""
    if mode == "disabled":
        return lambda figures, step: None
    import wandb

    run = wandb.init(project="hyperdiffusion-heads", mode=mode, config=settings)
    return lambda figures, step: run.log(figures, step=step)
