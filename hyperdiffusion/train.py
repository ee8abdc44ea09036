"""Training of stage 2: a store of fitted networks in, a checkpoint out. Run again, it goes on where it was."""

import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from overfit.decode import decode
from overfit.errors import BadInput
from overfit.files import replacing
from overfit.fit import autocast
from overfit.store import Fits, Store
from overfit.workers import Machine

from .checkpoint import Checkpoint, read_tensors, write_tensors
from .diffusion import Schedule, posterior
from .render import sheet
from .sample import Sampling, sample
from .samplers import Denoise
from .tokens import Tokens
from .transformer import Denoiser, Shape

STATE = "hyperdiffusion training state"
# Steps between two looks at the held-out heads, and noises drawn for each of them, the same every time.
JUDGE_EVERY, JUDGE_DRAWS = 50, 32
# Samples in a picture, the steps of ddim that make them, and the grid that shows them.
SHOWN, SHOW_STEPS, SHOW_GRID = 4, 20, 96
# A model must be better by this share to replace the best one: less is chance.
MARGIN = 0.002


@dataclass(frozen=True)
class Training:
    """How the denoiser is trained."""

    # The denoiser.
    shape: Shape = Shape()
    # The noise that it learns to take away.
    schedule: Schedule = Schedule()
    # Optimiser steps at most: on two cores about four minutes.
    steps: int = 4000
    # Heads in a step, each at a time step of its own.
    batch: int = 32
    # Share of the store that is not trained on but judges the training: the model is kept as it was when it guessed
    # these heads best. Stores of less than 20 heads are trained on as a whole, to the end.
    held_out: float = 0.1
    # Steps without a better guess after which the training ends.
    patience: int = 500
    # Peak learning rate of AdamW; it falls to zero as a cosine.
    rate: float = 5e-4
    # Steps until that peak.
    warmup: int = 100
    # Weight decay.
    decay: float = 0.05
    # Share of the old in the moving average of the weights that is sampled from (EMA).
    average: float = 0.998
    # Another seed gives another model from the same store.
    seed: int = 0
    # Seconds between two savings of the state from which a killed run goes on.
    save_every: float = 30.0
    # Steps between two pictures of samples, which lie beside the checkpoint under its name.
    show_every: int = 500


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
        while run.done < training.steps and run.done - run.best_at < training.patience:
            loss = run.step()
            bar.update()
            if run.done % JUDGE_EVERY == 0:
                judged = run.judge()
                bar.set_postfix_str(f"loss {loss:.3f}, on held-out heads {judged:.3f} of a Gaussian's")
                log({"loss": float(loss), "held_out": judged, "rate": run.optimiser.param_groups[0]["lr"]}, run.done)
            if run.done % training.show_every == 0:
                model = Checkpoint(fits.field, fits.cube, run.tokens, training.schedule, run.average, {})
                if _show(model, run.done, picture := checkpoint.with_suffix(".png")):
                    log({"samples": picture}, run.done)
            if time.monotonic() - saved > training.save_every:
                run.save(state, about)
                saved = time.monotonic()
    made = Checkpoint(fits.field, fits.cube, run.tokens, training.schedule, run.best_model(),
                      {**about, "steps": run.done, "kept_at": run.best_at,
                       "held_out_loss": run.best if len(run.judges) else None})
    made.save(checkpoint)
    state.unlink(missing_ok=True)
    return made


def verdict(training: dict) -> str:
    """One line for people on what a checkpoint's training came to."""
    done, kept, judged = (training[name] for name in ("steps", "kept_at", "held_out_loss"))
    if judged is None:
        return f"Trained for {done} steps; too few heads to hold some out and judge the model by them."
    if kept == 0:
        return (f"Trained for {done} steps, none of which helped on held-out heads: the model is the Gaussian that "
                "training starts from. More scans will change that.")
    return (f"Trained for {done} steps; kept the model of step {kept}, whose squared error on held-out heads is "
            f"{judged:.3f} of a Gaussian's.")


class _Run:
    """A training in memory: what a step changes, and how it is kept."""

    def __init__(self, fits: Fits, training: Training, device: torch.device):
        self.training, self.device = training, device
        order = torch.randperm(len(fits.weights), generator=torch.Generator().manual_seed(training.seed))
        count = round(len(order) * training.held_out) if len(order) >= 20 else 0
        judges, learned = fits.weights[order[:count]], fits.weights[order[count:]]
        # The axes are the learned heads' alone: a Gaussian that knew the held-out ones would be no fair rival.
        self.tokens = Tokens.of(learned, fits.field.sizes)
        self.judges, self.data = (self.tokens.encode(part).to(device) for part in (judges, learned))
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self.denoiser = Denoiser(training.shape, training.schedule, self.tokens).to(device)
        self.share = self.tokens.share.to(device)
        self.average = deepcopy(self.denoiser).requires_grad_(False).eval()
        self.kept = deepcopy(self.average)
        self.optimiser = torch.optim.AdamW(self.denoiser.parameters(), training.rate, betas=(0.9, 0.99),
                                           weight_decay=training.decay, fused=True)
        # How good the model in `kept` is, of a Gaussian's loss, and when it was made. An untrained one is a Gaussian.
        self.best, self.best_at = 1.0, 0
        self.done = 0

    def step(self) -> torch.Tensor:
        """One optimiser step; returns its loss."""
        training = self.training
        # Each step draws from a generator of its own, so that a run that goes on draws what it would have drawn.
        random = torch.Generator().manual_seed(training.seed * 2**32 + self.done)
        chosen = torch.randint(len(self.data), (training.batch,), generator=random)
        self.optimiser.param_groups[0]["lr"] = _rate(training, self.done)
        self.optimiser.zero_grad()
        with torch.random.fork_rng(), autocast(self.device):
            torch.manual_seed(training.seed * 2**32 + self.done)
            loss = self._loss(self.denoiser, self.data[chosen.to(self.device)], random).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimiser.step()
        self.done += 1
        # A short run's average must forget its start too.
        keep = min(training.average, self.done / (self.done + 10))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.denoiser.parameters()), 1 - keep)
        return loss.detach()

    def _loss(self, denoise: Denoise, clean: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Squared error of the clean weights that a denoiser expects (x0 prediction), for each of `clean` (B, D)."""
        step = torch.randint(self.training.schedule.timesteps, (len(clean),), generator=random).to(self.device)
        noise = torch.randn(clean.shape, generator=random).to(self.device)
        off = denoise(self.training.schedule.noised(clean, noise, step), step).float() - clean
        # An axis weighs as much as new heads vary along it, and all time steps weigh alike: an error counts by what the
        # noise leaves to guess (SNR + 1 weighting, Salimans and Ho 2022). Else the noisiest steps, at which nothing can
        # be learned, are most of the loss.
        _, unknown = posterior(noise, self.denoiser.signal[step][:, None], self.share)
        return (off / unknown * self.denoiser.width).square().mul(self.share).mean(1)

    def _linear(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """The best linear guess of a new head."""
        return posterior(noised, self.denoiser.signal[step][:, None], self.share)[0]

    @torch.no_grad()
    def judge(self) -> float:
        """Loss of the average on the held-out heads, as a share of the best linear guess's; keeps the best model."""
        if not len(self.judges):
            self.best_at = self.done
            self.kept.load_state_dict(self.average.state_dict())
            return float("nan")
        heads = self.judges.repeat(JUDGE_DRAWS, 1)
        guesses = (self.average, self._linear)
        ours, linear = (self._loss(guess, heads, torch.Generator().manual_seed(0)).mean() for guess in guesses)
        judged = float(ours / linear)
        if judged < (1 - MARGIN) * self.best:
            self.best, self.best_at = judged, self.done
            self.kept.load_state_dict(self.average.state_dict())
        return judged

    def best_model(self) -> Denoiser:
        """The model to keep, at the end."""
        return self.kept if len(self.judges) else self.average

    def save(self, path: Path, about: dict) -> None:
        tensors = {}
        for part in ("denoiser", "average", "kept"):
            tensors |= {f"{part}.{name}": tensor for name, tensor in getattr(self, part).state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
        write_tensors(path, tensors, {**about, "done": self.done, "best": self.best, "best_at": self.best_at})

    def restore(self, path: Path, about: dict) -> None:
        """Take up a saved state. Raises BadInput where it belongs to another store or other settings."""
        tensors, theirs = read_tensors(path, STATE, "delete it to start again")
        _same(path, theirs, about)

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        for model in ("denoiser", "average", "kept"):
            getattr(self, model).load_state_dict(part(f"{model}."))
        moments: dict[int, dict] = {}
        for name, tensor in part("optimiser.").items():
            index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.done, self.best, self.best_at = (theirs[name] for name in ("done", "best", "best_at"))


def _show(model: Checkpoint, step: int, path: Path) -> bool:
    """Write a picture of four samples, always from the same noise; False where none of them holds a surface yet."""
    weights = sample(model, SHOWN, sampling=Sampling("ddim", min(SHOW_STEPS, model.schedule.timesteps)))
    meshes = []
    for row in weights:
        with suppress(BadInput):
            meshes.append(decode(model.field, row, model.cube, SHOW_GRID))
    if meshes:
        with replacing(path) as unfinished:
            sheet([(f"step {step}", meshes)], unfinished, format="png")
    return bool(meshes)


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
        if name not in ("save_every", "show_every") and theirs["settings"].get(name) != value:
            raise BadInput(f"{path}: was trained with {name} {theirs['settings'].get(name)}, not {value}; "
                           "use its settings, or give another checkpoint name")


def _logger(mode: Wandb, settings: dict) -> Callable[[dict, int], None]:
    """A function that logs figures at a step; wandb is imported only where it is asked for."""
    if mode == "disabled":
        return lambda figures, step: None
    import wandb

    run = wandb.init(project="hyperdiffusion-heads", mode=mode, config=settings)
    return lambda figures, step: run.log({name: wandb.Image(str(value)) if isinstance(value, Path) else value
                                          for name, value in figures.items()}, step=step)
