"""Healing: fits that decode to several bodies in, fits of one body out.

Twice in a fit's life. `review` looks at the unfinished fit and revises the labels about its strays, so that the rest of
the steps closes them: pockets behind lips, ears that touch the head. `heal` looks at the finished one and spends a few
short rounds on the slivers that are left.
"""

import numpy as np
import torch
import trimesh

from .cube import Cube
from .decode import bodies, decode
from .errors import BadInput
from .field import Field
from .fit import Fitting, fit
from .occupancy import Occupancy, tensors
from .one_body import EXTRA, one_body

# What is added to the logits for the review: a surface grown by a fraction of a millimetre seals what nearly is sealed.
GROWN = 0.3
# Rounds over a finished fit, their steps and their rate: gentle, since the fit is good but for a cubic millimetre.
ROUNDS, STEPS, RATE = 4, 150, 5e-4
# Share of a round's points that lie about the strays.
ABOUT = 0.1


def review(weights: torch.Tensor, labels: list[Occupancy], field: Field, cube: Cube, resolution: int,
           ) -> list[Occupancy]:
    """Labels by which the unfinished fits (scans, P) become heads of one body."""
    revised = []
    for row, label in zip(weights, labels):
        # The last entry of the weights is the logit's bias.
        grown = torch.cat([row[:-1], row[-1:] + GROWN])
        mesh = whole_mesh(field, grown, cube, resolution)
        revised.append(label if mesh is None else one_body(label, mesh, cube, np.random.default_rng(0)))
    return revised


def heal(weights: torch.Tensor, meshes: list[trimesh.Trimesh | None], labels: list[Occupancy], field: Field,
         cube: Cube, resolution: int, fitting: Fitting, rounds: int = ROUNDS,
         ) -> tuple[torch.Tensor, list[trimesh.Trimesh | None]]:
    """Finished fits (scans, P) and what they decode to in, both with those of several bodies fitted on until they are
    of one out.

    A fit that holds no surface has no mesh. After so many rounds, those that are still of several bodies stay so.
    """
    weights, meshes, labels = weights.clone(), list(meshes), list(labels)
    torn = range(len(meshes))
    for turn in range(rounds):
        torn = [index for index in torn if meshes[index] is not None and len(bodies(meshes[index])) > 1]
        if not torn:
            break
        rng = np.random.default_rng(turn)
        for index in torn:
            labels[index] = one_body(labels[index], meshes[index], cube, rng)
        patches = [_about_strays(labels[index], rng) for index in torn]
        weights[torn] = fit(field, weights[torn], *tensors(patches, weights.device), fitting, STEPS, RATE)
        for index in torn:
            meshes[index] = whole_mesh(field, weights[index], cube, resolution)
    return weights, meshes


def whole_mesh(field: Field, weights: torch.Tensor, cube: Cube, resolution: int) -> trimesh.Trimesh | None:
    """The mesh in millimetres of the weights (P,), all its bodies kept, or None where they hold no surface."""
    try:
        return decode(field, weights, cube, resolution, keep_islands=True)
    except BadInput:
        return None


def _about_strays(label: Occupancy, rng: np.random.Generator) -> Occupancy:
    """The revised labels' last points, which lie about the strays, and so many others that they are their share."""
    others = rng.choice(len(label.points) - EXTRA, min(round(EXTRA / ABOUT), len(label.points)) - EXTRA, replace=False)
    chosen = np.r_[others, len(label.points) - EXTRA:len(label.points)]
    return Occupancy(label.points[chosen], label.distance[chosen])
