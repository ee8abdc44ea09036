"""Shapes whose answers are known, settings small enough for tests, and ways to run the command line."""

import contextlib
import importlib
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import igl
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from hyperdiffusion import NoiseSchedule, TrainingConfig, TransformerConfig, train
from overfit import FitConfig, LabelConfig, Machine, OverfitConfig
from overfit.canonical.align import AlignmentConfig
from overfit.canonical.neck import cut_neck
from overfit.canonical.shape_model import ShapeModel
from overfit.geometry.rays import ray_intersector
from overfit.geometry.similarity import Similarity
from overfit.scans.depth_capture import DepthFrame

# Where real data lies beside a checkout; tests that read it skip where it is absent.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Without repair: fits this short have hundreds of strays. Without alignment: an ellipsoid has no face to align.
SMALL = OverfitConfig(
    alignment=AlignmentConfig(align="none"),
    repair=False,
    check_resolution=32,
    max_error_mm=20.0,
    labels=LabelConfig(near_points=6000, band_points=2000, uniform_points=2000),
    fit=FitConfig(steps=60, first_steps=200, points_per_step=512),
)
ONE_THREAD = Machine(device="cpu", threads=1)
TINY = TrainingConfig(
    coordinates="pca",
    transformer=TransformerConfig(width=32, depth=1, attention_heads=2, dropout=0.0),
    # As much noise as in 500 timesteps.
    noise_schedule=NoiseSchedule(timesteps=50, beta_end=0.2),
    steps=30,
    batch_size=8,
    save_every=0.0,
)


class Killed(Exception):
    """Stands for a kill."""


def train_until_killed(store: Path, path: Path, config: TrainingConfig, machine: Machine, **options) -> None:
    """Train until a kill at step 17. The state is on disk, saved whatever share of the time that took."""
    trainer = importlib.import_module("hyperdiffusion.diffusion.trainer").Trainer
    step = trainer.step

    def killed(self):
        if self.state.step == 17:
            raise Killed
        return step(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer, "step", killed)
        patch.setattr(importlib.import_module("overfit.runtime.throttle"), "SHARE", float("inf"))
        train(store, path, config=config, machine=machine, **options)
    assert not path.exists() and path.with_name(path.name + ".state").exists()


def ellipsoid(radii, subdivisions: int = 3) -> trimesh.Trimesh:
    """An ellipsoid of a head's size, in millimetres."""
    mesh = trimesh.creation.icosphere(subdivisions)
    return trimesh.Trimesh(mesh.vertices * radii, mesh.faces, process=False)


def random_head(seed: int, *, pose: Similarity = Similarity()) -> trimesh.Trimesh:
    """A head of random shape in millimetres, closed below by a plane through its neck."""
    model = ShapeModel.standard()
    shape = np.random.default_rng(seed).standard_normal(len(model.modes))
    mesh = head_part(model, pose(model.vertices(shape, np.zeros((model.offsets.shape[1], 3)))))
    # The shape bends the template's own cut, which lies just below the plane.
    cut = np.setdiff1d(np.arange(model.head_size), model.matched)
    return cut_neck(mesh, mesh.vertices[cut, 1].max() + 1)


def head_part(model: ShapeModel, vertices: np.ndarray) -> trimesh.Trimesh:
    """The closed head of a template's vertices, without shoulders."""
    faces = model.mesh.faces[(model.mesh.faces < model.head_size).all(1)]
    return trimesh.Trimesh(vertices[: model.head_size], faces, process=False)


@dataclass(frozen=True)
class Completed:
    """A command of the command line that ran in this process."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that bad input ends in."""
        assert self.returncode == 2, self.stderr
        assert "Traceback" not in self.stderr
        return self.stderr.strip().splitlines()[-1]


def run_cli(*words, threads: int | None = 1) -> Completed:
    """Run a command of the command line in this process."""
    from hyperdiffusion.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    arguments = [*map(str, words), *(["--threads", str(threads)] if threads else [])]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return Completed(code, out.getvalue(), err.getvalue())


def run_process(*words, threads: int | None = 1, **options) -> subprocess.CompletedProcess:
    """Run a command of the command line in a process of its own."""
    return subprocess.run(command(*words, threads=threads), capture_output=True, text=True, **options)


def command(*words, threads: int | None = 1) -> list[str]:
    """The command line of a command, for a process of its own."""
    return [sys.executable, "-m", "hyperdiffusion", *map(str, words), *(["--threads", str(threads)] if threads else [])]


def bumpy_ellipsoid(random: np.random.Generator) -> trimesh.Trimesh:
    """An ellipsoid of random radii, in millimetres, with two bumps for eyes: a head for evaluation."""
    mesh = ellipsoid(random.uniform((60, 80, 70), (100, 140, 120)), 4)
    for side in (-1, 1):
        offset = np.linalg.norm(mesh.vertices - [side * 30, 30, mesh.vertices[:, 2].max() - 12], axis=1)
        mesh.vertices += 5 * np.exp(-((offset / 9) ** 2))[:, None] * [0, 0, 1]
    return mesh


def jitter(mesh: trimesh.Trimesh, noise_mm: float, random: np.random.Generator) -> trimesh.Trimesh:
    """The mesh with normally distributed noise on its vertices."""
    noise = noise_mm * random.standard_normal(mesh.vertices.shape)
    return trimesh.Trimesh(mesh.vertices + noise, mesh.faces, process=False)


def nearest_on(mesh: trimesh.Trimesh, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n,) of points (n, 3) to a mesh, and the nearest triangles (n,)."""
    squared, triangles, _ = igl.point_mesh_squared_distance(points, mesh.vertices, mesh.faces)
    return np.sqrt(squared), triangles


def photograph(
    head: trimesh.Trimesh, *, yaw: float = 0.0, roll: float = 0.0, noise: float = 0.0
) -> tuple[DepthFrame, np.ndarray]:
    """A depth frame of 120 x 160 pixels, from 40 cm and `yaw` degrees beside the face, and the camera's pose (4, 4).

    The pose leads from the camera to the head, in millimetres. `roll` is how the phone is turned in the hand, in
    degrees, and `noise` a standard deviation of the depth, in metres.
    """
    height, width, focal, away_mm = 120, 160, 180.0, 400
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("YZ", [yaw, roll], degrees=True).as_matrix()
    pose[:3, 3] = pose[:3, :3] @ [0, 0, away_mm]
    rows, columns = np.indices((height, width))
    rays = np.stack([(columns - width / 2) / focal, -(rows - height / 2) / focal, -np.ones((height, width))], axis=-1)
    directions = rays.reshape(-1, 3) @ pose[:3, :3].T
    origins = np.tile(pose[:3, 3], (len(directions), 1))
    hits, ray, _ = ray_intersector(head).intersects_location(origins, directions, multiple_hits=False)
    depth = np.full(height * width, 9999.0)
    depth[ray] = -((hits - pose[:3, 3]) @ pose[:3, :3])[:, 2] / 1000
    depth[ray] += np.random.default_rng(0).normal(scale=noise, size=len(ray))
    return DepthFrame(depth.reshape(height, width), fx=focal, fy=focal, cx=width / 2, cy=height / 2), pose
