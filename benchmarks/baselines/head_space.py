"""Fits where their heads are: fits in canonical space in, signed distances about the heads in a cube around all out.

The baselines on fields and on grids know nothing of warps. They learn heads in place, with the necks cut, as a fit
without a warp has them.
"""

import numpy as np
import torch
from jaxtyping import Float

from overfit import FIELD_LOSS, Cube, DecodeConfig, FieldLabels, Fits, NeuralHead, RunContext, try_decode

# The grid on which the extent of a head is found.
COARSE = DecodeConfig(resolution=64)
# Space between the largest head and the sides of the cube, as a share of the cube: that of a store.
MARGIN = 0.05


def cube_of(fits: Fits) -> Cube:
    """Return a cube in millimetres around all heads; the fits' own if they are not warped."""
    if not fits.space.warps.size:
        return fits.space.cube
    meshes = [try_decode(fits.head(index), COARSE) for index in range(len(fits.records))]
    return Cube.around(np.stack([mesh.bounds for mesh in meshes if mesh is not None]), MARGIN)


def distances(head: NeuralHead, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Return what a head's network says about signed distances at points in head space; all in millimetres."""
    canonical = points if head.warp is None else head.warp.inverse_in(head.cube, points)
    in_field = head.cube.to_field(canonical)
    # The network says nothing about what lies outside of its cube, which is outside of the head.
    inside = in_field.clip(-1, 1)
    beyond = head.cube.half * np.linalg.norm(in_field - inside, axis=1)
    with torch.no_grad():
        logits = head.field(head.weights, torch.from_numpy(inside.astype(np.float32))).double().numpy()
    distance = beyond - FIELD_LOSS.softness_mm * logits
    if head.warp is None or head.warp.neck_height is None:
        return distance
    return np.maximum(distance, head.warp.neck_height - points[:, 1])


def labels_of(fits: Fits, cube: Cube, *, context: RunContext = RunContext()) -> FieldLabels:
    """Return labels of all heads in a cube in head space."""
    labels = FieldLabels.of(fits.space.field, fits.space.cube, weights=fits.weights, context=context)
    if not fits.space.warps.size:
        return labels
    rng = np.random.default_rng(0)
    all_points, all_distances = [], []
    for index, in_field in enumerate(labels.points.double().numpy()):
        head = fits.head(index)
        canonical = fits.space.cube.to_millimetres(in_field)
        points = cube.to_field(canonical if head.warp is None else head.warp(canonical))
        # Where the cubes differ, points of the fits' cube leave parts of the other one empty.
        is_outside = (np.abs(points) > 1).any(1)
        points[is_outside] = rng.uniform(-1, 1, (is_outside.sum(), 3))
        all_points.append(points)
        all_distances.append(distances(head, cube.to_millimetres(points)))
    return FieldLabels(
        torch.from_numpy(np.stack(all_points)).float(), torch.from_numpy(np.stack(all_distances)).float()
    )
