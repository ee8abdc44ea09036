"""Pictures without a screen: meshes in the canonical frame in, shaded images out."""

from pathlib import Path

import numpy as np
import trimesh
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

from overfit.clouds import Cloud

# Towards the lights from the head, in the camera's frame (x right, y up, z to the camera), with their strengths: a key
# light from above the left eye, a fill light, and one along the view so that no visible skin is black.
LIGHTS = (((-0.5, 0.6, 0.65), 0.75), ((0.8, 0.1, 0.4), 0.2), ((0.0, 0.0, 1.0), 0.35))
SKIN = np.array([226, 208, 196])
BACKGROUND = np.array([255, 255, 255])
# Cosine between a triangle's normal and the blended one under which its edge is a crease, such as the neck's cut.
SHARP = 0.8
# Points of a cloud in a picture.
DOTS = 30_000
# Rays a pixel along either axis, averaged.
SAMPLES = 2


def render(mesh: trimesh.Trimesh, size: int = 256, turn: float = 0.0, extent: float | None = None,
           centre: np.ndarray | None = None) -> np.ndarray:
    """Orthographic view (size, size, 3) uint8 from the front, the head turned by `turn` degrees about +y.

    `extent` is the height of the view in millimetres and `centre` its middle; both default to the mesh's bounds. Give
    both to show several heads at one scale.
    """
    centre = mesh.bounds.mean(0) if centre is None else centre
    extent = 1.05 * float(np.ptp(mesh.bounds, axis=0).max()) if extent is None else extent
    rays, normals = _seen(mesh, size * SAMPLES, turn, extent, centre)
    image = np.broadcast_to(BACKGROUND, ((size * SAMPLES) ** 2, 3)).astype(float)
    image[rays] = _shade(normals)
    image = image.reshape(size, SAMPLES, size, SAMPLES, 3).mean((1, 3))
    return image.round().astype(np.uint8)


def normal_map(mesh: trimesh.Trimesh, size: int, turn: float, extent: float) -> np.ndarray:
    """Normals (size, size, 3) in an orthographic view of the origin, `extent` mm high; zero where nothing is seen."""
    rays, normals = _seen(mesh, size, turn, extent, np.zeros(3))
    image = np.zeros((size * size, 3))
    image[rays] = normals
    return image.reshape(size, size, 3)


def _seen(mesh: trimesh.Trimesh, size: int, turn: float, extent: float, centre: np.ndarray,
          ) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n,) of an orthographic view that show the mesh, and the normals (n, 3) there in the camera's frame."""
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    rotation = trimesh.transformations.rotation_matrix(np.radians(turn), [0, 1, 0])[:3, :3]
    turned = trimesh.Trimesh((mesh.vertices - centre) @ rotation.T, mesh.faces, process=False)
    axis = ((np.arange(size) + 0.5) / size - 0.5) * extent
    x, y = np.meshgrid(axis, -axis)
    origins = np.stack([x.ravel(), y.ravel(), np.full(x.size, 10 * extent)], axis=1)
    directions = np.broadcast_to([0.0, 0.0, -1.0], origins.shape)
    triangles, rays, points = RayMeshIntersector(turned).intersects_id(
        origins, directions, multiple_hits=False, return_locations=True)
    return rays, _smooth_normals(turned, triangles, points)


def _smooth_normals(mesh: trimesh.Trimesh, triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Normals (n, 3) at points on triangles, blended from the corners' (Phong 1975) except across sharp edges."""
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[triangles], points)
    smooth = trimesh.util.unitize((mesh.vertex_normals[mesh.faces[triangles]] * weights[..., None]).sum(1))
    flat = mesh.face_normals[triangles]
    return np.where((smooth * flat).sum(1, keepdims=True) < SHARP, flat, smooth)


def _shade(normals: np.ndarray) -> np.ndarray:
    """Colours (n, 3) of lambertian skin."""
    light = np.zeros(len(normals))
    for direction, strength in LIGHTS:
        light += strength * (normals @ (np.array(direction) / np.linalg.norm(direction))).clip(0)
    return SKIN * light.clip(0, 1)[:, None]


def exhibit(surface: trimesh.Trimesh | Cloud, extent: float = 250.0) -> trimesh.Trimesh:
    """A raw scan for a picture beside heads: in its own pose, about the origin, its largest side `extent` millimetres.

    Points become small triangles that face the camera.
    """
    if isinstance(surface, Cloud):
        points = surface.points[np.random.default_rng(0).permutation(len(surface.points))[:DOTS]]
        size = 2.0 * float(np.median(cKDTree(points).query(points, 2)[0][:, 1]))
        corners = size * np.array([[0.0, 1, 0], [-0.87, -0.5, 0], [0.87, -0.5, 0]])
        surface = trimesh.Trimesh((points[:, None] + corners).reshape(-1, 3), np.arange(3 * len(points)).reshape(-1, 3),
                                  process=False)
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    factor = extent / max(float((high - low).max()), 1e-9)
    return trimesh.Trimesh((surface.vertices - (low + high) / 2) * factor, surface.faces, process=False)


def sheet(rows: list[tuple[str, list[trimesh.Trimesh]]], path: Path, size: int = 256,
          turns: tuple[float, ...] = (-25.0,), format: str | None = None) -> None:
    """Write one picture: a labelled row of meshes each, all at one scale, each seen from every turn.

    The path's suffix tells the format where `format` does not.
    """
    meshes = [mesh for _, row in rows for mesh in row]
    bounds = np.array([mesh.bounds for mesh in meshes])
    low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
    extent, centre = 1.05 * float((high - low).max()), (low + high) / 2
    columns, title = max(len(row) for _, row in rows) * len(turns), 24
    picture = Image.new("RGB", (columns * size, len(rows) * (size + title)), "white")
    draw = ImageDraw.Draw(picture)
    for top, (label, row) in enumerate(rows):
        draw.text((8, top * (size + title) + 6), label, fill="black", font_size=14)
        views = [render(mesh, size, turn, extent, centre) for mesh in row for turn in turns]
        for column, view in enumerate(views):
            picture.paste(Image.fromarray(view), (column * size, top * (size + title) + title))
    picture.save(path, format)
