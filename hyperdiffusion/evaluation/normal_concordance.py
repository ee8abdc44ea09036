"""Surface Normal Concordance (SNC) of faces: meshes in; how far normals agree with those nearby, and distances, out.

The name and the aim are those of Bastico et al., Rethinking Metrics and Diffusion Architecture for 3D Point Cloud
Generation (arXiv 2511.05308): to compare point normals where the Chamfer distance compares positions. Their abstract
gives no formula, and this is not theirs. Here the concordance of a point is the mean cosine of its normal and the
normals of the points within `RADIUS_MM` on the same face, and two sets are compared by the distributions of it.

Normals of one head are not compared with those of another: two identities agree better when one of them is smoothed, so
that smoothing would be rewarded. The distribution moves down by noise and up by smoothing, and either is a distance.
"""

from collections.abc import Sequence

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from overfit.geometry.mesh import on_face_front, sample_triangles
from overfit.geometry.rays import ray_intersector
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks_in_order

# Points on the front of a face, about 4 mm apart, before those that nobody sees are left out.
POINTS_PER_FACE = 2048
# Rays to the viewer start this far (mm) in front of the surface, so that they do not hit it where they start.
RAY_OFFSET_MM = 0.1
# Millimetres, the height of an eye or a lip. Triangles of scans and of marching cubes are smaller, so that two meshes
# of one surface have the same concordance.
RADIUS_MM = 10.0
# Starting a worker takes as long as the points of many heads.
MIN_HEADS_PER_WORKER = 64


def normal_concordance(
    meshes: Sequence[trimesh.Trimesh | None],
    *,
    context: RunContext = RunContext(),
    description: str = "SNC",
) -> list[Float[np.ndarray, " _"]]:
    """Return the concordance (-1 to 1) at up to 2,048 points of each face, uniform by area.

    The face is what is seen from the front of `overfit.geometry.mesh.LABEL_FACE`, from chin to forehead. Folds behind
    eyelids and lips, which scans have and decoded heads have not, are not part of it. A head without a face has
    concordance 0.
    """
    tasks = list(zip(meshes, range(len(meshes))))
    with context.progress(len(tasks), description, "head", leave=False) as bar:
        rows = run_tasks_in_order(_concordance, tasks, context, min_tasks_per_worker=MIN_HEADS_PER_WORKER, bar=bar)
    return rows


def snc_distance(first: Sequence[Float[np.ndarray, " _"]], second: Sequence[Float[np.ndarray, " _"]]) -> float:
    """Return the Wasserstein-1 distance x 1000 of the concordances at the points of all heads of two sets."""
    return 1000 * float(wasserstein_distance(np.concatenate(first), np.concatenate(second)))


def _concordance(mesh: trimesh.Trimesh | None, seed: int) -> np.ndarray:
    points, normals = _visible_points(mesh, np.random.default_rng(seed))
    return _mean_cosines(points, normals) if len(points) else np.zeros(POINTS_PER_FACE)


def _visible_points(mesh: trimesh.Trimesh | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n, 3) of a face that are seen from the front, and the normals there."""
    nothing = np.empty((0, 3)), np.empty((0, 3))
    if mesh is None:
        return nothing
    # A mesh keeps tables of its triangles and normals; those of a copy are freed with it.
    mesh = mesh.copy(include_visual=False)
    area = mesh.area_faces * on_face_front(mesh)
    if not area.any():
        return nothing
    chosen = rng.choice(len(area), POINTS_PER_FACE, p=area / area.sum())
    points, normals = sample_triangles(mesh.triangles[chosen], rng), mesh.face_normals[chosen]
    towards_viewer = np.broadcast_to([0.0, 0.0, 1.0], points.shape)
    visible = ray_intersector(mesh).intersects_first(points + RAY_OFFSET_MM * normals, towards_viewer) < 0
    return points[visible], normals[visible]


def _mean_cosines(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return the mean cosine of each point's normal and those within the radius, 1 for a point alone."""
    one, other = cKDTree(points).query_pairs(RADIUS_MM, output_type="ndarray").T
    cosines = (normals[one] * normals[other]).sum(1)
    ends = np.concatenate([one, other])
    sums = np.bincount(ends, np.tile(cosines, 2), minlength=len(points))
    counts = np.bincount(ends, minlength=len(points))
    return np.divide(sums, counts, out=np.ones(len(points)), where=counts > 0)
