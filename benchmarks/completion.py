"""How well partial scans are completed: test heads with parts cut away, against the mean head and a Gaussian.

    python benchmarks/completion.py CHECKPOINT STORE TEST OUT

Of each test head of TEST, points of a part are given, with noise: the front half, the face, all but random holes, or
what one depth camera sees. The others are the truth. Peers: the mean head, aligned to the seen points; and a Gaussian
of registered vertices, conditioned on the true vertices that are seen (Lüthi et al. 2018), which has correspondences
and the true pose. It is learned from the fits of STORE, which the checkpoint was trained on.

Calibration: at each point of the true surface that is not seen, the signed distances to 19 draws are from the smallest
to the largest a 90 % interval of nominal coverage, which should contain 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import igl
import numpy as np
import torch
import trimesh
import tyro
from columns import COMPLETION
from jaxtyping import Bool, Float
from results_io import BenchmarkOptions, kept_row, publish, run_benchmark
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

from hyperdiffusion import Checkpoint, CompletionConfig, complete
from hyperdiffusion.completion.linear_heads import LinearHeads
from hyperdiffusion.completion.posterior import find_pose
from overfit import DecodeConfig, Store, decode, find_scans, igl_arrays, read_prepared, run_tasks_in_order
from overfit.canonical.dense_registration import register_dense
from overfit.canonical.neck import without_neck_cut
from overfit.canonical.shape_model import ShapeModel
from overfit.geometry.point_cloud import PointCloud
from overfit.geometry.rays import ray_intersector

# Points of a whole head, and those of the unseen part at which errors are measured.
POINTS = 60_000
MEASURED = 2000
NOISE_MM = 0.3
# Points this close above the neck's cut belong to it.
NECK_MM = 3.0
HOLES_SHARE, HOLE_RADIUS_MM = 0.3, 25.0
CAMERA_MM = 400.0
# The face: the front of the head, and not its sides.
FACE_SHARE, FACE_WIDTH_MM, FACING = 0.4, 60.0, 0.2
# A template vertex is seen if a seen point is this close.
VERTEX_MM = 3.0
# Principal components of the peer's Gaussian, and standard deviations of its observations that are tried: the best
# counts.
COMPONENTS = 200
STDS_MM = (0.3, 1.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """The model, the heads, and how many."""

    checkpoint: tyro.conf.Positional[Path]
    """A model of warped heads."""

    store: tyro.conf.Positional[Path]
    """Store of the heads that it was trained on."""

    test: tyro.conf.Positional[Path]
    """Folder of test heads."""

    out: tyro.conf.Positional[Path]
    """Folder for what was measured; the same command resumes."""

    count: int = 12
    """Test heads."""

    parts: tuple[str, ...] = ("front half", "face", "holes", "depth camera")
    """What is seen of each."""

    resolution: int = 192
    """Grid on which completed heads are decoded."""

    completion: CompletionConfig = CompletionConfig(draws=19)
    """How heads are completed."""


@dataclass(frozen=True)
class Head:
    """A test head as points."""

    mesh: trimesh.Trimesh
    """Its surface."""

    surface: PointCloud
    """Points all over it but on the neck's cut."""

    @classmethod
    def of(cls, mesh: trimesh.Trimesh) -> "Head":
        """Return the head of a mesh."""
        points, triangles = trimesh.sample.sample_surface(mesh, POINTS, seed=0)
        kept = points[:, 1] > mesh.bounds[0, 1] + NECK_MM
        return cls(mesh, PointCloud(np.asarray(points)[kept], mesh.face_normals[triangles][kept]))

    def seen(self, part: str) -> Bool[np.ndarray, " n"]:
        """Return which points a partial scan shows."""
        points, normals = self.surface.points, self.surface.known_normals
        if part == "front half":
            return points[:, 2] > np.median(points[:, 2])
        if part == "face":
            front = points[:, 2] > np.quantile(points[:, 2], 1 - FACE_SHARE)
            return front & (normals[:, 2] > FACING) & (np.abs(points[:, 0]) < FACE_WIDTH_MM)
        if part == "depth camera":
            rays = points.mean(0) + [0, 0, CAMERA_MM] - points
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            free = ~ray_intersector(self.mesh).intersects_any(points + 0.1 * normals, rays)
            return free & ((rays * normals).sum(1) > FACING)
        seen, rng = np.ones(len(points), bool), np.random.default_rng(0)
        while seen.mean() > 1 - HOLES_SHARE:
            seen &= np.linalg.norm(points - points[rng.integers(len(points))], axis=1) > HOLE_RADIUS_MM
        return seen


@dataclass(frozen=True)
class VertexGaussian:
    """A Gaussian of the template's vertices on heads."""

    mean: Float[np.ndarray, "vertices 3"]
    """The mean head."""
    modes: Float[np.ndarray, "modes vertices 3"]
    """How vertices move by one standard deviation of each principal component."""

    @classmethod
    def of(cls, store: Path) -> "VertexGaussian":
        """Return the Gaussian of the heads of a store, which its warps carry the template to."""
        fits = Store(store).read()
        template, warps = ShapeModel.standard().mesh.vertices, fits.space.warps
        found = (warps.warp(row) for row in fits.space.warp_parameters(fits.parameters))
        vertices = np.stack([warp(template) for warp in found if warp is not None])
        mean = vertices.mean(0)
        _, singular, axes = np.linalg.svd((vertices - mean).reshape(len(vertices), -1), full_matrices=False)
        modes = singular[:COMPONENTS, None] / len(vertices) ** 0.5 * axes[:COMPONENTS]
        return cls(mean, modes.reshape(len(modes), *mean.shape))

    def complete(
        self, vertices: Float[np.ndarray, "vertices 3"], seen: Bool[np.ndarray, " vertices"], std_mm: float
    ) -> trimesh.Trimesh:
        """Return the most likely head, given the vertices that are seen."""
        modes = self.modes[:, seen].reshape(len(self.modes), -1)
        precision = modes @ modes.T / std_mm**2 + np.eye(len(modes))
        code = cho_solve(cho_factor(precision), modes @ (vertices - self.mean)[seen].ravel() / std_mm**2)
        return trimesh.Trimesh(
            self.mean + np.tensordot(code, self.modes, 1), ShapeModel.standard().mesh.faces, process=False
        )


def main(config: BenchmarkConfig) -> None:
    """Complete parts of test heads, and compare."""
    config.out.mkdir(parents=True, exist_ok=True)
    context = config.machine.start()
    # Workers may run on the other cores already.
    torch.set_num_threads(1)
    model, gaussian = Checkpoint.load(config.checkpoint), VertexGaussian.of(config.store)
    scans = find_scans(config.test)[: config.count]
    tasks = [
        (read_prepared(scan).mesh, scan.path.stem, part, model, gaussian, config)
        for part in config.parts
        for scan in scans
    ]
    with context.progress(len(tasks), "completing", "scan") as bar:
        rows = run_tasks_in_order(_measure_kept, tasks, context, bar=bar)
    publish("completion", COMPLETION, [_mean_row(rows, part) for part in config.parts], config)


def _mean_row(rows: Sequence[dict[str, Any]], part: str) -> dict[str, Any]:
    """The means over the test heads; of the peer's standard deviations, the best counts."""
    some = [row for row in rows if row["part"] == part]
    mean = {key: float(np.mean([row[key] for row in some])) for key in some[0] if key != "part"}
    gaussian = min(mean.pop(f"gaussian_{std}") for std in STDS_MM)
    return {"part": part, **mean, "gaussian_mm": gaussian, "to_mean_head": mean["unseen_mm"] / mean["mean_head_mm"]}


def _measure_kept(
    mesh: trimesh.Trimesh, name: str, part: str, model: Checkpoint, gaussian: VertexGaussian, config: BenchmarkConfig
) -> dict[str, Any]:
    path = config.out / f"{name}_{part.replace(' ', '_')}.json"
    return kept_row(path, lambda: _measure(Head.of(mesh), part, model, gaussian, config))


def _measure(
    head: Head, part: str, model: Checkpoint, gaussian: VertexGaussian, config: BenchmarkConfig
) -> dict[str, Any]:
    """What one head's completion is worth."""
    torch.set_num_threads(1)
    seen, rng = head.seen(part), np.random.default_rng(0)
    truth = head.surface[seen]
    scan = PointCloud(truth.points + NOISE_MM * rng.standard_normal(truth.points.shape), truth.normals)
    unseen = rng.choice(np.nonzero(~seen)[0], MEASURED)
    shown = rng.choice(np.nonzero(seen)[0], MEASURED)
    found = complete(model, scan, config=config.completion)
    meshes = found.decode(DecodeConfig(config.resolution))
    unseen_points, seen_points = (found.pose(head.surface.points[some]) for some in (unseen, shown))
    signed = np.array([_signed(mesh, unseen_points) for mesh in meshes])
    signed_seen = np.array([_signed(mesh, seen_points) for mesh in meshes])
    draws = signed[1:]
    covered = (draws.min(0) <= 0) & (draws.max(0) >= 0)
    return {
        "part": part,
        "seen": float(seen.mean()),
        "seen_mm": float(np.abs(signed_seen[0]).mean()),
        "unseen_mm": float(np.abs(signed[0]).mean()),
        "draw_mm": float(np.abs(draws).mean()),
        **_peers(head, seen, unseen, model, gaussian),
        "coverage": float(covered.mean()),
        "spread_unseen_mm": float(draws.std(0).mean()),
        "spread_seen_mm": float(signed_seen[1:].std(0).mean()),
    }


def _peers(
    head: Head, seen: np.ndarray, unseen: np.ndarray, model: Checkpoint, gaussian: VertexGaussian
) -> dict[str, float]:
    """Errors of the unseen part of the mean head, and of the conditional Gaussian."""
    truth, heads = head.surface.points[unseen], LinearHeads(model)
    pose = find_pose(heads, head.surface[seen])
    mean_head = decode(heads.head(np.zeros(heads.size)), DecodeConfig(128))
    template = ShapeModel.standard()
    vertices = register_dense(without_neck_cut(head.mesh), template).vertices(template)
    is_seen = cKDTree(head.surface.points[seen]).query(vertices)[0] < VERTEX_MM
    errors = {"mean_head_mm": float(np.abs(_signed(mean_head, pose(truth))).mean())}
    for std in STDS_MM:
        completed = gaussian.complete(vertices, is_seen, std)
        errors[f"gaussian_{std}"] = float(np.abs(_signed(completed, truth)).mean())
    return errors


def _signed(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Signed distances (n,) of points to a mesh in millimetres, negative inside."""
    squared, triangle, nearest = igl.point_mesh_squared_distance(points, *igl_arrays(mesh))
    side = ((points - nearest) * mesh.face_normals[triangle]).sum(1)
    return np.sqrt(squared) * np.where(side < 0, -1, 1)


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
