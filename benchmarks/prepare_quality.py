"""Quality of preparation: a folder of prepared scans and one of the same heads without corruption in; errors out.

    hyperdiffusion prepare RAW PREPARED
    python benchmarks/prepare_quality.py PREPARED CLEAN

The clean heads are upright and face +z, in centimetres. Their faces are aligned with the prepared heads by rigid ICP,
trimmed to nine tenths. The rotation is how far that turns them, the distance how far they are from the surface then.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import igl
import numpy as np
import trimesh
import tyro
from columns import PREPARE_QUALITY
from jaxtyping import Float
from results_io import BenchmarkOptions, publish, run_benchmark
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from overfit import BadInput, igl_arrays, on_face_front, sample_points

# Iterations of the alignment.
ICP_ITERATIONS = 20
# Share of the points with the smallest distances that ICP uses.
ICP_TRIM = 0.9
# Points on the clean face and on the prepared head.
FACE_POINTS = 4000
HEAD_POINTS = 60_000
# Share of the clean head's height above which the face begins: without neck and shoulders.
FACE_BOTTOM = 0.3
# Largest errors with which a head is usable for training.
ROTATION_BOUND_DEG = 5.0
DISTANCE_BOUND_MM = 3.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """Which scans are compared."""

    prepared: tyro.conf.Positional[Path]
    """Folder that `hyperdiffusion prepare` wrote."""

    clean: tyro.conf.Positional[Path]
    """Folder of the same heads without corruption, under the same names."""

    mm_per_unit: float = 10.0
    """Millimetres in a unit of the clean heads."""


def main(config: BenchmarkConfig) -> None:
    """Compare all scans; skipped ones count as outside of the bounds."""
    with open(config.prepared / "prepared.csv", newline="") as file:
        scans = [row for row in csv.DictReader(file) if (config.clean / row["name"]).suffix == ".ply"]
    names = [row["name"] for row in scans if not row["skipped"]]
    if not names:
        raise BadInput(f"{config.prepared}: no prepared scan in it; run `hyperdiffusion prepare` first")
    errors = [_compare(config, name) for name in tqdm(names, desc="comparing", unit="scan")]
    angles, distances = np.transpose(errors)
    print(f"{len(scans)} scans, {len(scans) - len(names)} skipped\n")
    rows = [
        error_row("rotation, degrees", angles, bound=ROTATION_BOUND_DEG, scans=len(scans)),
        error_row("surface distance on the face, mm", distances, bound=DISTANCE_BOUND_MM, scans=len(scans)),
    ]
    publish("prepare_quality", PREPARE_QUALITY, rows, config)


def error_row(error: str, values: np.ndarray, *, bound: float, scans: int) -> dict[str, Any]:
    """Return a row of the table: an error of several scans, of which skipped ones count as outside of the bound."""
    return {
        "error": error,
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "worst": float(values.max()),
        "bound": bound,
        "within_bound": float((values < bound).sum() / scans),
    }


def _compare(config: BenchmarkConfig, name: str) -> tuple[float, float]:
    """Return the rotation in degrees and the distance in mm between a prepared head and the face of the clean one."""
    head = trimesh.load_mesh(config.prepared / name, process=False)
    clean = trimesh.load_mesh(config.clean / name, process=False)
    clean.apply_scale(config.mm_per_unit)
    angle, aligned = aligned_face(clean, head)
    squared = igl.point_mesh_squared_distance(aligned, *igl_arrays(head))[0]
    return angle, float(np.sqrt(squared).mean())


def aligned_face(clean: trimesh.Trimesh, head: trimesh.Trimesh) -> tuple[float, Float[np.ndarray, "n 3"]]:
    """Return points of a clean head's face, aligned with a prepared head, and the rotation in degrees that it took.

    The points are the same whatever the prepared head is.
    """
    return _align(sample_points(_face_of(clean), FACE_POINTS, rng=np.random.default_rng(0)), head)


def _face_of(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    low, high = mesh.bounds[:, 1]
    front = on_face_front(mesh) & (mesh.triangles_center[:, 1] > low + FACE_BOTTOM * (high - low))
    return trimesh.Trimesh(mesh.vertices, mesh.faces[front], process=False)


def _align(points: np.ndarray, head: trimesh.Trimesh) -> tuple[float, np.ndarray]:
    """Return the rotation in degrees that trimmed point-to-plane ICP applies to points, and the aligned points."""
    # The tips of the noses are the start.
    points = points + head.vertices[head.vertices[:, 2].argmax()] - points[points[:, 2].argmax()]
    targets, faces = trimesh.sample.sample_surface(head, HEAD_POINTS, seed=0)
    tree, rotation = cKDTree(targets), Rotation.identity()
    for _ in range(ICP_ITERATIONS):
        distance, nearest = tree.query(points)
        kept = distance < np.quantile(distance, ICP_TRIM)
        middle, normals = points.mean(0), head.face_normals[faces[nearest[kept]]]
        lever = np.cross(points[kept] - middle, normals)
        to_plane = ((targets[nearest[kept]] - points[kept]) * normals).sum(1)
        step = np.linalg.lstsq(np.hstack([lever, normals]), to_plane, rcond=None)[0]
        turn = Rotation.from_rotvec(step[:3])
        points, rotation = turn.apply(points - middle) + middle + step[3:], turn * rotation
    return float(np.degrees(rotation.magnitude())), points


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
