"""Occupancy labels: a mesh in millimetres in, points in the field's cube and their signed distances out.

The cube is in canonical space: a warp carries the points to the head, where distances are measured. Where a head ends
in the neck's plane, distances are those to a head with a longer neck.

The sign says inside (negative) or outside. The distance lets the fit soften its targets close to the surface, where
the hard step of the published method makes islands and needs three to four times as many steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree

from overfit.canonical.neck import extend_neck, without_neck_cut
from overfit.canonical.warp import Warp
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.mesh import sample_points, sample_surface
from overfit.geometry.signed_distance import (
    RAY_OFFSET_MM,
    depth_scan_distance,
    distance_to_wall,
    hidden_faces,
    in_narrow_gap,
    nearest_points,
    winding_number_distance,
)
from overfit.runtime.errors import BadInput, require_at_least

SignMethod = Literal["winding-number", "mesh-to-sdf"]
# Depth below the surface, in mm, at which a cavity that is filled and the wall around it are said to lie, at least.
CAVITY_DEPTH_MM = 1.5
# Points of the band for each square millimetre of a cavity's walls, and the largest share of the band that they are.
CAVITY_DENSITY = 1.0
MAX_CAVITY_SHARE = 0.1
# Their largest distance from the wall, in mm.
MAX_CAVITY_WIDTH_MM = 10.0
# Two distances that differ by less (mm) are to the same triangle.
WALL_TOLERANCE_MM = 1e-4


@dataclass(frozen=True)
class LabelConfig:
    """Where the labelled points of a scan are, and what counts as inside."""

    sign_method: SignMethod = "winding-number"
    """What decides inside or outside: the generalised winding number, for open, flipped or broken meshes, or depth
    scans from all around (mesh-to-sdf), for triangle soups with inner surfaces that should not count."""
    near_points: int = 57_000
    """Labelled points near the surface."""
    near_sigma_mm: float = 0.8
    """Standard deviation in millimetres of the near points about the surface."""
    near_sigma_share: float = 0.0
    """Standard deviation of the near points as a share of the cube's side; above 0, it replaces the one in
    millimetres. The published value is 0.01."""
    band_points: int = 14_000
    """Labelled points in a wider band about the surface; they prevent islands. At most a tenth of them lie in cavities
    that count as inside."""
    band_sigma_mm: float = 10.0
    """Standard deviation in millimetres of the band's points about the surface."""
    uniform_points: int = 5_000
    """Labelled points uniform in the cube; they prevent islands far from the head."""
    face_share: float = 0.6
    """Share of the near points drawn by curvature on the front of the face: eyes and lips, where people look first."""
    detail_share: float = 0.2
    """Share of the near points drawn by curvature anywhere, such as on ears and nostrils."""
    gap_mm: float = 0.8
    """Gaps narrower than this many millimetres count as inside, as between closed lips, and so does what they hide. A
    network of this size cannot hold them open and makes bubbles and islands of them. 0 leaves both as they are."""

    def __post_init__(self) -> None:
        require_at_least(
            0,
            near_points=self.near_points,
            near_sigma_mm=self.near_sigma_mm,
            near_sigma_share=self.near_sigma_share,
            band_points=self.band_points,
            band_sigma_mm=self.band_sigma_mm,
            uniform_points=self.uniform_points,
            face_share=self.face_share,
            detail_share=self.detail_share,
            gap_mm=self.gap_mm,
        )
        if self.face_share + self.detail_share > 1:
            raise BadInput(
                f"`face_share={self.face_share}`, `detail_share={self.detail_share}`: more than all near points; "
                "give shares with a sum of at most 1"
            )


@dataclass(frozen=True)
class Labels:
    """Labelled points of one scan."""

    points: Float[np.ndarray, "n 3"]
    """Points in the field's cube, float32: first the near ones, then the band's, each in an order that keeps neighbours
    together, then the uniform ones."""
    distance: Float[np.ndarray, " n"]
    """Signed distances to the surface in millimetres, float32, negative inside."""

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, chosen: np.ndarray | slice) -> "Labels":
        """Return the points chosen by indices, a mask or a slice."""
        return Labels(self.points[chosen], self.distance[chosen])


@dataclass(frozen=True)
class LabelBatch:
    """Labelled points of several scans, the same number for each."""

    points: Float[torch.Tensor, "scans n 3"]
    """Points in the field's cube."""
    distance: Float[torch.Tensor, "scans n"]
    """Signed distances to the surface in millimetres, negative inside."""

    def __getitem__(self, chosen: torch.Tensor | slice) -> "LabelBatch":
        """Return the points of all scans that are chosen by indices or a slice."""
        return LabelBatch(self.points[:, chosen], self.distance[:, chosen])

    @classmethod
    def stack(cls, labels: Sequence[Labels], device: torch.device) -> "LabelBatch":
        """Return the labels of several scans on a device."""
        return cls(
            torch.from_numpy(np.stack([one.points for one in labels])).to(device),
            torch.from_numpy(np.stack([one.distance for one in labels])).to(device),
        )


def label_mesh(
    mesh: trimesh.Trimesh, cube: Cube, *, config: LabelConfig, rng: np.random.Generator, warp: Warp | None = None
) -> Labels:
    """Return labelled points of a mesh in millimetres. Raises BadInput if the mesh encloses no volume.

    Args:
        mesh: The head.
        cube: The field's cube, in canonical space.
        config: Where points are.
        rng: The source of randomness.
        warp: From canonical space to the head; without one, the head lies in canonical space as it is.
    """
    hidden = hidden_faces(mesh) if config.gap_mm else np.zeros(len(mesh.faces), bool)
    surface, walls = (trimesh.Trimesh(mesh.vertices, mesh.faces[kept], process=False) for kept in (~hidden, hidden))
    if warp is not None and warp.neck_height is not None:
        surface, mesh = without_neck_cut(surface), extend_neck(mesh)
    in_cavities = _cavity_points(mesh, walls, limit=int(MAX_CAVITY_SHARE * config.band_points), rng=rng)
    band_points = config.band_points - len(in_cavities)
    near_surface = np.concatenate(
        [
            _near_points(surface, cube, config, rng),
            sample_points(surface, band_points, rng=rng) + config.band_sigma_mm * rng.standard_normal((band_points, 3)),
            in_cavities,
        ]
    )
    canonical = near_surface if warp is None else warp.inverse_in(cube, near_surface)
    anywhere = cube.to_millimetres(rng.uniform(-1, 1, (config.uniform_points, 3)))
    canonical = np.concatenate([canonical, anywhere])
    # The inverse only chose the points: what is measured is where the warp carries them.
    points = canonical if warp is None else warp(canonical)
    measure = {"winding-number": winding_number_distance, "mesh-to-sdf": depth_scan_distance}[config.sign_method]
    distance = measure(mesh, points)
    if config.gap_mm:
        in_gap = in_narrow_gap(mesh, points, distance=distance, width=config.gap_mm)
        distance = np.where(in_gap, -config.gap_mm / 2, _fill_cavities(points, distance, walls=walls))
    if not (distance < 0).any():
        raise BadInput("encloses no volume; close the scan's surface, or try `sign_method=mesh-to-sdf`")
    order = _neighbours_together(canonical, runs=(config.near_points, config.band_points))
    return Labels(cube.to_field(canonical[order]).astype(np.float32), distance[order].astype(np.float32))


def _neighbours_together(points: np.ndarray, *, runs: Sequence[int]) -> np.ndarray:
    """Return an order (n,) in which the points of each run, whose lengths are given, follow their neighbours."""
    ends = np.cumsum([0, *runs])
    ordered = [start + cKDTree(points[start:end]).indices for start, end in zip(ends, ends[1:])]
    return np.concatenate([*ordered, np.arange(ends[-1], len(points))])


def _fill_cavities(points: np.ndarray, distance: np.ndarray, *, walls: trimesh.Trimesh) -> np.ndarray:
    """Return signed distances (n,) to a surface whose cavities with these walls are filled, walls and all."""
    if not len(walls.faces):
        return distance
    low, high = walls.bounds + [[-CAVITY_DEPTH_MM], [CAVITY_DEPTH_MM]]
    near = np.nonzero(((points > low) & (points < high)).all(1) & (distance > -CAVITY_DEPTH_MM))[0]
    to_wall = np.linalg.norm(points[near] - nearest_points(walls, points[near]), axis=1)
    at_wall = near[to_wall <= np.abs(distance[near]) + WALL_TOLERANCE_MM]
    filled = distance.copy()
    filled[at_wall] = -np.maximum(np.abs(distance[at_wall]), CAVITY_DEPTH_MM)
    return filled


def _cavity_points(
    mesh: trimesh.Trimesh, walls: trimesh.Trimesh, *, limit: int, rng: np.random.Generator
) -> np.ndarray:
    """Points (n, 3) in cavities with these walls: without any, what lies before a cavity would reach into it."""
    count = min(int(CAVITY_DENSITY * walls.area), limit)
    if not count:
        return np.empty((0, 3))
    on_wall, normals = sample_surface(walls, count, rng=rng)
    width = distance_to_wall(mesh, on_wall + RAY_OFFSET_MM * normals, directions=normals)
    return on_wall + normals * rng.uniform(-CAVITY_DEPTH_MM, np.minimum(width, MAX_CAVITY_WIDTH_MM))[:, None]


def _near_points(mesh: trimesh.Trimesh, cube: Cube, config: LabelConfig, rng: np.random.Generator) -> np.ndarray:
    """Points (near_points, 3) in millimetres near the surface."""
    on_surface, normals = sample_surface(
        mesh, config.near_points, rng=rng, face_share=config.face_share, detail_share=config.detail_share
    )
    sigma_mm = config.near_sigma_share * 2 * cube.half or config.near_sigma_mm
    offsets = sigma_mm * rng.standard_normal((config.near_points, 3))
    if config.gap_mm:
        # A point that starts in a gap stays in it, so that there are enough points to close the gap.
        width = distance_to_wall(mesh, on_surface + RAY_OFFSET_MM * normals, directions=normals)
        narrow = width < config.gap_mm
        offsets[narrow] = normals[narrow] * (rng.random(len(width)) * width)[narrow, None]
    return on_surface + offsets
