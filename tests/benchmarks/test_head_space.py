"""Fits where their heads are: the distances of fields that are known in closed form."""

import numpy as np
import pytest
import torch
from baselines import head_space, voxel_diffusion

from overfit import FIELD_LOSS, Cube, Field, FitRecord, Fits, HeadSpace, WarpSpace
from overfit.canonical.align import CORNERS

CUBE = Cube((0.0, 0.0, 0.0), 120.0)
# Each head is a ball of 60 mm in canonical space, twice as large and somewhere else in its own place.
SCALE, RADIUS = 2.0, 60.0
SHIFTS = np.array([[0.0, 50.0, 20.0], [10.0, 0.0, 0.0]])
NECK = -40.0


class Ball(Field):
    """A field whose logits are those of a perfect fit to a ball, with distances in head space."""

    def __call__(self, weights, points):
        return SCALE * (RADIUS - CUBE.half * points.norm(dim=-1)) / FIELD_LOSS.softness_mm


def fits(*, cuts_neck: bool) -> Fits:
    space = HeadSpace(Ball(hidden=(4,)), CUBE, WarpSpace(CORNERS, cuts_neck))
    corners = np.array(CORNERS)
    warps = [space.warps.parameters(SCALE * corners + shift - corners, NECK) for shift in SHIFTS]
    parameters = torch.cat([torch.stack(warps), torch.zeros(2, space.field.size)], dim=1)
    return Fits(space, parameters, [FitRecord(name, name, 1.0, 0.1, 0.1, 1) for name in "ab"])


def true_distance(points: np.ndarray, shift: np.ndarray, *, cuts_neck: bool) -> np.ndarray:
    ball = np.linalg.norm(points - shift, axis=-1) - SCALE * RADIUS
    return np.maximum(ball, NECK - points[..., 1]) if cuts_neck else ball


@pytest.mark.parametrize("cuts_neck", [False, True])
def test_labels_are_those_of_the_heads_in_their_places(cuts_neck):
    heads = fits(cuts_neck=cuts_neck)
    cube = head_space.cube_of(heads)
    labels = head_space.labels_of(heads, cube)
    for index, shift in enumerate(SHIFTS):
        points = cube.to_millimetres(labels.points[index].double().numpy())
        expected = true_distance(points, shift, cuts_neck=cuts_neck)
        np.testing.assert_allclose(labels.distance[index], expected, atol=0.01)
        assert np.median(np.abs(expected)) < 10
    assert labels.points.abs().max() <= 1


def test_the_cube_holds_all_heads_and_no_more():
    cube = head_space.cube_of(fits(cuts_neck=True))
    radius = SCALE * RADIUS
    # The highest, foremost ... points of both; below, the plane of the necks.
    bounds = np.array([[-radius, NECK, -radius], [radius + 10, 50 + radius, 20 + radius]])
    assert cube.contains(bounds)
    assert cube.half == pytest.approx(np.ptp(bounds, axis=0).max() / 2 * 1.05, rel=0.02)


def test_grids_hold_truncated_distances_to_the_heads_in_their_places():
    heads = fits(cuts_neck=True)
    cube = head_space.cube_of(heads)
    grids = voxel_diffusion._distance_grids(heads, cube, 24)
    axis = np.linspace(-1, 1, 24)
    nodes = cube.to_millimetres(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1))
    for grid, shift in zip(grids, SHIFTS):
        expected = (true_distance(nodes, shift, cuts_neck=True) / voxel_diffusion.BAND_MM).clip(-1, 1)
        np.testing.assert_allclose(grid, expected, atol=1e-3)


def test_heads_that_are_not_warped_keep_their_cube_and_labels():
    warped = fits(cuts_neck=False)
    space = HeadSpace(warped.space.field, CUBE)
    plain = Fits(space, warped.weights, warped.records)
    assert head_space.cube_of(plain) == CUBE
    labels = head_space.labels_of(plain, CUBE)
    points = CUBE.to_millimetres(labels.points[0].double().numpy())
    np.testing.assert_allclose(labels.distance[0], SCALE * (np.linalg.norm(points, axis=1) - RADIUS), atol=0.01)
