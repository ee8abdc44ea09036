"""Fits networks on to what a scan shows: heads near to it in; heads that agree with it, and are else the same, out.

Codes express a head to a millimetre; the scan is more exact. Labels about the scan's surface and in the free space
before it come from the scan, all others from the networks themselves, so that what is not seen is held.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree

from overfit import FIELD_LOSS, FieldLabels, FitConfig, HeadSpace, LabelBatch, Labels, Warp
from overfit.fit import fit
from overfit.geometry.point_cloud import PointCloud

# Labels about the scan's surface, and the standard deviation of their distances in mm.
SEEN_LABELS = 12_000
SEEN_SIGMA_MM = 1.5
# A label whose nearest point of the scan is closer than this share of its distance lies near another part of it.
MIN_DISTANCE_SHARE = 0.7
# Labels in the free space before the scan's surface, up to this distance in mm: nothing may float before what is seen.
FREE_LABELS = 6_000
FREE_MM = 30.0
# Cosine between a normal and the direction of a point from the scan's nearest one, from which it lies before the scan:
# at the border of a scan, what lies aside may be an ear.
MIN_FREE_COSINE = 0.9
# Labels that hold the rest, which is farther than this from the scan, in mm: between both, the surface may bend.
HELD_LABELS = 8_000
HELD_BEYOND_MM = 8.0
# With less, thin parts such as the rims of glasses are not reached in so few steps.
PEAK_LR = 1e-2


def fit_seen(
    space: HeadSpace,
    parameters: Float[torch.Tensor, "heads S"],
    seen: PointCloud,
    *,
    steps: int,
    seed: int = 0,
) -> Float[torch.Tensor, "heads S"]:
    """Return the parameters of heads whose networks are fitted on to points of a scan; their warps stay.

    Args:
        space: How parameters are read.
        parameters: Heads that lie close to the scan.
        seen: Points of the scan with normals, in millimetres in the heads' frame.
        steps: Optimizer steps.
        seed: Seed of the labels.
    """
    rng = np.random.default_rng(seed)
    weights = space.weights(parameters).clone()
    own = FieldLabels.of(space.field, space.cube, weights=weights)
    tree = cKDTree(seen.points)
    labels = []
    for row, points, distance in zip(parameters, own.points.numpy(), own.distance.numpy()):
        warp = space.head(row).warp
        assert warp is not None
        shown = _seen_labels(space, warp, seen, tree, rng)
        free = _free_labels(space, warp, seen, tree, rng)
        held = _held_labels(space, warp, Labels(points, distance), seen, tree, rng)
        kinds = (shown, free, held)
        together = Labels(*(np.concatenate([getattr(one, name) for one in kinds]) for name in ("points", "distance")))
        labels.append(together[rng.permutation(len(together))])
    config = FitConfig(steps=steps, lr=PEAK_LR, mixture_weight=0.0, softness_mm=FIELD_LOSS.softness_mm)
    fitted = fit(space.field, weights, LabelBatch.stack(labels, weights.device), config=config)
    return torch.cat([space.warp_parameters(parameters), fitted], dim=1)


def _seen_labels(space: HeadSpace, warp: Warp, seen: PointCloud, tree: cKDTree, rng: np.random.Generator) -> Labels:
    """Points beside the scan's surface, along its normals, and their signed distances."""
    chosen = seen[rng.integers(len(seen.points), size=2 * SEEN_LABELS)]
    offset = SEEN_SIGMA_MM * rng.standard_normal(len(chosen.points))
    points = chosen.points + offset[:, None] * chosen.known_normals
    kept = np.nonzero(tree.query(points)[0] >= MIN_DISTANCE_SHARE * np.abs(offset))[0]
    kept = rng.choice(kept, SEEN_LABELS)
    points, offset, chosen = points[kept], offset[kept], chosen[kept]
    canonical = warp.inverse_in(space.cube, points)
    # The inverse only chose the points: what counts is where the warp carries them.
    distance = offset + ((warp(canonical) - points) * chosen.known_normals).sum(1)
    return Labels(space.cube.to_field(canonical).astype(np.float32), distance.astype(np.float32))


def _free_labels(space: HeadSpace, warp: Warp, seen: PointCloud, tree: cKDTree, rng: np.random.Generator) -> Labels:
    """Points in the free space before the scan, and their distances to it."""
    chosen = seen[rng.integers(len(seen.points), size=2 * FREE_LABELS)]
    height = rng.uniform(0, FREE_MM, len(chosen.points))
    canonical = warp.inverse_in(space.cube, chosen.points + height[:, None] * chosen.known_normals)
    distance, before = _before_scan(warp(canonical), seen, tree)
    kept = rng.choice(np.nonzero(before)[0], FREE_LABELS)
    return Labels(space.cube.to_field(canonical[kept]).astype(np.float32), distance[kept].astype(np.float32))


def _held_labels(
    space: HeadSpace, warp: Warp, own: Labels, seen: PointCloud, tree: cKDTree, rng: np.random.Generator
) -> Labels:
    """A network's own labels away from the scan and not before it; some of them several times."""
    distance, before = _before_scan(warp(space.cube.to_millimetres(own.points)), seen, tree)
    away = (distance > HELD_BEYOND_MM) & ~(before & (distance < FREE_MM))
    return own[rng.choice(np.nonzero(away)[0], HELD_LABELS)]


def _before_scan(points: np.ndarray, seen: PointCloud, tree: cKDTree) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n,) of points to the scan, and whether they lie before its surface."""
    distance, nearest = tree.query(points)
    height = ((points - seen.points[nearest]) * seen.known_normals[nearest]).sum(1)
    return distance, height > MIN_FREE_COSINE * distance
