"""Features of rendered normal maps: meshes in, one vector of multi-scale statistics a head out.

They see what the Chamfer distance misses: bumpy skin and lost eyes barely move 2,048 points, but change how the surface
bends. No pretrained network is needed: the features are the energy of the normals at each of four scales (differences
of Gaussians, Burt and Adelson 1983), by cells of the image, from three sides.
"""

from collections.abc import Sequence

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from hyperdiffusion.rendering.render import Camera, normal_maps
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks_in_order

# Pixels along a side of a normal map.
IMAGE_SIZE = 128
# Height of a normal map in millimetres: a large head fits.
IMAGE_HEIGHT_MM = 300.0
# Degrees by which the head is turned in the views: both sides of the face and its front.
YAWS = (-45.0, 0.0, 45.0)
# Standard deviations of the Gaussians in pixels, each twice the one before.
GAUSSIAN_SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)
# Cells along a side of an image, over each of which the energy is averaged.
CELLS = 8
# Added to the energy before the logarithm, so that empty cells are finite.
ENERGY_FLOOR = 1e-5
# Starting a worker takes as long as the features of a few heads.
MIN_HEADS_PER_WORKER = 8


def normal_map_features(
    meshes: Sequence[trimesh.Trimesh | None],
    *,
    context: RunContext = RunContext(),
    description: str = "normal maps",
) -> Float[np.ndarray, "heads features"]:
    """Return the features of each mesh; a head without a surface has those of an empty image."""
    tasks = [(mesh,) for mesh in meshes]
    with context.progress(len(tasks), description, "head", leave=False) as bar:
        rows = run_tasks_in_order(_features, tasks, context, min_tasks_per_worker=MIN_HEADS_PER_WORKER, bar=bar)
    return np.array(rows)


def normal_map_views(mesh: trimesh.Trimesh | None, *, size: int) -> Float[np.ndarray, "views {size} {size} 3"]:
    """Return the normal maps of a mesh from three sides, zero where there is no surface."""
    return np.stack(normal_maps(mesh, [Camera(size=size, yaw=yaw, height_mm=IMAGE_HEIGHT_MM) for yaw in YAWS]))


def _features(mesh: trimesh.Trimesh | None) -> np.ndarray:
    return np.concatenate([_band_energies(view) for view in normal_map_views(mesh, size=IMAGE_SIZE)])


def _band_energies(image: np.ndarray) -> np.ndarray:
    """Return the logarithm of a normal map's (size, size, 3) energy in each band and cell: ratios are what one sees."""
    smooth = [gaussian_filter(image, (sigma, sigma, 0)) for sigma in GAUSSIAN_SIGMAS]
    bands = [np.square(fine - coarse).sum(2) for fine, coarse in zip(smooth, smooth[1:])]
    side = IMAGE_SIZE // CELLS
    cells = [band.reshape(CELLS, side, CELLS, side).mean((1, 3)) for band in bands]
    return np.log(np.array(cells) + ENERGY_FLOOR).ravel()
