"""Features of rendered normal maps and distances of sets by them: meshes in; Fréchet and kernel distances out.

They see what the Chamfer distance misses: bumpy skin and lost eyes barely move 2,048 points, but change how the surface
bends. No pretrained network is bundled with the package, so the features are fixed multi-scale statistics: the energy
of the normals at each of four scales (differences of Gaussians, Burt and Adelson 1983), by cells of the image, from
three sides.
"""

from collections.abc import Sequence

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from hyperdiffusion.rendering.render import Camera, normal_map
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
# Principal axes in which the Fréchet distance compares: a few hundred heads do not determine more.
FRECHET_AXES = 32
# The least standard deviation that the kernel distance divides by: cells that no head reaches hardly vary.
MIN_STD = 0.1
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


def _features(mesh: trimesh.Trimesh | None) -> np.ndarray:
    return np.concatenate([_band_energies(_view(mesh, yaw)) for yaw in YAWS])


def _view(mesh: trimesh.Trimesh | None, yaw: float) -> np.ndarray:
    if mesh is None:
        return np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3))
    return normal_map(mesh, Camera(size=IMAGE_SIZE, yaw=yaw, height_mm=IMAGE_HEIGHT_MM))


def _band_energies(image: np.ndarray) -> np.ndarray:
    """Return the logarithm of a normal map's (size, size, 3) energy in each band and cell: ratios are what one sees."""
    smooth = [gaussian_filter(image, (sigma, sigma, 0)) for sigma in GAUSSIAN_SIGMAS]
    bands = [np.square(fine - coarse).sum(2) for fine, coarse in zip(smooth, smooth[1:])]
    side = IMAGE_SIZE // CELLS
    cells = [band.reshape(CELLS, side, CELLS, side).mean((1, 3)) for band in bands]
    return np.log(np.array(cells) + ENERGY_FLOOR).ravel()


def frechet_distance(first: Float[np.ndarray, "n features"], second: Float[np.ndarray, "m features"]) -> float:
    """Return the Fréchet distance (Heusel et al. 2017) of two sets of features, in the principal axes of the second.

    |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))
    """
    mean = second.mean(0)
    axes = np.linalg.svd(second - mean, full_matrices=False)[2][:FRECHET_AXES]
    first, second = (first - mean) @ axes.T, (second - mean) @ axes.T
    offset = first.mean(0) - second.mean(0)
    covariances = [np.cov(one.T) for one in (first, second)]
    eigenvalues, eigenvectors = np.linalg.eigh(covariances[0])
    root = eigenvectors * np.sqrt(eigenvalues.clip(0)) @ eigenvectors.T
    # C1^(1/2) C2 C1^(1/2) is symmetric and has the eigenvalues of C1 C2.
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    return float(offset @ offset + np.trace(covariances[0] + covariances[1]) - 2 * cross)


def kernel_distance(first: Float[np.ndarray, "n features"], second: Float[np.ndarray, "m features"]) -> float:
    """Return the kernel distance (Bińkowski et al. 2018) x 1000: the unbiased squared MMD with a cubic kernel.

    Features are standardised by the second set.
    """
    mean, std = second.mean(0), second.std(0).clip(MIN_STD)
    first, second = (first - mean) / std, (second - mean) / std
    size = first.shape[1]
    within = []
    for one in (first, second):
        gram = (one @ one.T / size + 1) ** 3
        within.append((gram.sum() - np.trace(gram)) / (len(one) * (len(one) - 1)))
    return 1000 * float(sum(within) - 2 * ((first @ second.T / size + 1) ** 3).mean())
