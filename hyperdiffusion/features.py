"""What people see and chamfer does not: meshes in; features of their rendered normal maps, and distances of sets, out.

Bumpy skin and lost eyes leave 2,048 points where they were, and change how the surface turns. No pretrained network
comes with a package, so the features are fixed multi-scale statistics: how strongly the normals change at each of four
scales (differences of Gaussians, Burt and Adelson 1983), by cells of the picture, from three sides.
"""

from collections.abc import Callable, Sequence

import numpy as np
import trimesh
from scipy.ndimage import gaussian_filter

from overfit import workers

from .render import normal_map

# The views: pixels, degrees that the head is turned by, and their height in millimetres.
SIZE, TURNS, EXTENT = 128, (-45.0, 0.0, 45.0), 300.0
# Scales in pixels, each twice the one before, and cells along a side of the picture.
SCALES, CELLS = (0.5, 1.0, 2.0, 4.0, 8.0), 8
# Axes in which the Fréchet distance compares: more than a few hundred heads do not fix.
AXES = 32
# Features (logarithms) that vary by less hold nothing: cells that no head reaches.
LEAST = 0.1


def features(meshes: Sequence[trimesh.Trimesh | None], cores: int = 1,
             progress: Callable[[int], None] = lambda heads: None) -> np.ndarray:
    """(heads, n) features of each mesh; those of an empty picture where there is none."""
    return np.array(workers.gathered(_features, [(mesh,) for mesh in meshes], progress, min(cores, len(meshes) // 8)))


def _features(mesh: trimesh.Trimesh | None, progress: Callable[[int], None]) -> np.ndarray:
    views = [np.zeros((SIZE, SIZE, 3)) if mesh is None else normal_map(mesh, SIZE, turn, EXTENT) for turn in TURNS]
    progress(1)
    return np.concatenate([_bands(view) for view in views])


def _bands(view: np.ndarray) -> np.ndarray:
    """Energy of a normal map (SIZE, SIZE, 3) in each band and cell, as a logarithm: ratios are what is seen."""
    smooth = [gaussian_filter(view, (scale, scale, 0)) for scale in SCALES]
    bands = [np.square(fine - coarse).sum(2) for fine, coarse in zip(smooth, smooth[1:])]
    side = SIZE // CELLS
    cells = [band.reshape(CELLS, side, CELLS, side).mean((1, 3)) for band in bands]
    return np.log(np.array(cells) + 1e-5).ravel()


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance (Heusel et al. 2017) of two sets of features (n, d), in the second set's principal axes."""
    mean = second.mean(0)
    axes = np.linalg.svd(second - mean, full_matrices=False)[2][:AXES]
    first, second = (first - mean) @ axes.T, (second - mean) @ axes.T
    off = first.mean(0) - second.mean(0)
    covariances = [np.cov(one.T) for one in (first, second)]
    energy, turn = np.linalg.eigh(covariances[0])
    root = turn * np.sqrt(energy.clip(0)) @ turn.T
    # The trace of the root of C1 C2, by a symmetric matrix of the same eigenvalues.
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    return float(off @ off + np.trace(covariances[0] + covariances[1]) - 2 * cross)


def kernel(first: np.ndarray, second: np.ndarray) -> float:
    """Kernel distance (Bińkowski et al. 2018): unbiased squared MMD of sets (n, d) by the cubic kernel, x 1000."""
    mean, deviation = second.mean(0), second.std(0).clip(LEAST)
    first, second = (first - mean) / deviation, (second - mean) / deviation
    size = first.shape[1]
    within = []
    for one in (first, second):
        gram = (one @ one.T / size + 1) ** 3
        within.append((gram.sum() - np.trace(gram)) / (len(one) * (len(one) - 1)))
    return 1000 * float(sum(within) - 2 * ((first @ second.T / size + 1) ** 3).mean())
