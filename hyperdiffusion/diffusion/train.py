"""Training of stage 2: a store of fitted networks in, a checkpoint out. The same command resumes."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from hyperdiffusion.diffusion.attribute_card import write_attribute_card
from hyperdiffusion.diffusion.attribute_classifier import KnownHeads
from hyperdiffusion.diffusion.attribute_table import AttributeTable
from hyperdiffusion.diffusion.checkpoint import Checkpoint, TrainingRecord
from hyperdiffusion.diffusion.conditional_mixture import ConditionalMixture
from hyperdiffusion.diffusion.conditioning import Conditioning
from hyperdiffusion.diffusion.denoiser import Denoiser, MixtureDenoiser
from hyperdiffusion.diffusion.distributed import ProcessGroup, process_group
from hyperdiffusion.diffusion.encode_store import CODES, EncodedStore, encode_store, train_val_split
from hyperdiffusion.diffusion.generate import SamplingConfig, sample
from hyperdiffusion.diffusion.independent_components import IndependentComponents
from hyperdiffusion.diffusion.mixture import GaussianMixture
from hyperdiffusion.diffusion.tied_mixture import TiedMixture
from hyperdiffusion.diffusion.trainer import Trainer
from hyperdiffusion.diffusion.training_config import TrainingConfig, TrainingRun
from hyperdiffusion.diffusion.training_state import STATE
from hyperdiffusion.rendering.contact_sheet import write_contact_sheet
from overfit.decoder import DecodeConfig, decode
from overfit.runtime.errors import BadInput
from overfit.runtime.machine import Machine, RunContext
from overfit.runtime.tensor_file import open_tensor_file
from overfit.runtime.throttle import Throttle
from overfit.store import ParameterRows, Store

# Samples in a picture.
PICTURE_SAMPLES = 4
# Steps of ddim that draw them.
PICTURE_STEPS = 20
# The grid that they are decoded on: coarse, since training waits for it.
PICTURE_GRID = DecodeConfig(resolution=96)
# Suffixes of the pictures and of the card beside a checkpoint.
BESIDE = (".png", ".md")
# Compilers that torch.compile can use, on GPUs too.
COMPILERS = (os.environ.get("CXX", "c++"), "g++", "clang++")

Wandb = Literal["disabled", "offline", "online"]
Log = Callable[[dict[str, Any], int], None]


def train(
    store: Path | str,
    checkpoint: Path | str,
    *,
    config: TrainingConfig = TrainingConfig(),
    attributes: AttributeTable | None = None,
    prior: Checkpoint | None = None,
    machine: Machine = Machine(),
    wandb: Wandb = "disabled",
    shard: bool = False,
    compile: bool = False,
) -> Checkpoint:
    """Learn the distribution of a store's weights and write a checkpoint.

    Until training ends, its state is saved beside the checkpoint (`.state`, and `.codes` for the heads' codes), from
    which the same command resumes. A finished checkpoint of the same store and settings is returned as it is. One with
    heads that were removed from the store since is trained anew and replaced: people withdraw their consent.

    Args:
        store: Folder made by `overfit`.
        checkpoint: File for the trained model.
        config: How to train.
        attributes: What is known of the store's heads, from `read_attributes`, for a model that can be asked for it.
            A card with all attributes is written beside the checkpoint, under its name with `.md`.
        prior: The model of other heads that the store's fits started from: its latent space is extended, and what few
            heads say of their distribution is shrunk towards it.
        machine: The part of this computer to use. Under torchrun, all processes share every batch.
        wandb: Whether to log to Weights & Biases.
        shard: Under torchrun, split the model over the processes too (FSDP).
        compile: Compile the denoiser first (torch.compile).

    Raises:
        BadInput: If the store has fewer than two heads or weights that are not finite, if the checkpoint belongs to
            another training, if there is no compiler, if the attributes are not those of the store's heads, or if the
            store's fits did not start from the prior.
    """
    store, checkpoint = Path(store), Path(checkpoint)
    if compile and not any(map(shutil.which, COMPILERS)):
        raise BadInput("`compile`: finds no C++ compiler; install g++, or train without it")
    context = machine.start()
    rows, run = _open(store, checkpoint, config)
    if attributes is not None:
        _require_fitting(attributes, rows, config)
        run = replace(run, attributes=attributes.digest)
    if prior is not None:
        _require_prior(prior, store, config)
        run = replace(run, prior=prior.digest)
    if len(rows) < 2:
        raise BadInput(f"{store}: holds one head, too few to learn a distribution from; fit more scans into it")
    if checkpoint.exists():
        found = Checkpoint.load(checkpoint, context.device)
        if not run.count_withdrawn(found.training.heads):
            run.require_same(checkpoint, found.training.settings, found.training.heads)
            return found
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with process_group(context.device) as (processes, device):
        context = replace(context, device=device, show_progress=context.show_progress and processes.is_main)
        log = _start_log(wandb if processes.is_main else "disabled", run)
        _train(
            rows,
            checkpoint,
            attributes,
            prior,
            run=run,
            context=context,
            processes=processes,
            log=log,
            shard=shard,
            compile=compile,
        )
        return Checkpoint.load(checkpoint, device)


def withdrawn_heads(store: Path | str, checkpoint: Path | str) -> int:
    """Return how many heads of a checkpoint were removed from the store since, so that `train` starts anew.

    It is 0 if there is no checkpoint yet. Raises BadInput if one of the two is no such thing.
    """
    store, checkpoint = Path(store), Path(checkpoint)
    _, run = _open(store, checkpoint, TrainingConfig())
    return run.count_withdrawn(Checkpoint.load(checkpoint).training.heads) if checkpoint.exists() else 0


def _open(store: Path, checkpoint: Path, config: TrainingConfig) -> tuple[ParameterRows, TrainingRun]:
    """A store's heads and the training on them."""
    _require_usable_paths(store, checkpoint)
    opened = Store(store)
    rows = opened.rows()
    return rows, TrainingRun(config, tuple(record.digest for record in rows.records), opened.withdrawn())


def _remove_withdrawn(path: Path, description: str, run: TrainingRun) -> None:
    """Remove a file of an interrupted training that has heads which were removed from the store since."""
    if not path.exists():
        return
    with open_tensor_file(path, remedy="delete it to start again", framework="np") as file:
        heads = (file.metadata.get(description) or {}).get("heads", [])
    if run.count_withdrawn(heads):
        path.unlink()


def _train(
    rows: ParameterRows,
    path: Path,
    table: AttributeTable | None,
    prior: Checkpoint | None,
    *,
    run: TrainingRun,
    context: RunContext,
    processes: ProcessGroup,
    log: Log,
    shard: bool,
    compile: bool,
) -> None:
    """Encode, train and write the checkpoint."""
    codes, saved = _beside(path, ".codes"), _beside(path, ".state")
    with processes.main_first():
        _remove_withdrawn(codes, CODES, run)
        _remove_withdrawn(saved, STATE, run)
        known = None if prior is None else prior.require_latent("`prior`")
        data = encode_store(rows, codes, run=run, prior=known, context=context)
    if table is not None:
        training, validation = train_val_split(len(rows), run.config)
        data = replace(data, attributes=table.rows([*training, *validation]))
    trainer = Trainer(data, run.config, device=context.device, processes=processes, shard=shard, compile=compile)
    if prior is not None and not trainer.validates:
        # So few heads: nothing would keep the transformer from memorising them.
        trainer.total_steps = 0
    if saved.exists():
        trainer.state.load(saved, run=run)
    processes.barrier()
    # A sharded model would need all processes for its picture.
    draws = processes.is_main and not shard
    _optimize(trainer, rows, path, saved=saved, run=run, context=context, log=log, draws=draws)
    model = trainer.model()
    if model is not None:
        conditioning = None if table is None else learn_conditioning(table, data, run.config, device=context.device)
        # First: a finished checkpoint is not trained again, so that the card would stay missing after an interruption.
        if table is not None:
            write_attribute_card(table.attributes, path)
        replace(_checkpoint(rows, trainer, model, run), conditioning=conditioning).save(path)
        saved.unlink(missing_ok=True)
        codes.unlink(missing_ok=True)
    processes.barrier()


def learn_conditioning(
    table: AttributeTable, data: EncodedStore, config: TrainingConfig, *, device: torch.device
) -> Conditioning:
    """Return what is learned of attributes beside the denoiser; `table` has the store's order, and `data` its own."""
    assert data.attributes is not None
    count, known = len(data.training), data.attributes.values
    training = KnownHeads(data.training[torch.arange(count)].to(device), known[:count].to(device))
    return Conditioning.fit(
        table.attributes,
        table.values,
        training=training,
        validation=KnownHeads(data.validation.to(device), known[count:].to(device)),
        schedule=config.noise_schedule,
        seed=config.seed,
    )


def _optimize(
    trainer: Trainer,
    rows: ParameterRows,
    path: Path,
    *,
    saved: Path,
    run: TrainingRun,
    context: RunContext,
    log: Log,
    draws: bool,
) -> None:
    """The training loop: step, validate, draw samples, save."""
    state, config, processes = trainer.state, trainer.config, trainer.processes
    saving, drawing = Throttle(), Throttle()
    with context.progress(trainer.total_steps, "training", "step", initial=state.step) as bar:
        while not trainer.finished:
            lr = trainer.learning_rate
            loss = trainer.step()
            bar.update()
            if trainer.is_validation_due:
                val_loss = trainer.validate()
                bar.set_postfix_str(_status(loss, val_loss))
                log({"loss": float(loss), "val_loss": val_loss, "lr": lr}, state.step)
            if draws and state.step % config.sample_every == 0 and drawing.is_due():
                with drawing.measure():
                    picture = _draw_samples(_checkpoint(rows, trainer, state.sampled, run), path.with_suffix(".png"))
                if picture is not None:
                    log({"samples": picture}, state.step)
            if processes.broadcast(saving.is_due(config.save_every)):
                with saving.measure():
                    state.save(saved, run=run, processes=processes)


def _checkpoint(rows: ParameterRows, trainer: Trainer, denoiser: Denoiser, run: TrainingRun) -> Checkpoint:
    """A model of this training with all that sampling needs."""
    state = trainer.state
    mixture = denoiser.mixture if isinstance(denoiser, MixtureDenoiser) else None
    conditional = isinstance(mixture, ConditionalMixture)
    if isinstance(mixture, ConditionalMixture):
        mixture = mixture.marginal
    record = TrainingRecord(
        **run.to_json(),
        steps=state.step,
        best_step=state.best_step if trainer.validates else state.step,
        mixture_components=mixture.components if isinstance(mixture, GaussianMixture | TiedMixture) else 0,
        independent_components=mixture.components if isinstance(mixture, IndependentComponents) else 0,
        val_loss=state.best_loss if trainer.validates else None,
        conditional=conditional,
    )
    return Checkpoint(rows.space, trainer.objective.coordinates, run.config.noise_schedule, denoiser, record)


def _draw_samples(checkpoint: Checkpoint, path: Path) -> Path | None:
    """Write a picture of four samples, from the same noise every time; None if none of them has a surface yet."""
    steps = min(PICTURE_STEPS, checkpoint.schedule.timesteps)
    meshes = []
    for row in sample(checkpoint, PICTURE_SAMPLES, config=SamplingConfig("ddim", steps)):
        with suppress(BadInput):
            meshes.append(decode(checkpoint.head(row), PICTURE_GRID))
    if not meshes:
        return None
    write_contact_sheet([(f"step {checkpoint.training.steps}", meshes)], path)
    return path


def _status(loss: torch.Tensor, val_loss: float | None) -> str:
    validation = "" if val_loss is None else f", validation loss {val_loss:.3f} x Gaussian baseline"
    return f"loss {loss:.3f}{validation}"


def _require_usable_paths(store: Path, checkpoint: Path) -> None:
    if store.is_file():
        raise BadInput(f"{store}: a file where a store's folder is expected; give the store first, then the checkpoint")
    if checkpoint.is_dir():
        raise BadInput(
            f"{checkpoint}: a folder; give the name of a file for the checkpoint, such as "
            f"{checkpoint / 'model.safetensors'}"
        )
    if checkpoint.suffix in BESIDE:
        raise BadInput(
            f"{checkpoint}: a name for what is written beside the checkpoint; give another one, such as "
            f"{checkpoint.with_suffix('.safetensors')}"
        )


def _require_fitting(table: AttributeTable, rows: ParameterRows, config: TrainingConfig) -> None:
    if len(table) != len(rows):
        raise BadInput(
            f"`attributes`: of {len(table)} heads, and the store has {len(rows)}; read them for the store again"
        )
    if config.coordinates not in ("latent", "pca"):
        raise BadInput(f"`coordinates={config.coordinates}`: has no attributes; give latent or pca")
    training, _ = train_val_split(len(rows), config)
    for name, values in zip(table.attributes.names, table.rows(training).values.unbind(1), strict=True):
        if values.isnan().all():
            raise BadInput(f"`attributes`: {name} is known of no training head; know more heads, or leave it out")


def _require_prior(prior: Checkpoint, store: Path, config: TrainingConfig) -> None:
    prior.require_latent("`prior`")
    if config.coordinates != "latent":
        raise BadInput(f"`coordinates={config.coordinates}`: have no prior; give latent, or train without `prior`")
    if Store(store).prior != prior.digest:
        raise BadInput(
            f"`prior`: the fits of {store} did not start from it; fit the scans into a new store with "
            "`hyperdiffusion overfit SCANS STORE --prior`"
        )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _start_log(mode: Wandb, run: TrainingRun) -> Log:
    """A function that logs values at a step; wandb is imported only if it is used."""
    if mode == "disabled":
        return lambda values, step: None
    import wandb

    logged = wandb.init(project="hyperdiffusion-heads", mode=mode, config=run.to_json()["settings"])

    def log(values: dict[str, Any], step: int) -> None:
        images = {name: wandb.Image(str(value)) for name, value in values.items() if isinstance(value, Path)}
        logged.log(values | images, step=step)

    return log
