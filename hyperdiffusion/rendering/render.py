"""Rendering without a display: meshes in the canonical frame in, shaded images and normal maps out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8

from overfit.geometry.rays import ray_intersector


@dataclass(frozen=True)
class Light:
    """A distant light in the camera's frame: x right, y up, z towards the camera."""

    direction: tuple[float, float, float]
    """From the head towards the light."""
    strength: float
    """Share of the skin's colour that a surface facing the light reflects."""


# A key light from above the left eye, a fill light, and one along the view so that no visible skin is black.
LIGHTS = (
    Light(direction=(-0.5, 0.6, 0.65), strength=0.75),
    Light(direction=(0.8, 0.1, 0.4), strength=0.2),
    Light(direction=(0.0, 0.0, 1.0), strength=0.35),
)
SKIN_COLOUR = np.array([226, 208, 196])
BACKGROUND_COLOUR = np.array([255, 255, 255])
# If the cosine between a triangle's normal and the interpolated one is below this, the edge is a crease, such as the
# rim of the neck's cut.
CREASE_COSINE = 0.8
# Height of a view that fits meshes, as a multiple of their extent: leaves a margin.
FIT_MARGIN = 1.05
# Rays per pixel along either axis, averaged.
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Camera:
    """An orthographic camera that looks along -z."""

    size: int = 256
    """Width and height of the image in pixels."""
    yaw: float = 0.0
    """Degrees by which the head is turned about +y; 0 is the front view."""
    height_mm: float = 300.0
    """Height of the view in millimetres."""
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The point about which the head is turned and which is in the middle of the image."""

    @classmethod
    def around(cls, meshes: Sequence[trimesh.Trimesh], *, size: int = 256, yaw: float = 0.0) -> "Camera":
        """Return a camera whose view fits all meshes, so that they can be shown at one scale."""
        bounds = np.array([mesh.bounds for mesh in meshes])
        low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
        x, y, z = ((low + high) / 2).tolist()
        return cls(size=size, yaw=yaw, height_mm=FIT_MARGIN * float((high - low).max()), centre=(x, y, z))


def render(
    mesh: trimesh.Trimesh, camera: Camera | None = None, *, colours: Float[np.ndarray, "vertices 3"] | None = None
) -> UInt8[np.ndarray, "size size 3"]:
    """Return a shaded view of a mesh on white.

    Args:
        mesh: What is shown.
        camera: Where from; by default the front view that fits the mesh.
        colours: Colour of each vertex, 0 to 255; by default that of skin.
    """
    camera = camera or Camera.around([mesh])
    side = camera.size * SUPERSAMPLING
    visible = _visible(_rays(mesh), camera, side=side)
    colour = SKIN_COLOUR if colours is None else colours[mesh.faces[visible.triangles]].mean(1)
    image = np.broadcast_to(BACKGROUND_COLOUR, (side**2, 3)).astype(float)
    image[visible.pixels] = colour * _brightness(visible.normals)[:, None]
    image = image.reshape(camera.size, SUPERSAMPLING, camera.size, SUPERSAMPLING, 3).mean((1, 3))
    return image.round().astype(np.uint8)


def normal_maps(mesh: trimesh.Trimesh | None, cameras: Sequence[Camera]) -> list[Float[np.ndarray, "size size 3"]]:
    """Return the normals that each camera sees, in its frame; zero where it sees no surface, or if there is none."""
    if mesh is None:
        return [np.zeros((camera.size, camera.size, 3)) for camera in cameras]
    rays = _rays(mesh)
    images = []
    for camera in cameras:
        visible = _visible(rays, camera, side=camera.size)
        image = np.zeros((camera.size**2, 3))
        image[visible.pixels] = visible.normals
        images.append(image.reshape(camera.size, camera.size, 3))
    return images


def _rays(mesh: trimesh.Trimesh) -> Any:
    """Return a ray engine for several cameras: to prepare it takes longer than the rays of one.

    It has a mesh of its own, so that what trimesh keeps for rays goes with it.
    """
    return ray_intersector(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False))


@dataclass(frozen=True)
class _Visible:
    """What an image shows of a mesh."""

    pixels: Int[np.ndarray, " n"]
    """The pixels that show it."""
    triangles: Int[np.ndarray, " n"]
    """The triangles in them."""
    normals: Float[np.ndarray, "n 3"]
    """The normals there, in the camera's frame."""


def _visible(rays: Any, camera: Camera, *, side: int) -> _Visible:
    """Return what a square image, `side` pixels wide, shows."""
    rotation = trimesh.transformations.rotation_matrix(np.radians(camera.yaw), [0, 1, 0])[:3, :3]
    axis = ((np.arange(side) + 0.5) / side - 0.5) * camera.height_mm
    x, y = np.meshgrid(axis, -axis)
    # Rays start far in front of any head.
    origins = np.stack([x.ravel(), y.ravel(), np.full(x.size, 10 * camera.height_mm)], axis=1)
    directions = np.broadcast_to([0.0, 0.0, -1.0], origins.shape)
    # Rays are turned back, instead of the head.
    triangles, pixels, points = rays.intersects_id(
        origins @ rotation + np.array(camera.centre), directions @ rotation, multiple_hits=False, return_locations=True
    )
    return _Visible(pixels, triangles, _smooth_normals(rays.mesh, triangles, points) @ rotation.T)


def _smooth_normals(mesh: trimesh.Trimesh, triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return normals (n, 3) at points on triangles, interpolated (Phong 1975) except across creases."""
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[triangles], points)
    smooth = trimesh.util.unitize((mesh.vertex_normals[mesh.faces[triangles]] * weights[..., None]).sum(1))
    flat = mesh.face_normals[triangles]
    return np.where((smooth * flat).sum(1, keepdims=True) < CREASE_COSINE, flat, smooth)


def _brightness(normals: np.ndarray) -> np.ndarray:
    """Return the share (n,) of its colour that a Lambertian surface reflects, at most 1."""
    brightness = np.zeros(len(normals))
    for light in LIGHTS:
        direction = np.array(light.direction) / np.linalg.norm(light.direction)
        brightness += light.strength * (normals @ direction).clip(0)
    return brightness.clip(0, 1)
