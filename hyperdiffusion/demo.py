"""The whole way once, small: a folder in which heads, fits, a model, new heads, a picture and figures appear."""

from pathlib import Path

import numpy as np
import trimesh
from tqdm import tqdm

from overfit import Fitting, Machine, Settings, Store, decode, overfit

from .evaluate import Effort, Real, evaluate
from .heads import write_heads
from .render import sheet
from .report import EXPLANATION, table, write
from .sample import sample, write_meshes
from .train import train, verdict

# Heads to learn from, real heads held out to compare with, and new heads to make.
LEARNED, HELD_OUT, MADE = 96, 48, 48
# Heads in either row of the picture; grids to look at and to measure on.
SHOWN, FINE, COARSE = 8, 256, 128
# Somewhat shorter fits than the default, to end in time.
FITTING = Fitting(steps=1600, first_steps=6000)


def demo(out: Path | str, machine: Machine = Machine()) -> str:
    """Run the main job on the default data in a folder; returns the table of figures. Run again, it goes on."""
    out = Path(out)
    report = out / "figures.md"
    if not report.exists():
        out.mkdir(parents=True, exist_ok=True)
        figures = _run(out, machine)
        report.write_text(figures)
    return report.read_text()


def _run(out: Path, machine: Machine) -> str:
    device = machine.use()
    learned = _read(write_heads(out / "scans", LEARNED, seed=0))
    held_out = _read(write_heads(out / "held_out", HELD_OUT, seed=1))
    outcome = overfit(out / "scans", out / "store", Settings(fitting=FITTING), machine)
    model = train(out / "store", out / "checkpoint.safetensors", machine=machine)
    weights = sample(model, MADE)
    names = [f"head_{index:05d}" for index in range(MADE)]
    made, _ = write_meshes(zip(names, weights), model.field, model.cube, out / "heads", FINE, cores=machine.cores,
                           heal=True)
    # As many fitted heads as held-out ones: sets of different sizes are told apart by their sizes too.
    rows = Store(out / "store").read().weights[:HELD_OUT].to(device)
    fitted = [decode(model.field, row, model.cube, COARSE) for row in tqdm(rows, desc="measuring", unit="head")]
    shown = [decode(model.field, row, model.cube, FINE) for row in rows[:SHOWN]]
    whole = [mesh for mesh in made if mesh is not None]
    sheet([("fitted heads", shown), ("generated heads", whole[:SHOWN])], out / "heads.png")
    errors = [record.error_mm for record in outcome.records]
    fits = f"Surface error of {len(errors)} fitted heads: mean {np.mean(errors):.3f} mm, worst {max(errors):.3f} mm."
    # The exact earth mover's distance would take longer than all the rest.
    effort = Effort(emd_heads=0)
    real = Real.of(held_out, learned, effort, machine.cores)
    sets = {"held out": real.row(machine.cores)}
    for seed, (name, meshes) in enumerate({"learned from": learned[:HELD_OUT], "fitted": fitted,
                                           "generated": made}.items(), 1):
        sets[name] = evaluate(name, meshes, real, effort, machine.cores, seed, name == "learned from")
    write(out, sets, made, real)
    return "\n\n".join([fits, verdict(model.training), table(sets), EXPLANATION])


def _read(paths: list[Path]) -> list[trimesh.Trimesh]:
    return [trimesh.load_mesh(path) for path in paths]
