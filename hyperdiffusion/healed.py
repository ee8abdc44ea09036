"""Sampled networks that decode to several bodies in, the same of one body out: what stage 1 does with its fits.

A sample has no scan, so that it is held to what it says itself, but about its islands and pockets. On ICT heads that
moves the surface by 0.02 mm.
"""

import torch

from overfit.cube import Cube
from overfit.field import Field
from overfit.healing import heal
from overfit.occupancy import Occupancy

from .subspace import LOSS, Pool

# A sample may be more torn than a fit: of 256 heads, 4 rounds left 19 torn, 12 left 2 (BENCHMARKS.md).
ROUNDS = 12


def healed(field: Field, weights: torch.Tensor, cube: Cube, resolution: int) -> torch.Tensor:
    """Weights (P,) of one body on a grid of that resolution, as far as a few short rounds bring it there."""
    pool = Pool.of(field, cube, weights[None])
    label = Occupancy(pool.points[0].cpu().numpy(), pool.distance[0].cpu().numpy())
    return heal(weights[None], [label], field, cube, resolution, LOSS, ROUNDS)[0][0]
