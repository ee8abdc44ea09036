"""Repair of networks with several connected components: fits or samples in, the same with one component out.

Closed lips and deep folds enclose pockets of air, and a network shows them as bubbles inside the head, or makes islands
where it is wrong. Neither is seen from outside. Where a network has such strays, their surroundings decide: the points
in and near a stray are relabelled as what surrounds it, and a few steps of fitting to the new labels remove it.

There are three occasions. `revise_labels` looks at unfinished fits, so that the rest of their steps closes what is
large: pockets behind lips, ears that touch the head. `repair_fits` spends a few short rounds on the slivers that are
left in finished fits. `repair_sample` does so with a sample, which is fitted to its own logits for want of a scan.
All of it happens in canonical space: no head is warped yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import igl
import numpy as np
import torch
import trimesh
from jaxtyping import Float

from overfit.decoder import DecodeConfig, try_decode
from overfit.field import Field
from overfit.field_labels import FIELD_LOSS, FieldLabels
from overfit.fit import FitConfig, fit
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.mesh import connected_components, igl_arrays
from overfit.labels import LabelBatch, Labels
from overfit.neural_head import NeuralHead

# Added to the logits when labels are revised: a surface grown by a fraction of a millimetre seals what almost is.
REVISION_GROWTH = 0.3
# Rounds over a finished fit, at most.
FIT_ROUNDS = 4
# Rounds over a sample, at most. It has more strays than a fit: of 256 heads, 4 rounds left 19 with strays, 12 left 2.
SAMPLE_ROUNDS = 12
# Steps of a round.
ROUND_STEPS = 150
# Peak learning rate of a round; it is low, since the fit is good except for a cubic millimetre.
ROUND_LR = 5e-4
# Share of a round's points that are in and near the strays.
ROUND_STRAY_SHARE = 0.1
# Labels are revised up to this distance from a stray, in millimetres.
REACH_MM = 1.0
# Depth in what surrounds a stray that revised labels have at least, in millimetres.
DEPTH_MM = 1.0
# Points placed in and near the strays of one head, in place of its last ones: few of its own are there.
STRAY_POINTS = 4000


@dataclass(frozen=True)
class FittedHead:
    """A finished fit, with what is needed to repair it."""

    head: NeuralHead
    """The fitted network."""
    labels: Labels
    """The labels that it was fitted to."""
    mesh: trimesh.Trimesh | None
    """All components of its surface in millimetres, in canonical space, or None if it has no surface."""

    @property
    def has_strays(self) -> bool:
        """Whether the surface has more than one connected component."""
        return self.mesh is not None and len(connected_components(self.mesh)) > 1


def revise_labels(
    weights: Float[torch.Tensor, "scans P"],
    labels: Sequence[Labels],
    *,
    field: Field,
    cube: Cube,
    resolution: int,
) -> list[Labels]:
    """Return labels that remove the strays of unfinished fits; fits without strays keep theirs."""
    config = DecodeConfig(resolution, keep_all_components=True)
    revised = []
    for row, label in zip(weights, labels):
        # The last entry of the weights is the logit's bias.
        grown = torch.cat([row[:-1], row[-1:] + REVISION_GROWTH])
        mesh = try_decode(NeuralHead(field, cube, grown), config)
        revised.append(label if mesh is None else relabel_strays(label, mesh, cube=cube, rng=np.random.default_rng(0)))
    return revised


def repair_fits(
    fits: Sequence[FittedHead], *, resolution: int, config: FitConfig, rounds: int = FIT_ROUNDS
) -> list[FittedHead]:
    """Return finished fits, those with strays fitted on until they have one component or the rounds are used up.

    Args:
        fits: Fits of one field and one cube, with points of the same number.
        resolution: Grid nodes along a side of the cube on which strays are found.
        config: How the fits were made; rounds have their own steps and learning rate.
        rounds: Rounds of relabelling and fitting, at most.
    """
    fits = list(fits)
    round_config = replace(config, steps=ROUND_STEPS, lr=ROUND_LR, mixture_weight=0.0)
    remaining = list(range(len(fits)))
    for seed in range(rounds):
        remaining = [index for index in remaining if fits[index].has_strays]
        if not remaining:
            break
        rng = np.random.default_rng(seed)
        repaired = _repair_round([fits[index] for index in remaining], resolution, round_config, rng)
        for index, fitted in zip(remaining, repaired):
            fits[index] = fitted
    return fits


def repair_sample(head: NeuralHead, mesh: trimesh.Trimesh, *, resolution: int) -> trimesh.Trimesh:
    """Return the mesh of a sample with its strays removed, as far as `SAMPLE_ROUNDS` rounds do so.

    The sample is fitted to its own logits except near its strays. On ICT heads that moves the surface by 0.02 mm.

    Args:
        head: The sampled network.
        mesh: All components of its surface in millimetres, in canonical space.
        resolution: Grid nodes along a side of the cube on which `mesh` was made.
    """
    if len(connected_components(mesh)) == 1:
        return mesh
    own = FieldLabels.of(head.field, head.cube, weights=head.weights[None])
    labels = Labels(own.points[0].cpu().numpy(), own.distance[0].cpu().numpy())
    (repaired,) = repair_fits(
        [FittedHead(head, labels, mesh)], resolution=resolution, config=FIELD_LOSS, rounds=SAMPLE_ROUNDS
    )
    return mesh if repaired.mesh is None else repaired.mesh


def _repair_round(
    fits: list[FittedHead], resolution: int, config: FitConfig, rng: np.random.Generator
) -> list[FittedHead]:
    """The fits after one round of relabelling and fitting; each has a mesh."""
    field, cube = fits[0].head.field, fits[0].head.cube
    start = torch.stack([fitted.head.weights for fitted in fits])
    labels = [
        relabel_strays(fitted.labels, fitted.mesh, cube=cube, rng=rng) for fitted in fits if fitted.mesh is not None
    ]
    chosen = LabelBatch.stack([_with_stray_share(label, rng) for label in labels], start.device)
    heads = [NeuralHead(field, cube, row) for row in fit(field, start, chosen, config=config)]
    decode_config = DecodeConfig(resolution, keep_all_components=True)
    return [FittedHead(head, label, try_decode(head, decode_config)) for head, label in zip(heads, labels)]


def _with_stray_share(label: Labels, rng: np.random.Generator) -> Labels:
    """All points in and near the strays, and others of such a number that strays have their share."""
    own_points = len(label) - STRAY_POINTS
    others = min(round(STRAY_POINTS / ROUND_STRAY_SHARE), len(label)) - STRAY_POINTS
    return label[np.r_[rng.choice(own_points, others, replace=False), own_points : len(label)]]


def relabel_strays(label: Labels, mesh: trimesh.Trimesh, *, cube: Cube, rng: np.random.Generator) -> Labels:
    """Return the labels revised in and near all components but the largest.

    The last `STRAY_POINTS` points are replaced by points in and near the strays. Without strays, the labels are
    returned as they are.

    Args:
        label: More than `STRAY_POINTS` labelled points.
        mesh: What the network decodes to so far, in millimetres.
        cube: The field's cube.
        rng: The source of randomness.
    """
    _, *strays = connected_components(mesh)
    if not strays:
        return label
    millimetres = cube.to_millimetres(label.points[:-STRAY_POINTS].astype(np.float64))
    distance = label.distance[:-STRAY_POINTS].copy()
    # Every stray gets the same number of points: the small ones are the hardest to remove.
    counts = np.bincount(rng.integers(len(strays), size=STRAY_POINTS), minlength=len(strays))
    all_points, all_distances = [millimetres], [distance]
    for stray, count in zip(strays, counts.tolist()):
        # Normals point out of what is solid: a pocket of air inside the head has a negative volume.
        side = np.sign(stray.volume)
        near = _near_stray(stray, millimetres)
        distance[near] = side * np.maximum(np.abs(distance[near]), DEPTH_MM)
        all_points.append(_points_in_stray(stray, count, rng))
        all_distances.append(np.full(count, side * DEPTH_MM))
    points = cube.to_field(np.concatenate(all_points))
    return Labels(points.astype(np.float32), np.concatenate(all_distances).astype(np.float32))


def _points_in_stray(stray: trimesh.Trimesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (count, 3) in a stray and within half the reach of its surface."""
    ends = stray.vertices[rng.integers(len(stray.vertices), size=(2, count))]
    near_surface = ends[0] + rng.uniform(-REACH_MM / 2, REACH_MM / 2, (count, 3))
    # Chords of a shape that is not convex leave it.
    on_chords = ends[0] + rng.random((count, 1)) * (ends[1] - ends[0])
    return np.where(_inside(stray, on_chords)[:, None], on_chords, near_surface)


def _near_stray(stray: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Indices of the points (n, 3) that are in a stray or within reach of its surface."""
    low, high = stray.bounds
    near = np.nonzero(((points > low - REACH_MM) & (points < high + REACH_MM)).all(1))[0]
    if not len(near):
        return near
    within_reach = igl.point_mesh_squared_distance(points[near], *igl_arrays(stray))[0] < REACH_MM**2
    return near[within_reach | _inside(stray, points[near])]


def _inside(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    return np.abs(igl.fast_winding_number(*igl_arrays(mesh), np.ascontiguousarray(points, np.float64))) > 0.5
