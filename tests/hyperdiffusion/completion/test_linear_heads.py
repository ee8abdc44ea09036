"""Slopes of the included model's heads, against differences; models of other kinds are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hyperdiffusion import Checkpoint, WeightCoordinates
from hyperdiffusion.completion.linear_heads import LinearHeads
from overfit import BadInput, DecodeConfig, WarpSpace, decode


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.shipped(torch.device("cpu"))


@pytest.fixture(scope="module")
def heads(checkpoint) -> LinearHeads:
    return LinearHeads(checkpoint)


def test_slopes_are_those_of_the_surface(heads):
    rng = np.random.default_rng(0)
    code = 0.5 * rng.standard_normal(heads.size)
    mesh = decode(heads.head(code), DecodeConfig(96))
    triangles = rng.choice(np.nonzero(mesh.triangles_center[:, 1] > mesh.bounds[0, 1] + 20)[0], 60, replace=False)
    points = mesh.triangles_center[triangles]
    slopes = heads.slopes(code, points)
    # A grid of 4 mm is a little off the surface; normals are its own.
    assert np.abs(slopes.distance).mean() < 0.3
    assert np.median((slopes.normal * mesh.face_normals[triangles]).sum(1)) > 0.98
    # Moved along the normals, distances grow by as much.
    farther = heads.slopes(code, points + 0.2 * slopes.normal).distance - slopes.distance
    assert np.median(np.abs(farther - 0.2)) < 0.01
    change = rng.standard_normal(heads.size) / heads.size**0.5
    ahead, behind = (heads.slopes(code + step * change, points).distance for step in (0.02, -0.02))
    expected = (ahead - behind) / 0.04
    assert np.median(np.abs(slopes.by_code @ change - expected)) < 0.02 * np.abs(expected).mean()


def test_models_without_warps_or_a_latent_space_are_refused(checkpoint):
    for other in (
        replace(checkpoint, space=replace(checkpoint.space, warps=WarpSpace())),
        replace(checkpoint, coordinates=WeightCoordinates.raw(checkpoint.space.token_sizes)),
        replace(checkpoint, space=replace(checkpoint.space, field=replace(checkpoint.space.field, activation="relu"))),
    ):
        with pytest.raises(BadInput, match="`checkpoint`: (has no latent space|completion needs)"):
            LinearHeads(other)
