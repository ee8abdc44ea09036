"""The whole way once, small: a folder in which heads, fits, a model, new heads, a picture and figures appear."""

from pathlib import Path

import numpy as np
import trimesh
from tqdm import tqdm

from overfit import Fitting, Machine, Settings, Store, decode, overfit

from . import metrics
from .heads import write_heads
from .render import sheet
from .sample import sample, write_meshes
from .train import train, verdict

# Heads to learn from, real heads held out to compare with, and new heads to make.
LEARNED, HELD_OUT, MADE = 96, 48, 48
# Heads in either row of the picture; grids to look at and to measure on.
SHOWN, FINE, COARSE = 8, 256, 128
# Somewhat shorter fits than the default, to end in time.
FITTING = Fitting(steps=1600, first_steps=6000)
EXPLANATION = """\
All by chamfer distance on 2048 points, in millimetres, without scaling. MMD, coverage and 1-NNA compare with the heads
held out; a 1-NNA of 0.5 cannot be told from them. A head counts as a copy where it is nearer to a head learned from
than 1 % of the heads held out are; that is also why about 0.01 of those are."""


def demo(out: Path | str, machine: Machine = Machine()) -> str:
    """Run the main job on the default data in a folder; returns the table of figures. Run again, it goes on."""
    out = Path(out)
    report = out / "figures.md"
    if not report.exists():
        out.mkdir(parents=True, exist_ok=True)
        table = _run(out, machine)
        report.write_text(table)
    return report.read_text()


def _run(out: Path, machine: Machine) -> str:
    device = machine.use()
    learned = _read(write_heads(out / "scans", LEARNED, seed=0))
    held_out = _read(write_heads(out / "held_out", HELD_OUT, seed=1))
    outcome = overfit(out / "scans", out / "store", Settings(fitting=FITTING), machine)
    model = train(out / "store", out / "checkpoint.safetensors", machine=machine)
    weights = sample(model, MADE)
    names = [f"head_{index:05d}" for index in range(MADE)]
    made, _ = write_meshes(zip(names, weights), model.field, model.cube, out / "heads", FINE, cores=machine.cores)
    # As many fitted heads as held-out ones: sets of different sizes are told apart by their sizes too.
    rows = Store(out / "store").read().weights[:HELD_OUT].to(device)
    fitted = [decode(model.field, row, model.cube, COARSE) for row in tqdm(rows, desc="measuring", unit="head")]
    shown = [decode(model.field, row, model.cube, FINE) for row in rows[:SHOWN]]
    sheet([("fitted heads", shown), ("generated heads", made[:SHOWN])], out / "heads.png")
    errors = [record.error_mm for record in outcome.records]
    fits = f"Surface error of {len(errors)} fitted heads: mean {np.mean(errors):.3f} mm, worst {max(errors):.3f} mm."
    compared = table(learned, held_out, {"fitted": fitted, "generated": made})
    return "\n\n".join([fits, verdict(model.training), compared])


def _read(paths: list[Path]) -> list[trimesh.Trimesh]:
    return [trimesh.load_mesh(path) for path in paths]


def table(learned: list[trimesh.Trimesh], held_out: list[trimesh.Trimesh],
          sets: dict[str, list[trimesh.Trimesh]]) -> str:
    """Markdown: sets of heads, and the real heads learned from, against real held-out heads."""
    all_learned = metrics.clouds(learned, seed=1)
    clouds = {"held out": metrics.clouds(held_out), "learned from": all_learned[:len(held_out)]}
    clouds |= {name: metrics.clouds(meshes, seed) for seed, (name, meshes) in enumerate(sets.items(), 2)}
    real = clouds["held out"]
    among_real = metrics.chamfer(real, real)
    real_to_learned = metrics.chamfer(real, all_learned)
    lines = ["| heads | MMD, mm | coverage | 1-NNA | spread, mm | nearest learned head, mm | copies |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, points in tqdm(clouds.items(), desc="comparing", unit="set"):
        within = among_real if name == "held out" else metrics.chamfer(points, points)
        row = [name, "", "", "", f"{metrics.spread(within):.2f}", "", ""]
        if name != "held out":
            figures = metrics.compare(within, metrics.chamfer(points, real), among_real)
            row[1:4] = f"{figures.mmd_mm:.2f}", f"{figures.coverage:.2f}", f"{figures.one_nna:.2f}"
        if name != "learned from":
            to_learned = real_to_learned if name == "held out" else metrics.chamfer(points, all_learned)
            copies = metrics.copies(to_learned, real_to_learned)
            row[5:] = f"{to_learned.min(1).mean():.2f}", f"{copies:.2f}"
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", EXPLANATION])
