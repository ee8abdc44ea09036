"""A sampled network and its mesh of several bodies in, a mesh of one body out: what stage 1 does with its fits.

A sample has no scan, so that it is held to what it says itself, but about its islands and pockets. On ICT heads that
moves the surface by 0.02 mm.
"""

import torch
import trimesh

from overfit.cube import Cube
from overfit.decode import bodies
from overfit.field import Field
from overfit.healing import heal
from overfit.occupancy import Occupancy

from .subspace import LOSS, Pool

# A sample may be more torn than a fit: of 256 heads, 4 rounds left 19 torn, 12 left 2 (BENCHMARKS.md).
ROUNDS = 12


def healed(field: Field, weights: torch.Tensor, mesh: trimesh.Trimesh, cube: Cube, resolution: int) -> trimesh.Trimesh:
    """What the weights (P,) decode to on a grid of that resolution once a few short rounds have brought them to one
    body, as far as they do. `mesh` is what they decode to so far, all bodies kept.
    """
    if len(bodies(mesh)) == 1:
        return mesh
    pool = Pool.of(field, cube, weights[None])
    label = Occupancy(pool.points[0].cpu().numpy(), pool.distance[0].cpu().numpy())
    (whole,) = heal(weights[None], [mesh], [label], field, cube, resolution, LOSS, ROUNDS)[1]
    return mesh if whole is None else whole
