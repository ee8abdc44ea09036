"""The command line, each command made from its function: from heads or scans to stores, models and new heads."""

import argparse
import errno
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tqdm import tqdm

import overfit as stage1
from overfit.errors import BadInput
from overfit.prepare import Preparation
from overfit.prepared_folder import prepare_folder
from overfit.presets import Preset
from overfit.scans import find, output_names, read

from .checkpoint import Checkpoint
from .demo import demo as run_demo
from .evaluate import Effort
from .heads import EXPRESSIONS, write_heads
from .learner import Training
from .prepared_sheet import draw_beside, write_sheets
from .presets import PRESETS
from .processes import first
from .render import sheet
from .report import report
from .sample import Format, Sampling, write_meshes
from .sample import sample as draw
from .steer import between, between_in_noise, mixed
from .subspace import Subspace, place
from .tokens import Plain
from .train import Wandb, verdict
from .train import train as learn

# The model that comes with the project, in a clone of it.
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "heads.safetensors"
# Heads in the picture beside the meshes.
SHOWN = 16
# Heads of which a set must have as many to be compared.
FEWEST = 2

Folder = Annotated[Path, tyro.conf.Positional]
Head = Annotated[str, tyro.conf.Positional]


def heads(out: Folder, count: int = 64, seed: int = 0, expressions: int = EXPRESSIONS, format: Format = "ply",
          machine: stage1.Machine = stage1.Machine()) -> None:
    """Write closed head meshes of random people, made from the head model: the default data.

    Units are millimetres, +y is up and +z points out of the face. OUT/heads.csv tells the parameters of each head.
    Needs the extra `demo`.

    Args:
        out: Folder for the meshes.
        count: Number of heads.
        seed: Another seed gives other people; head k of a seed is always the same.
        expressions: Facial actions that a head shows at once, at most.
        format: File format of the meshes.
        machine: What of this computer is used.
    """
    machine.use()
    write_heads(out, count, seed, format, expressions)


def prepare(scans: Folder, out: Folder, preparation: Preparation = Preparation(),
            machine: stage1.Machine = stage1.Machine()) -> None:
    """Bring raw scans to closed heads in the canonical frame: millimetres, +y up, +z out of the face.

    Reads meshes (PLY, OBJ, STL, OFF, GLB, glTF), points (PLY, XYZ, ASC, TXT, CSV, PTS, PCD, LAS, LAZ, E57) and folders
    of depth frames, in any pose and unit. Specks, noise, collars and shoulders go, holes close. OUT/prepared.csv tells
    what was found about each scan, and OUT/prepared.png shows it beside its head. What is no head is set aside. Run
    again, it goes on.

    Args:
        scans: Folder of raw scans.
        out: Folder for the heads, which `hyperdiffusion overfit --prepared` takes.
        preparation: How they are prepared.
        machine: What of this computer is used.
    """
    _prepare(scans, out, preparation, machine)


def _prepare(scans: Path, out: Path, preparation: Preparation, machine: stage1.Machine) -> None:
    outcome = prepare_folder(scans, out, preparation, machine, draw_beside)
    write_sheets(outcome.reports, out)
    done = len(outcome.reports) - len(outcome.set_aside)
    kept = sum(not outcome.reports[path].set_aside for path in outcome.kept)
    print(f"{done - kept} prepared, {kept} kept from before, {len(outcome.set_aside)} set aside; look at "
          f"{out / 'prepared.png'}")
    _set_aside(outcome.set_aside)
    if not done:
        raise BadInput(f"{scans}: not one of its scans could be prepared; the first: {outcome.set_aside[0]}")


def overfit(scans: Folder, store: Folder, settings: stage1.Settings = stage1.Settings(),
            machine: stage1.Machine = stage1.Machine(), preset: Preset = "default", prepared: bool = False,
            keep_scale: bool = False, template: Path | None = None, batch: int = 0, ray: str | None = None) -> None:
    """Fit a small occupancy network to every scan in a folder (stage 1).

    Raw scans are prepared first, into STORE/prepared, as `hyperdiffusion prepare` does. Run again, it fits only what is
    new or was not done. Scans that cannot be fitted are listed at the end and in STORE/scans.csv.

    Args:
        scans: Folder of scans.
        store: Folder for the fitted networks.
        settings: What decides how a fit comes out; a store keeps to the settings that it was made with.
        machine: What of this computer is used.
        preset: Where the settings start from: default, or paper for the published method, for comparisons.
        prepared: Take the scans as they are: aligned (+y up, +z out of the face) meshes, closed enough to tell inside
            from outside.
        keep_scale: Trust the unit when preparing: never change a scan's size.
        template: Mesh of a head in the canonical frame on which scans are laid when preparing; without it, the mean of
            the default heads.
        batch: Scans fitted as one computation, and lost at most by a kill; 0 picks for the machine.
        ray: Address of a Ray cluster (auto for a local one) over which the batches are spread, on its GPUs with
            --device cuda. Needs the extra `cluster`.
    """
    del preset  # main() has made it the settings' default.
    if not prepared:
        preparation = Preparation(settings.unit, keep_scale, template)
        # The heads are in millimetres, whatever the scans are in.
        settings = replace(settings, unit="auto")
        heads = stage1.prepared_heads(store, settings)
        _prepare(scans, heads, preparation, machine)
        scans = heads
    outcome = stage1.overfit(scans, store, settings, machine, batch, ray)
    errors = sorted(record.error_mm for record in outcome.records)
    print(f"{len(outcome.fitted)} fitted, {len(outcome.kept)} kept from before, {len(outcome.set_aside)} set aside")
    if errors:
        print(f"surface error: mean {sum(errors) / len(errors):.3f} mm, worst {errors[-1]:.3f} mm")
    _set_aside(outcome.set_aside.values())
    if not errors:
        raise BadInput(f"{store}: no scan could be fitted; see the reasons above")


def _set_aside(reasons: Iterable[str]) -> None:
    for reason in reasons:
        print(f"set aside: {reason}")


def decode(store: Folder, out: Folder, resolution: int = 256, format: Format = "ply", keep_islands: bool = False,
           machine: stage1.Machine = stage1.Machine()) -> None:
    """Decode the fitted networks of a store back to meshes, one a scan, under the scans' names.

    Args:
        store: Store made by `hyperdiffusion overfit`.
        out: Folder for the meshes, in millimetres.
        resolution: Grid nodes along a side of the cube about all heads.
        format: File format of the meshes.
        keep_islands: Keep pieces that do not touch the head.
        machine: What of this computer is used.
    """
    machine.use()
    fits = stage1.Store(store).read()
    names = output_names([record.name for record in fits.records])
    _write(zip(names, fits.weights), fits, out, resolution, format, keep_islands, machine)


def train(store: Folder, checkpoint: Folder, training: Training = Training(), wandb: Wandb = "disabled",
          machine: stage1.Machine = stage1.Machine(), preset: Preset = "default", shard: bool = False,
          compile: bool = False) -> None:
    """Learn the distribution of the fitted networks' weights by diffusion (stage 2).

    Run again after a kill, it goes on where it was. Many processes share the work under torchrun:
    `torchrun --nproc-per-node 8 -m hyperdiffusion train STORE CHECKPOINT`.

    Args:
        store: Store made by `hyperdiffusion overfit`.
        checkpoint: File for the trained model; it carries all that sampling needs.
        training: How the denoiser is trained.
        wandb: Log to Weights & Biases; offline writes to ./wandb and needs no account.
        machine: What of this computer is used.
        preset: Where the settings start from: default, or paper for the published method, for comparisons.
        shard: Under torchrun, share out the model among the processes too: for one that does not fit into a GPU.
        compile: Translate the denoiser into machine code first (torch.compile): that takes a minute.
    """
    del preset  # main() has made it the settings' default.
    model = learn(store, checkpoint, training, machine, wandb, shard, compile)
    if first():
        print(verdict(model.training))


def sample(out: Folder, checkpoint: Path | None = None, count: int = 16, seed: int = 0, sampling: Sampling = Sampling(),
           resolution: int = 256, format: Format = "ply", keep_islands: bool = False, healing: bool = True,
           machine: stage1.Machine = stage1.Machine()) -> None:
    """Make new heads: meshes in millimetres and a picture of them, heads.png.

    Args:
        out: Folder for the meshes.
        checkpoint: Model made by `hyperdiffusion train`; without it, the one that comes with the project.
        count: Number of heads.
        seed: Another seed gives other heads; head k of a seed is the same whatever the count.
        sampling: How noise becomes heads.
        resolution: Grid nodes along a side of the cube about all heads.
        format: File format of the meshes.
        keep_islands: Keep pieces that do not touch the head.
        healing: Bring networks of several bodies to one first, a second a head: pockets close instead of being filled.
        machine: What of this computer is used.
    """
    model = _model(checkpoint, machine)
    weights = draw(model, count, seed, sampling)
    names = [f"sample_{seed:03d}_{index:05d}" for index in range(count)]
    meshes = _write(zip(names, weights), model, out, resolution, format, keep_islands, machine, healing)
    sheet([("generated heads" if row == 0 else "", meshes[row:row + 4])
           for row in range(0, min(SHOWN, len(meshes)), 4)], out / "heads.png")


def interpolate(out: Folder, first: Head, second: Head, checkpoint: Path | None = None, store: Path | None = None,
                frames: int = 9, way: Literal["weights", "noise"] = "weights", seed: int = 0, resolution: int = 256,
                format: Format = "ply", machine: stage1.Machine = stage1.Machine()) -> None:
    """Go from one head to another: meshes and a picture, frame.png.

    A head is the number of one that `hyperdiffusion sample` makes of the seed, or the name of a scan in a store.

    Args:
        out: Folder for the meshes.
        first: Number or name of the head to begin with.
        second: Number or name of the head to end with.
        checkpoint: Model made by `hyperdiffusion train`; without it, the one that comes with the project.
        store: Store of fitted heads to take heads from by their scans' names.
        frames: Heads in all, both ends among them.
        way: Straight through the weights, or on a great circle through the noise that the model makes the heads from.
        seed: Seed of the sampled heads.
        resolution: Grid nodes along a side of the cube about all heads.
        format: File format of the meshes.
        machine: What of this computer is used.
    """
    if frames < 2:
        raise BadInput(f"--frames {frames}: give 2 or more, both ends among them")
    model, ends = _ends(first, second, checkpoint, store, seed, machine)
    if way == "noise":
        weights = between_in_noise(model, *_as_the_model_makes(ends, model, machine), frames)
    else:
        weights = between(*ends, frames)
    _write_row("frame", weights, model, out, resolution, format, machine)


def mix(out: Folder, first: Head, second: Head, checkpoint: Path | None = None, store: Path | None = None,
        seed: int = 0, resolution: int = 256, format: Format = "ply",
        machine: stage1.Machine = stage1.Machine()) -> None:
    """Take the first layers of the network from one head and the rest from another: meshes and a picture, layers.png.

    A head is the number of one that `hyperdiffusion sample` makes of the seed, or the name of a scan in a store. Head k
    of those made has its first k layers from the second head.

    Args:
        out: Folder for the meshes.
        first: Number or name of the head that gives the last layers.
        second: Number or name of the head that gives the first layers.
        checkpoint: Model made by `hyperdiffusion train`; without it, the one that comes with the project.
        store: Store of fitted heads to take heads from by their scans' names.
        seed: Seed of the sampled heads.
        resolution: Grid nodes along a side of the cube about all heads.
        format: File format of the meshes.
        machine: What of this computer is used.
    """
    model, ends = _ends(first, second, checkpoint, store, seed, machine)
    _write_row("layers", mixed(*ends, model.tokens.sizes), model, out, resolution, format, machine)


def _ends(first: str, second: str, checkpoint: Path | None, store: Path | None, seed: int, machine: stage1.Machine,
          ) -> tuple[Checkpoint, list[torch.Tensor]]:
    """The model and two heads' weights (P,), each by its number or by its name in a store."""
    model, fits = _model(checkpoint, machine), store and stage1.Store(store).read()
    if fits and (fits.field != model.field or fits.cube != model.cube):
        raise BadInput(f"{store}: its networks are read in another way than the model's; give the model's own store")
    named = {name: row for record, row in zip(fits.records, fits.weights)
             for name in (record.name, Path(record.name).stem)} if fits else {}
    ends = []
    for word in (first, second):
        if word in named:
            ends.append(named[word].to(model.tokens.mean.device))
        elif word.isdecimal():
            ends.append(draw(model, int(word) + 1, seed)[-1])
        else:
            raise BadInput(f"{word}: no head of that name{f' in {store}' if store else ''}; "
                           "give a number, or the name of a scan in --store")
    return model, ends


def _as_the_model_makes(ends: list[torch.Tensor], model: Checkpoint, machine: stage1.Machine) -> torch.Tensor:
    """Weights (2, P) among those that the model can make, which come closest to what these say."""
    heads = torch.stack(ends)
    if isinstance(model.tokens, Plain):
        return heads
    return model.tokens.decode(place(model.field, model.cube, heads, model.tokens, Subspace(), machine.cores))


def _write_row(name: str, weights: torch.Tensor, model: Checkpoint, out: Path, resolution: int, format: Format,
               machine: stage1.Machine) -> None:
    names = [f"{name}_{index:03d}" for index in range(len(weights))]
    meshes = _write(zip(names, weights), model, out, resolution, format, False, machine)
    sheet([("", meshes[row:row + SHOWN]) for row in range(0, len(meshes), SHOWN)], out / f"{name}.png")


def _model(checkpoint: Path | None, machine: stage1.Machine) -> Checkpoint:
    device = machine.use()
    if checkpoint is None and not SHIPPED.exists():
        raise BadInput("--checkpoint: no model comes with this installation; give one made by `hyperdiffusion train`")
    return Checkpoint.load(checkpoint or SHIPPED, device)


def evaluate(generated: Folder, out: Folder, reference: Path, train: Path | None = None, count: int = 0,
             seed: int = 0, resolution: int = 128, healing: bool = True, effort: Effort = Effort(),
             machine: stage1.Machine = stage1.Machine()) -> None:
    """Compare generated heads with real ones held out and those learned from: report.html, report.md, report.json.

    Quality without novelty is copying: give the heads learned from too. All meshes are read as they lie, in the
    canonical frame; their unit is found from their size.

    Args:
        generated: Folder of meshes, or a checkpoint, which is sampled.
        out: Folder for the report.
        reference: Folder of real heads that were not learned from.
        train: Folder of the heads learned from.
        count: Heads to sample from a checkpoint, or to take from the folder; 0 takes as many as held-out ones.
        seed: Seed of the samples.
        resolution: Grid that samples are decoded on.
        healing: Bring samples of several bodies to one first, as `sample` does.
        effort: How thoroughly sets are compared.
        machine: What of this computer is used.
    """
    machine.use()
    held_out, learned = _heads(reference), _heads(train) if train else []
    if len(held_out) < FEWEST:
        raise BadInput(f"{reference}: {len(held_out)} heads are too few to compare with; give at least {FEWEST}")
    if count < 0 or 0 < count < FEWEST:
        raise BadInput(f"--count {count}: give at least {FEWEST} heads, or 0 for as many as held-out ones")
    count = count or len(held_out)
    if not generated.is_dir():
        model = _model(generated, machine)
        named = ((f"sample_{seed:03d}_{index:05d}", row) for index, row in enumerate(draw(model, count, seed)))
        generated = out / "heads"
        # Islands are kept, and count.
        made, _ = write_meshes(named, model.field, model.cube, generated, resolution, keep_islands=True,
                               cores=machine.cores, heal=healing)
    else:
        made = _heads(generated, failing=True)[:count]
        if len(made) < FEWEST:
            raise BadInput(f"{generated}: {len(made)} heads are too few to judge; give at least {FEWEST}")
    print(report(made, held_out, learned, out, effort, machine.cores))
    print(f"\nThe report is {out / 'report.html'}.")


def _heads(folder: Path, failing: bool = False) -> list:
    """Meshes in millimetres of a folder. Where some may fail, None stands for these, and files are in millimetres."""
    meshes = []
    for scan in tqdm(find(folder), desc=f"reading {folder.name}", unit="head"):
        try:
            meshes.append(read(scan, "mm" if failing else "auto"))
        except BadInput:
            if not failing:
                raise
            meshes.append(None)
    return meshes


def demo(out: Folder, machine: stage1.Machine = stage1.Machine()) -> None:
    """Run the whole way once, small: head model, stage 1, stage 2, new heads, a picture and a table of figures.

    Takes about 15 minutes on two CPU cores. Run again, it goes on where it was.

    Args:
        out: Folder for all that is made.
        machine: What of this computer is used.
    """
    print(run_demo(out, machine))
    print(f"\nNew heads are in {out / 'heads'}, the picture is {out / 'heads.png'}.")


def _write(named, model, out: Path, resolution: int, format: Format, keep_islands: bool,
           machine: stage1.Machine, heal: bool = False) -> list:
    """Decode and write; BadInput where nothing came out of it, a line for each that failed."""
    meshes, failures = write_meshes(named, model.field, model.cube, out, resolution, format, keep_islands,
                                    machine.cores, heal)
    for name, reason in failures.items():
        print(f"{name}: {reason}", file=sys.stderr)
    whole = [mesh for mesh in meshes if mesh is not None]
    if not whole:
        raise BadInput(f"{out}: not one head could be decoded; see the reasons above")
    return whole


COMMANDS = (heads, prepare, overfit, decode, train, sample, interpolate, mix, evaluate, demo)


def main() -> None:
    """Entry point. Bad input and a full disk end in one line and exit code 2."""
    commands = {function.__name__: function for function in COMMANDS}
    preset = _preset(sys.argv[1:])
    if preset in PRESETS:
        commands["overfit"] = partial(overfit, settings=stage1.PRESETS[preset])
        commands["train"] = partial(train, training=PRESETS[preset])
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="hyperdiffusion", description="A generator of 3D heads, learned from a folder of scans.",
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff,
                    tyro.conf.PositionalMetavarFromFieldName))
    except BadInput as error:
        _end(str(error))
    except KeyboardInterrupt:
        _end("stopped; run the same command again to go on", 130)
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        remedy = "free some disk space" if full else "check the path and its permissions"
        reason = error.strerror or error.args[0]
        _end(f"{error.filename or 'disk'}: {reason}; {remedy}, then run the same command again")


def _preset(words: list[str]) -> str | None:
    """The preset that the command line names: it must be known before the flags that change it are read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    return parser.parse_known_args(words)[0].preset


def _end(message: str, code: int = 2) -> None:
    tqdm.write(f"hyperdiffusion: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
