"""Generators of heads side by side: the same training heads, the same training time and the same evaluation for all.

    python benchmarks/compare_generators.py STORE SCANS TEST OUT --minutes 5
    python benchmarks/compare_generators.py STORE SCANS TEST OUT --methods ours training_fits --count 64

STORE holds fits of SCANS at the default settings; TEST holds other heads. Trained models, samples and metrics are kept
in OUT: a second call with the same settings reads them. Delete a method's files to run it again. Prints a table and
writes it with a picture of each method's first heads. `hyperdiffusion_paper`, the published model in full size, runs by
default only if there is a GPU.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import trimesh
import tyro
from baselines import auto_decoder, gaussians, head_space, point_diffusion, voxel_diffusion
from columns import GENERATORS
from results_io import BenchmarkOptions, metric_values, publish, run_benchmark
from safetensors.torch import load_file, save_file

from hyperdiffusion import (
    PRESETS,
    Checkpoint,
    EvaluationConfig,
    ReferenceHeads,
    SamplingConfig,
    TrainingConfig,
    TransformerConfig,
    evaluate_meshes,
    evaluate_point_clouds,
    sample,
    train,
    write_contact_sheet,
)
from overfit import (
    BadInput,
    Cube,
    DecodeConfig,
    Fits,
    HeadSpace,
    RunContext,
    Scan,
    Store,
    decode_to_folder,
    find_scans,
    read_prepared,
)

# Numbers of principal components that Gaussians are tried on; the last takes all.
RANKS = (10, 20, 40, 80, 160, 10_000)
# Grids of the voxel diffusion.
SIDES = (24, 32)
# Heads of each method in the picture.
SHOWN = 8
# Steps of the two trials that measure how long a step takes.
TRIAL_STEPS = (10, 60)
# A training has at least this many steps, whatever the time allows.
MIN_STEPS = 50
# Radius of a point in pictures of point clouds.
POINT_RADIUS_MM = 2.0
# Standard deviation of the noise added to fits, relative to the standard deviation of the weights.
NOISE_SHARE = 0.1
# DDIM steps of the published method.
PUBLISHED_STEPS = 500
# Denoiser of the published method that trains in minutes on CPU.
SMALL_TRANSFORMER = TransformerConfig(dropout=0.0)

Meshes = list[trimesh.Trimesh | None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """Which generators are compared, and how."""

    store: tyro.conf.Positional[Path]
    """Store of the fits of the training scans."""

    scans: tyro.conf.Positional[Path]
    """Folder of the training scans."""

    test: tyro.conf.Positional[Path]
    """Folder of the test heads."""

    out: tyro.conf.Positional[Path]
    """Folder for models, samples, metrics and the picture."""

    methods: tuple[str, ...] = ()
    """Methods to compare; all if none is given, see METHODS at the end of this script."""

    minutes: float = 5.0
    """Training time of each baseline. Ours stops by itself."""

    count: int = 256
    """Samples of each method, and test heads."""

    resolution: int = 128
    """Grid on which samples are decoded."""

    training: TrainingConfig = TrainingConfig()
    """Training of our model."""

    evaluation: EvaluationConfig = EvaluationConfig(emd_heads=0, standardised=False)
    """How samples are compared with the test heads."""


@dataclass(frozen=True)
class Task:
    """What every method gets."""

    config: BenchmarkConfig
    fits: Fits
    scans: list[Scan]
    context: RunContext

    @property
    def seconds(self) -> float:
        """Training time of a baseline."""
        return 60 * self.config.minutes

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.config.count

    @cached_property
    def cube(self) -> Cube:
        """The cube of baselines whose heads are not warped."""
        return head_space.cube_of(self.fits)

    @property
    def out(self) -> Path:
        """Folder for everything that is kept."""
        return self.config.out

    def decoded(
        self, name: str, parameters: Iterable[torch.Tensor], *, space: HeadSpace | None = None, repair: bool = False
    ) -> Meshes:
        """Return the meshes of parameters with all their components, None for each without a surface."""
        heads = [(f"{index:04d}", (space or self.fits.space).head(row)) for index, row in enumerate(parameters)]
        config = DecodeConfig(self.config.resolution, keep_all_components=True)
        decoded = decode_to_folder(heads, self.out / name, config=config, repair=repair, context=self.context)
        return [head.mesh for head in decoded]


def ours(task: Task) -> Meshes:
    """Our method at the default settings, which stops by itself and repairs its samples."""
    # A finished checkpoint is read.
    checkpoint = train(
        task.config.store, task.out / "ours.safetensors", config=task.config.training, machine=task.config.machine
    )
    return task.decoded("ours", sample(checkpoint, task.count), repair=True)


def gaussian_latent(task: Task) -> Meshes:
    """A Gaussian on our latent codes, without mixture and transformer. It needs the checkpoint of `ours`."""
    coordinates = Checkpoint.load(task.out / "ours.safetensors").coordinates
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(task.count, coordinates.size, generator=generator)
    return task.decoded("gaussian_latent", coordinates.decode(drawn))


def hyperdiffusion(task: Task) -> Meshes:
    """The published method with a denoiser that is small enough for the time."""
    return _published(task, "hyperdiffusion", SMALL_TRANSFORMER)


def hyperdiffusion_paper(task: Task) -> Meshes:
    """The published method with the published denoiser of 1.4 billion parameters."""
    return _published(task, "hyperdiffusion_paper", PRESETS["paper"].transformer)


def _published(task: Task, name: str, transformer: TransformerConfig) -> Meshes:
    checkpoint = _trained_for_time(task, name, replace(PRESETS["paper"], transformer=transformer, epochs=0))
    return task.decoded(name, sample(checkpoint, task.count, config=SamplingConfig("ddim", PUBLISHED_STEPS)))


def scaled_weights(task: Task) -> Meshes:
    """Diffusion on weights of one common scale, with our optimizer and moving average."""
    config = TrainingConfig("scaled", transformer=SMALL_TRANSFORMER, val_fraction=0.0)
    return task.decoded("scaled_weights", sample(_trained_for_time(task, "scaled_weights", config), task.count))


def gaussian_weights(rank: int) -> Callable[[Task], Meshes]:
    """A Gaussian on principal components of the weights."""

    def draw(task: Task) -> Meshes:
        parameters = gaussians.gaussian_weights(task.fits, rank=rank, count=task.count)
        return task.decoded(f"gaussian_weights_{rank}", parameters)

    return draw


def gaussian_vertices(task: Task) -> Meshes:
    """A Gaussian on principal components of the vertices, for scans in correspondence."""
    meshes = [trimesh.load_mesh(scan.path, process=False) for scan in task.scans]
    return list(gaussians.gaussian_vertices(meshes, count=task.count))


def auto_decoder_diffusion(task: Task) -> Meshes:
    """An auto-decoder with a diffusion on its codes."""
    return task.decoded("auto_decoder", _auto_decoder_weights(task)["diffusion"], space=_auto_decoder_space(task))


def auto_decoder_gaussian(task: Task) -> Meshes:
    """The same auto-decoder with a Gaussian on its codes."""
    weights = _auto_decoder_weights(task)["gaussian"]
    return task.decoded("auto_decoder_gaussian", weights, space=_auto_decoder_space(task))


def _auto_decoder_space(task: Task) -> HeadSpace:
    return HeadSpace(auto_decoder.FIELD, task.cube)


def _auto_decoder_weights(task: Task) -> dict[str, torch.Tensor]:
    """Weights of samples of both; one training serves both."""
    path = task.out / "auto_decoder.safetensors"
    if not path.exists():
        samples = auto_decoder.auto_decoder_samples(
            task.fits, task.cube, seconds=task.seconds, count=task.count, context=task.context
        )
        save_file(samples, path)
    return load_file(path)


def voxels(side: int) -> Callable[[Task], Meshes]:
    """Diffusion of voxels with a given number along a side."""

    def draw(task: Task) -> Meshes:
        grids = voxel_diffusion.voxel_samples(task.fits, task.cube, side=side, seconds=task.seconds, count=task.count)
        return [voxel_diffusion.mesh_of_grid(grid, task.cube) for grid in grids]

    return draw


def point_cloud(task: Task) -> np.ndarray:
    """Diffusion of point clouds, evaluated as such: surfaces through so few points are 10 to 20 mm off."""
    meshes = _read(task.scans)
    points = task.config.evaluation.points
    clouds = point_diffusion.point_cloud_samples(meshes, points=points, seconds=task.seconds, count=task.count)
    return clouds.double().numpy()


def noisy_fits(task: Task) -> Meshes:
    """Training fits plus noise on their weights: copies, which metrics of fidelity take for good samples."""
    generator, space, weights = torch.Generator().manual_seed(0), task.fits.space, task.fits.weights
    chosen = task.fits.parameters[torch.randperm(len(weights), generator=generator)[: task.count]]
    std = (weights - weights.mean(0)).square().mean().sqrt()
    noise = NOISE_SHARE * std * torch.randn(len(chosen), space.field.size, generator=generator)
    noisy = torch.cat([space.warp_parameters(chosen), space.weights(chosen) + noise], dim=1)
    return task.decoded("noisy_fits", noisy)


def training_fits(task: Task) -> Meshes:
    """The fits of the training heads."""
    return task.decoded("training_fits", task.fits.parameters[: task.count])


def training_scans(task: Task) -> Meshes:
    """The scans of the training heads."""
    return list(_read(task.scans[: task.count]))


METHODS: dict[str, tuple[str, Callable[[Task], Meshes | np.ndarray]]] = {
    "training_scans": ("training scans", training_scans),
    "training_fits": ("training fits", training_fits),
    "ours": ("ours", ours),
    "gaussian_latent": ("Gaussian on latent codes", gaussian_latent),
    "hyperdiffusion": ("HyperDiffusion (published scaling)", hyperdiffusion),
    "hyperdiffusion_paper": ("HyperDiffusion (published model)", hyperdiffusion_paper),
    "scaled_weights": ("diffusion on scaled weights", scaled_weights),
    **{
        f"gaussian_weights_{rank}": (f"Gaussian on PCA of weights ({rank} components)", gaussian_weights(rank))
        for rank in RANKS
    },
    "gaussian_vertices": ("Gaussian on PCA of vertices (3DMM)", gaussian_vertices),
    "auto_decoder": ("auto-decoder + diffusion", auto_decoder_diffusion),
    "auto_decoder_gaussian": ("auto-decoder + Gaussian", auto_decoder_gaussian),
    "point_cloud": ("point-cloud diffusion", point_cloud),
    **{f"voxels_{side}": (f"voxel diffusion, {side}³", voxels(side)) for side in SIDES},
    "noisy_fits": ("training fits + noise", noisy_fits),
}


def main(config: BenchmarkConfig) -> None:
    """Run the methods and compare their samples."""
    config = replace(config, methods=_chosen_methods(config))
    config.out.mkdir(parents=True, exist_ok=True)
    _refuse_other_settings(config)
    context = config.machine.start()
    task = Task(config, Store(config.store).read(), find_scans(config.scans), context)
    test = _read(find_scans(config.test)[: config.count])
    reference = ReferenceHeads.of(test, _read(task.scans), config=config.evaluation, context=context)
    rows = [{"set": "test scans", **metric_values(reference.metrics(context=context))}]
    pictured = [("test scans", test[:SHOWN])]
    for name in config.methods:
        rows.append(_kept_row(task, name, reference))
        pictured.append((METHODS[name][0], _pictured_heads(task, name)))
    write_contact_sheet([row for row in pictured if row[1]], config.out / "methods.png")
    publish("compare_generators", GENERATORS, rows, config)


def _chosen_methods(config: BenchmarkConfig) -> tuple[str, ...]:
    unknown = set(config.methods) - set(METHODS)
    if unknown:
        raise BadInput(f"`methods={' '.join(sorted(unknown))}`: unknown; choose from {', '.join(METHODS)}")
    return config.methods or tuple(
        name for name in METHODS if name != "hyperdiffusion_paper" or torch.cuda.is_available()
    )


def _refuse_other_settings(config: BenchmarkConfig) -> None:
    """Rows of different settings must not be mixed in one folder. Raises BadInput."""
    settings = {
        "store": str(config.store.resolve()),
        "scans": str(config.scans.resolve()),
        "test": str(config.test.resolve()),
        "minutes": config.minutes,
        "count": config.count,
        "resolution": config.resolution,
        "training": asdict(config.training),
        "evaluation": asdict(config.evaluation),
    }
    path = config.out / "settings.json"
    # As read from JSON, where tuples are lists.
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        path.write_text(json.dumps(settings, indent=1))
    kept = json.loads(path.read_text())
    for name, value in settings.items():
        if kept[name] != value:
            raise BadInput(f"{config.out}: was made with {name} {kept[name]}, not {value}; give another folder")


def _kept_row(task: Task, name: str, reference: ReferenceHeads) -> dict:
    """Return a method's row: from OUT if it was run before."""
    path = task.out / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(_run(task, name, reference), indent=1, ensure_ascii=False))
    return json.loads(path.read_text())


def _run(task: Task, name: str, reference: ReferenceHeads) -> dict:
    label, method = METHODS[name]
    start = time.monotonic()
    heads = method(task)
    seconds = time.monotonic() - start
    if isinstance(heads, np.ndarray):
        np.save(task.out / f"{name}.npy", heads[:SHOWN], allow_pickle=False)
        metrics = evaluate_point_clouds(heads, reference, name=label, context=task.context)
    else:
        _keep_pictured(task.out / name, heads)
        measures_novelty = name != "training_scans"
        metrics = evaluate_meshes(heads, reference, name=label, measure_novelty=measures_novelty, context=task.context)
    steps = _read_steps(task, name)
    return {"set": label, "training": f"{seconds:.0f} s", "steps": steps, **metric_values(metrics)}


def _keep_pictured(folder: Path, heads: Meshes) -> None:
    folder.mkdir(exist_ok=True)
    for index, mesh in enumerate([mesh for mesh in heads if mesh is not None][:SHOWN]):
        mesh.export(folder / f"shown_{index}.ply")


def _pictured_heads(task: Task, name: str) -> list[trimesh.Trimesh]:
    clouds = task.out / f"{name}.npy"
    if clouds.exists():
        return [_points_as_mesh(cloud) for cloud in np.load(clouds, allow_pickle=False)]
    return [trimesh.load_mesh(path, process=False) for path in sorted((task.out / name).glob("shown_*.ply"))]


def _points_as_mesh(cloud: np.ndarray) -> trimesh.Trimesh:
    """Return points (n, 3) as small icosahedra, for a picture."""
    ball = trimesh.creation.icosahedron()
    ball.apply_scale(POINT_RADIUS_MM)
    triangles = ball.faces + len(ball.vertices) * np.arange(len(cloud))[:, None, None]
    return trimesh.Trimesh((cloud[:, None] + ball.vertices).reshape(-1, 3), triangles.reshape(-1, 3), process=False)


def _trained_for_time(task: Task, name: str, config: TrainingConfig) -> Checkpoint:
    """Return a checkpoint trained for as many steps as the time allows."""
    path = task.out / f"{name}.safetensors"
    if _read_steps(task, name) is None:
        _steps_file(task, name).write_text(json.dumps(_affordable_steps(task, config)))
    steps = _read_steps(task, name)
    assert steps is not None
    return train(
        task.config.store, path, config=replace(config, steps=steps), machine=task.config.machine, compile=_compiles()
    )


def _affordable_steps(task: Task, config: TrainingConfig) -> int:
    """Return the steps that the time allows, by two short trainings: what precedes the first step is in both."""
    seconds = []
    for steps in TRIAL_STEPS:
        with TemporaryDirectory() as folder:
            start = time.monotonic()
            trial = replace(config, steps=steps)
            train(
                task.config.store,
                Path(folder) / "trial.safetensors",
                config=trial,
                machine=task.config.machine,
                compile=_compiles(),
            )
            seconds.append(time.monotonic() - start)
    few, more = seconds
    per_step = max(more - few, 1e-3) / (TRIAL_STEPS[1] - TRIAL_STEPS[0])
    return max(MIN_STEPS, int((task.seconds - few) / per_step))


def _compiles() -> bool:
    """Whether steps are compiled: on a GPU they then take half as long, on CPU as long as without."""
    return torch.cuda.is_available()


def _steps_file(task: Task, name: str) -> Path:
    return task.out / f"{name}.steps.json"


def _read_steps(task: Task, name: str) -> int | None:
    path = _steps_file(task, name)
    return json.loads(path.read_text()) if path.exists() else None


def _read(scans: Iterable[Scan]) -> list[trimesh.Trimesh]:
    return [read_prepared(scan).mesh for scan in scans]


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
