"""The template of registration: a head in the canonical frame and how heads differ from it, prepared for lookups."""

from functools import cached_property
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from overfit.geometry.mesh import REGISTRATION_FACE, sample_triangles
from overfit.geometry.point_cloud import PointCloud

# The mean of the plain heads and their principal components; made by tools/make_template.py.
TEMPLATE_FILE = Path(__file__).with_name("template.npz")
# Points on the template's surface, about 4 mm apart: as dense as registration can use.
SURFACE_POINTS = 20_000
# Triangles whose normal points down by more than this cosine are the cut through the neck, which scans do not have.
NECK_CUT_COSINE = 0.95
# Modes of the plain heads that registration uses: those that can be mistaken for a change of pose.
POSE_MODES = 20
# Standard deviation of a head's length, width and height as a share of it, where no modes are known.
AXIS_DEVIATION = 0.08

# Cells in mm of the lookup grid: fine enough for the coarse search, whose errors are larger.
GRID_CELL_MM = 8.0
# How far in mm the grid reaches beyond the template, so that points far off find their side of it.
GRID_MARGIN_MM = 150.0
# A node's point may be farther than the closest one by this share of the distance: 0.003 mm on average near the
# surface, and a quarter of the time.
GRID_TOLERANCE = 0.2

# Space in mm about the template that belongs to the head: hair, large ears.
HEAD_BOX_MARGIN_MM = 45.0
# How far in mm above the template's own lower end heads are cut: all end in one plane.
NECK_MARGIN_MM = 2.0

# Points of the face by which reliefs are compared.
RELIEF_POINTS = 1000
# Standard deviation in mm of the smoothing that nose, brows and chin stand out from.
RELIEF_SMOOTHING_MM = 15.0
# Standard deviation in mm over which a scan's normals are averaged, to remove their noise.
NORMAL_SMOOTHING_MM = 4.0
# Neighbours over which they are averaged.
NORMAL_NEIGHBOURS = 16
# A face point farther than this (mm) from the scan is missing from it.
MISSING_MM = 10.0
# Keeps the division by a sum of weights finite.
EPSILON = 1e-12


class Template:
    """A head in the canonical frame and how heads differ from it, prepared for lookups."""

    mesh: trimesh.Trimesh
    """The head's surface in millimetres."""
    cloud: PointCloud
    """Random points of the surface, without the neck's cut, and their normals."""
    modes: Float[np.ndarray, "modes points 3"]
    """How the points move by one standard deviation of each mode of shape, in millimetres."""
    tree: cKDTree
    """Search tree over the points."""
    in_face: Bool[np.ndarray, " points"]
    """Whether each point lies on the part of the face that registration compares."""

    def __init__(self, mesh: trimesh.Trimesh, modes: Float[np.ndarray, "modes vertices 3"] | None = None):
        """Sample the surface of a head in the canonical frame.

        `modes` are one standard deviation each, in mm; without them, heads differ in length, width and height.
        """
        if modes is None:
            modes = AXIS_DEVIATION * np.eye(3)[:, None] * mesh.vertices
        self.mesh = mesh
        rng = np.random.default_rng(0)
        triangles = rng.choice(len(mesh.faces), SURFACE_POINTS, p=mesh.area_faces / mesh.area_faces.sum())
        triangles = triangles[mesh.face_normals[triangles, 1] > -NECK_CUT_COSINE]
        # Vertices and modes side by side, so that one draw samples both.
        vertices_and_modes = np.concatenate([mesh.vertices, *modes], axis=1)
        sampled = sample_triangles(vertices_and_modes[mesh.faces[triangles]], rng)
        self.cloud = PointCloud(sampled[:, :3], mesh.face_normals[triangles])
        self.modes = np.ascontiguousarray(sampled[:, 3:].reshape(len(sampled), -1, 3).transpose(1, 0, 2))
        self.tree = cKDTree(self.cloud.points)
        self.in_face = REGISTRATION_FACE.contains(self.cloud.points, self.cloud.known_normals, bounds=mesh.bounds)

    @classmethod
    def standard(cls) -> "Template":
        """Return the mean of the plain heads, with the principal components of their shapes."""
        with np.load(TEMPLATE_FILE) as stored:
            mesh = trimesh.Trimesh(stored["vertices"].astype(float), stored["faces"], process=False)
            return cls(mesh, stored["modes"][:POSE_MODES].astype(float))

    def deformed(self, shape: Float[np.ndarray, " modes"]) -> Float[np.ndarray, "points 3"]:
        """Return the points on a head of that shape, in standard deviations of the modes."""
        return self.cloud.points + np.tensordot(shape, self.modes, 1)

    def nearest(self, points: Float[np.ndarray, "*batch 3"]) -> Int[np.ndarray, "*batch"]:
        """Return the index of a template point close to each point, the closest up to the size of a grid cell."""
        low, closest = self._grid
        cell = np.rint((points - low) / GRID_CELL_MM).astype(int).clip(0, np.array(closest.shape) - 1)
        return closest[tuple(np.moveaxis(cell, -1, 0))]

    @cached_property
    def modes_along_normals(self) -> Float[np.ndarray, "points modes"]:
        """How far the points move along their normals by one standard deviation of each mode, in millimetres."""
        return np.einsum("kni,ni->nk", self.modes, self.cloud.known_normals)

    @cached_property
    def relief_points(self) -> Int[np.ndarray, " relief"]:
        """Indices of the face's points by which reliefs are compared."""
        face = np.nonzero(self.in_face)[0]
        return np.random.default_rng(0).choice(face, min(RELIEF_POINTS, len(face)), replace=False)

    @cached_property
    def relief_smoothing(self) -> Float[np.ndarray, "relief relief"]:
        """Weight of each relief point in the mean about each other one."""
        points = self.cloud.points[self.relief_points]
        return np.exp(-((points[:, None] - points) ** 2).sum(-1) / (2 * RELIEF_SMOOTHING_MM**2))

    @cached_property
    def relief_normals(self) -> Float[np.ndarray, "relief 3"]:
        """Mean normals about the relief points."""
        return smooth_normals(self.cloud, self.cloud.points[self.relief_points])[0]

    @cached_property
    def head_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (3,), in mm, of the box around a head; its floor is the plane where heads end."""
        low, high = self.mesh.bounds + np.array([[-HEAD_BOX_MARGIN_MM], [HEAD_BOX_MARGIN_MM]])
        return np.array([low[0], self.mesh.bounds[0, 1] + NECK_MARGIN_MM, low[2]]), high

    @cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest corner (3,) of a grid about the template, and the closest point's index (a, b, c) at each node."""
        low, high = self.mesh.bounds + np.array([[-GRID_MARGIN_MM], [GRID_MARGIN_MM]])
        axes = [np.arange(start, stop, GRID_CELL_MM) for start, stop in zip(low, high)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        nearest = self.tree.query(nodes.reshape(-1, 3), eps=GRID_TOLERANCE, workers=1)[1]
        return low, nearest.reshape(nodes.shape[:3])


def smooth_normals(
    cloud: PointCloud, points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """Return an oriented cloud's mean normals about points, and whether the cloud reaches each of them."""
    distance, neighbours = cKDTree(cloud.points).query(points, NORMAL_NEIGHBOURS)
    weight = np.exp(-((distance / NORMAL_SMOOTHING_MM) ** 2) / 2) + EPSILON
    normals = (weight[..., None] * cloud.known_normals[neighbours]).sum(1) / weight.sum(1, keepdims=True)
    return normals, distance[:, 0] < MISSING_MM
