"""Training of stage 2: a store of fitted networks in, a checkpoint out. Run again, it goes on where it was."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from overfit.decode import decode
from overfit.errors import BadInput
from overfit.files import replacing
from overfit.store import Rows, Store
from overfit.workers import Machine

from .checkpoint import Checkpoint, same_run
from .learner import STATE, Learner, Training
from .places import coordinates_of
from .processes import Processes, joined
from .render import sheet
from .sample import Sampling, sample
from .seldom import Seldom

# Steps between two looks at the held-out heads.
JUDGE_EVERY = 50
# Samples in a picture, the steps of ddim that make them, and the grid that shows them.
SHOWN, SHOW_STEPS, SHOW_GRID = 4, 20, 96
# Any of these does for torch.compile, on GPUs too.
COMPILERS = (os.environ.get("CXX", "c++"), "g++", "clang++")

Wandb = Literal["disabled", "offline", "online"]
Log = Callable[[dict, int], None]


def train(store: Path | str, checkpoint: Path | str, training: Training = Training(), machine: Machine = Machine(),
          wandb: Wandb = "disabled", shard: bool = False, compile: bool = False) -> Checkpoint:
    """Learn the distribution of a store's weights and write a checkpoint.

    While it trains, the state lies beside the checkpoint (`.state`, and `.places` for the heads' coordinates) and is
    taken up by the same command; a finished checkpoint of the same store and settings is returned as it is. Under
    torchrun, the processes share every batch, and with `shard` the model too. With `compile` the denoiser is translated
    into machine code first. Raises BadInput where the store has fewer than two heads or weights that are not finite,
    where the checkpoint was made from something else, or where no compiler is there.
    """
    if compile and not any(map(shutil.which, COMPILERS)):
        raise BadInput("--compile: finds no C++ compiler; install g++, or train without --compile")
    checkpoint = Path(checkpoint)
    device = machine.use()
    rows = Store(Path(store)).rows()
    if len(rows) < 2:
        raise BadInput(f"{store}: holds one head, and no distribution is learned from one; fit more scans into it")
    about = {"kind": STATE, "settings": asdict(training), "heads": [record.digest for record in rows.records]}
    if checkpoint.exists():
        return _finished(checkpoint, about, device)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with joined(device) as (processes, device):
        return _train(rows, checkpoint, training, about, device, processes, machine.cores,
                      _logger(wandb if processes.first else "disabled", about["settings"]), shard, compile)


def _train(rows: Rows, checkpoint: Path, training: Training, about: dict, device: torch.device, processes: Processes,
           cores: int, log: Log, shard: bool, compile: bool) -> Checkpoint:
    state, places = (checkpoint.with_name(checkpoint.name + suffix) for suffix in (".state", ".places"))
    # The first process makes the coordinates, the others read them.
    if processes.first:
        coordinates, data, judges = coordinates_of(rows, places, training, about, device, cores)
    processes.wait()
    if not processes.first:
        coordinates, data, judges = coordinates_of(rows, places, training, about, device, cores)
    learner = Learner(coordinates.to(device), data, judges, training, device, processes, shard, compile)
    if state.exists():
        learner.restore(state, about)
    processes.wait()
    saving, showing = Seldom(), Seldom()
    with tqdm(total=learner.steps, initial=learner.done, desc="training", unit="step",
              disable=not processes.first) as bar:
        while not learner.finished:
            loss = learner.step()
            bar.update()
            if learner.done % JUDGE_EVERY == 0 or learner.done == learner.steps:
                judged = learner.judge()
                bar.set_postfix_str(f"loss {loss:.3f}, on held-out heads {judged:.3f} of a Gaussian's")
                log({"loss": float(loss), "held_out": judged, "rate": learner.optimiser.param_groups[0]["lr"]},
                    learner.done)
            # A model that is shared out would need all processes for its picture.
            if processes.first and not shard and learner.done % training.show_every == 0 and showing.due():
                model = Checkpoint(rows.field, rows.cube, learner.coordinates, training.schedule, learner.average, {})
                with showing.done():
                    shown = _show(model, learner.done, picture := checkpoint.with_suffix(".png"))
                if shown:
                    log({"samples": picture}, learner.done)
            if processes.agree(saving.due(training.save_every)):
                with saving.done():
                    learner.save(state, about)
    model = learner.model()
    if processes.first:
        Checkpoint(rows.field, rows.cube, learner.coordinates, training.schedule, model,
                   {**about, "steps": learner.done, "kept_at": learner.best_at, "groups": learner.groups,
                    "held_out_loss": learner.best if len(judges) else None}).save(checkpoint)
        state.unlink(missing_ok=True)
        places.unlink(missing_ok=True)
    processes.wait()
    return Checkpoint.load(checkpoint, device)


def verdict(training: dict) -> str:
    """One line for people on what a checkpoint's training came to."""
    done, kept, judged = (training[name] for name in ("steps", "kept_at", "held_out_loss"))
    if judged is None:
        return f"Trained for {done} steps; no heads were held out to judge the model by them."
    if kept == 0:
        start = "Gaussian" if training["groups"] == 1 else f"mixture of {training['groups']} Gaussians"
        return (f"Trained for {done} steps, none of which helped on heads held out of them: the model is the {start} "
                f"that training starts from, whose error is {judged:.3f} of one Gaussian's. More scans help.")
    return (f"Trained for {done} steps; kept the model of step {kept}, whose squared error on heads held out of these "
            f"is {judged:.3f} of a Gaussian's.")


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


def _finished(path: Path, about: dict, device: torch.device) -> Checkpoint:
    made = Checkpoint.load(path, device)
    same_run(path, made.training, about)
    return made


def _logger(mode: Wandb, settings: dict) -> Log:
    """A function that logs figures at a step; wandb is imported only where it is asked for."""
    if mode == "disabled":
        return lambda figures, step: None
    import wandb

    run = wandb.init(project="hyperdiffusion-heads", mode=mode, config=settings)
    return lambda figures, step: run.log({name: wandb.Image(str(value)) if isinstance(value, Path) else value
                                          for name, value in figures.items()}, step=step)
