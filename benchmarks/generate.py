"""Generators of heads side by side: the same heads, the same budget, the same evaluation.

    python benchmarks/generate.py STORE SCANS HELD_OUT OUT --minutes 5 [--methods ours gaussian ...] [--count 256]

STORE holds fits of SCANS at the default settings; HELD_OUT are other heads. Models, what rivals drew and the rows of
the table are kept in OUT, where a second call of the same settings finds them: delete a file there to make it anew.
Prints the table and writes it with a picture of each method's first heads. `paper`, the published model whole, runs by
itself only where there is a GPU.
"""

import argparse
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import rival_codes
import rival_points
import rival_voxels
import torch
import trimesh

from hyperdiffusion import Checkpoint, Sampling, Shape, Training, sample, train
from hyperdiffusion.evaluate import Effort, Evaluated, Real, evaluate, evaluate_clouds
from hyperdiffusion.learner import split
from hyperdiffusion.presets import PRESETS
from hyperdiffusion.render import sheet
from hyperdiffusion.report import table
from hyperdiffusion.sample import write_meshes
from hyperdiffusion.tokens import Tokens
from overfit import Field, Machine, Store
from overfit.files import replacing
from overfit.scans import Scan, find, read
from overfit.store import Fits

# Numbers of principal components that Gaussians are tried on.
RANKS = (10, 20, 40, 80, 160, 10_000)
GRID, SHOWN = 128, 8
# Steps of the two trials that tell how long a step takes.
TRIAL = 10, 60
# Half the size of a point of a cloud in a picture.
BEAD_MM = 2.0
MACHINE = Machine()
# On a GPU the published models' steps take half as long as machine code; on CPU as long as without.
COMPILED = torch.cuda.is_available()
Made = TypeVar("Made")


@dataclass(frozen=True)
class Task:
    """What every method gets."""

    store: Path
    fits: Fits
    scans: list[Scan]
    out: Path
    seconds: float
    count: int

    @property
    def learned(self) -> torch.Tensor:
        """Weights that methods without a judge learn from: all."""
        return self.fits.weights


def decoded(task: Task, name: str, weights: torch.Tensor, field: Field | None = None, heal: bool = False,
            ) -> list[trimesh.Trimesh | None]:
    """Meshes of weights, islands kept, and None for those that hold no surface."""
    named = [(f"{index:04d}", row) for index, row in enumerate(weights)]
    return write_meshes(named, field or task.fits.field, task.fits.cube, task.out / name, GRID, keep_islands=True,
                        cores=MACHINE.cores, heal=heal)[0]


def trained(task: Task, name: str, training: Training) -> Checkpoint:
    """A model trained for the budget: as many steps as fit into it."""
    path = task.out / f"{name}.safetensors"
    if path.exists():
        return Checkpoint.load(path, MACHINE.torch_device)
    training = replace(training, steps=kept(task, f"{name}.steps", partial(affordable, task, training)))
    start = time.monotonic()
    model = train(task.store, path, training, MACHINE, compile=COMPILED)
    speed = training.steps * training.batch / (time.monotonic() - start)
    print(f"{name}: {training.steps} steps, {speed:.0f} heads a second{gpu_memory()}", flush=True)
    return model


def affordable(task: Task, training: Training) -> int:
    """How many steps the budget pays for, by two short trainings: what comes before the first step is in both."""
    seconds = []
    for steps in TRIAL:
        with TemporaryDirectory() as folder:
            start = time.monotonic()
            train(task.store, Path(folder) / "trial.safetensors", replace(training, steps=steps), MACHINE,
                  compile=COMPILED)
            seconds.append(time.monotonic() - start)
    few, more = seconds
    step = max(more - few, 1e-3) / (TRIAL[1] - TRIAL[0])
    return max(50, int((task.seconds - few) / step))


def gpu_memory() -> str:
    """Words on the most that a GPU had to hold; none without one."""
    return f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""


def ours(task: Task) -> list:
    """The default settings, which end by themselves, and heal what they draw."""
    path = task.out / "ours.safetensors"
    # One that is there and finished is read.
    model = train(task.store, path, Training(), MACHINE)
    return decoded(task, "ours", sample(model, task.count), heal=True)


def ours_gaussian(task: Task) -> list:
    """Ours without its transformer: a Gaussian in the learned subspace."""
    tokens = Checkpoint.load(task.out / "ours.safetensors").tokens
    random = torch.Generator().manual_seed(0)
    return decoded(task, "ours_gaussian", tokens.decode(torch.randn(task.count, tokens.size, generator=random)))


def published(name: str, shape: Shape) -> Callable[[Task], list]:
    """The published preset with a denoiser of that size; DDIM over all steps."""

    def made(task: Task) -> list:
        model = trained(task, name, replace(PRESETS["paper"], shape=shape, epochs=0))
        return decoded(task, name, sample(model, task.count, sampling=Sampling("ddim", 500)))

    return made


def one_scale(task: Task) -> list:
    """The same at one scale for all weights, with our optimiser and moving average."""
    model = trained(task, "one_scale", Training("scaled", shape=Shape(dropout=0.0), held_out=0.0))
    return decoded(task, "one_scale", sample(model, task.count))


def gaussian(rank: int) -> Callable[[Task], list]:
    """A Gaussian on so many principal components of the weights."""

    def made(task: Task) -> list:
        tokens = Tokens.of(task.learned, task.fits.field.sizes)
        drawn = torch.randn(task.count, tokens.size, generator=torch.Generator().manual_seed(0))
        drawn[:, rank:] = 0
        return decoded(task, f"gaussian_{rank}", tokens.decode(drawn))

    return made


def vertices(task: Task) -> list:
    """A Gaussian on the principal components of vertices: the classic 3DMM. It has correspondences, we have none."""
    meshes = [trimesh.load_mesh(scan.path, process=False) for scan in task.scans]
    if len({mesh.vertices.shape for mesh in meshes}) > 1:
        raise SystemExit("vertices: the scans are not in correspondence; leave this method out")
    scale = 250 / np.median([np.ptp(mesh.vertices, axis=0).max() for mesh in meshes])
    factor = min((1.0, 10.0, 1000.0), key=lambda unit: abs(np.log(unit / scale)))
    data = factor * np.stack([mesh.vertices.ravel() for mesh in meshes])
    mean = data.mean(0)
    _, singular, rows = np.linalg.svd(data - mean, full_matrices=False)
    drawn = np.random.default_rng(0).standard_normal((task.count, len(rows))) * singular / len(data) ** 0.5
    return [trimesh.Trimesh((mean + row @ rows).reshape(-1, 3), meshes[0].faces, process=False) for row in drawn]


def kept(task: Task, name: str, make: Callable[[], Made]) -> Made:
    """What was made, so that a second call need not make it again."""
    path = task.out / f"{name}.pickle"
    if path.exists():
        with path.open("rb") as file:
            return pickle.load(file)
    made = make()
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        pickle.dump(made, file)
    return made


def voxels(side: int) -> Callable[[Task], list]:
    """Diffusion of voxels, so many along a side."""

    def made(task: Task) -> list:
        grids = kept(task, f"voxels_{side}", lambda: rival_voxels.voxels(task.fits, side, task.seconds, task.count))
        return [rival_voxels.meshed(grid, task.fits.cube) for grid in grids]

    return made


def points(task: Task) -> np.ndarray:
    """Diffusion of point clouds, evaluated as they are: surfaces through so few points are 10 to 20 mm off."""

    def draw() -> torch.Tensor:
        return rival_points.points([read(scan) for scan in task.scans], task.seconds, task.count)

    return kept(task, "points", draw).double().numpy()


def beaded(cloud: np.ndarray) -> trimesh.Trimesh:
    """A cloud (n, 3) as small icosahedra, for a picture."""
    bead = trimesh.creation.icosahedron()
    bead.apply_scale(BEAD_MM)
    triangles = bead.faces + len(bead.vertices) * np.arange(len(cloud))[:, None, None]
    return trimesh.Trimesh((cloud[:, None] + bead.vertices).reshape(-1, 3), triangles.reshape(-1, 3), process=False)


def codes(which: str) -> Callable[[Task], list]:
    """An auto-decoder with a diffusion or a Gaussian on its codes; one training serves both."""

    def draw(task: Task) -> dict[str, torch.Tensor]:
        return dict(zip(("codes", "codes_gaussian"),
                        rival_codes.codes(task.fits, task.seconds, task.count, MACHINE.cores)))

    def made(task: Task) -> list:
        return decoded(task, which, kept(task, "codes", lambda: draw(task))[which], rival_codes.FIELD)

    return made


def noise(task: Task) -> list:
    """Fitted weights plus noise of a tenth of what they vary by."""
    random = torch.Generator().manual_seed(0)
    chosen = task.learned[torch.randperm(len(task.learned), generator=random)[:task.count]]
    deviation = (task.learned - task.learned.mean(0)).square().mean().sqrt()
    return decoded(task, "noise", chosen + 0.1 * deviation * torch.randn(chosen.shape, generator=random))


def learned(task: Task) -> list:
    """The scans learned from themselves: real heads."""
    return [read(scan) for scan in task.scans[:task.count]]


def copies(task: Task) -> list:
    """The fits of the heads learned from themselves."""
    order = split(len(task.learned), Training())[1]
    return decoded(task, "copies", task.learned[order[:task.count]])


METHODS: dict[str, Callable[[Task], list | np.ndarray]] = {
    # A denoiser that is small enough for the budget, and the published one of 1.4 billion parameters, for a GPU.
    "ours": ours, "ours_gaussian": ours_gaussian, "published": published("published", Shape(dropout=0.0)),
    "paper": published("paper", PRESETS["paper"].shape), "one_scale": one_scale,
    **{f"gaussian_{rank}": gaussian(rank) for rank in RANKS}, "vertices": vertices, "voxels_24": voxels(24),
    "voxels_32": voxels(32), "points": points, "codes": codes("codes"), "codes_gaussian": codes("codes_gaussian"),
    "noise": noise, "copies": copies, "learned": learned}


def real_heads(task: Task, held_out: Path, effort: Effort) -> tuple[Real, Evaluated]:
    """The real heads, and their own column of the table."""
    real = Real.of([read(scan) for scan in find(held_out)][:task.count], [read(scan) for scan in task.scans], effort,
                   MACHINE.cores)
    return real, real.row(MACHINE.cores)


def judged(task: Task, name: str, real: Real, effort: Effort) -> tuple[Evaluated, list[trimesh.Trimesh]]:
    """A method's column of the table, and the heads of it that are shown."""
    start = time.monotonic()
    made = METHODS[name](task)
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    if isinstance(made, np.ndarray):
        return evaluate_clouds(name, made, real, effort, MACHINE.cores), [beaded(cloud) for cloud in made[:SHOWN]]
    found = evaluate(name, made, real, effort, MACHINE.cores, is_learned=name == "learned")
    return found, [mesh for mesh in made if mesh is not None][:SHOWN]


def held_to(task: Task, settings: dict) -> None:
    """Refuse to mix rows of other settings with those in OUT."""
    for name, theirs in kept(task, "settings", lambda: settings).items():
        if settings[name] != theirs:
            raise SystemExit(f"{task.out}: was made with {name} {theirs}, not {settings[name]}; give another OUT")


def main() -> None:
    """Run the methods that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("store", "scans", "held_out", "out"):
        # However it is spelled, a second call must know it again.
        parser.add_argument(name, type=lambda word: Path(word).resolve())
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--emd-heads", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS),
                        default=[name for name in METHODS if name != "paper" or torch.cuda.is_available()])
    words = parser.parse_args()
    MACHINE.use()
    words.out.mkdir(parents=True, exist_ok=True)
    task = Task(words.store, Store(words.store).read(), find(words.scans), words.out, 60 * words.minutes, words.count)
    held_to(task, {name: value for name, value in vars(words).items() if name not in ("out", "methods")})
    effort = Effort(emd_heads=words.emd_heads, standardised=False)
    real, row = kept(task, "real", partial(real_heads, task, words.held_out, effort))
    sets, shown = {"held out": row}, [("held out", real.meshes[:SHOWN])]
    for name in words.methods:
        sets[name], heads = kept(task, f"{name}.row", partial(judged, task, name, real, effort))
        shown.append((name, heads))
        (words.out / "table.md").write_text(table(sets))
    sheet([row for row in shown if row[1]], words.out / "methods.png")
    print(table(sets))


if __name__ == "__main__":
    main()
