"""Warps: affine maps and interpolation whose answers are known, inverses, folds, and rows of parameters."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from overfit.canonical.align import CORNERS
from overfit.canonical.warp import REACH_MM, UNIT_MM, Warp, WarpSpace, interpolation
from overfit.field import Field
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.similarity import Similarity
from overfit.neural_head import HeadSpace

CUBE = Cube((5.0, -10.0, 0.0), 150.0)
CENTRES = np.random.default_rng(0).uniform(-100, 100, (40, 3))
SCATTERED = tuple(map(tuple, CENTRES.tolist()))
POINTS = CUBE.to_millimetres(np.random.default_rng(1).uniform(-1, 1, (1200, 3)))
# Neither symmetric nor a rotation; it expands space by 1.15.
MATRIX = np.array([[1.1, 0.2, 0.0], [-0.1, 0.9, 0.1], [0.05, 0.0, 1.14]])
SHIFT = np.array([10.0, -20.0, 30.0])


def affine(points: np.ndarray) -> np.ndarray:
    return points @ MATRIX.T + SHIFT


def bent(seed: int = 2, std: float = 2.0) -> Warp:
    """A similarity transform with random displacements (mm) of the control points on top: about as bent as a head's."""
    pose = Similarity(1.1, Rotation.from_euler("xyz", [5, -8, 3], degrees=True).as_matrix(), SHIFT)
    offsets = std * np.random.default_rng(seed).standard_normal(CENTRES.shape)
    return Warp(WarpSpace(SCATTERED), pose(CENTRES) - CENTRES + offsets)


def swapped() -> Warp:
    """A warp that moves everything by one vector, but the two nearest control points into each other's place."""
    distance = cdist(CENTRES, CENTRES) + 1e9 * np.eye(len(CENTRES))
    one, other = np.unravel_index(distance.argmin(), distance.shape)
    displacements = np.tile([3.0, -2.0, 5.0], (len(CENTRES), 1))
    displacements[one] += CENTRES[other] - CENTRES[one]
    displacements[other] += CENTRES[one] - CENTRES[other]
    return Warp(WarpSpace(SCATTERED), displacements, neck_height=-12.0)


def test_control_points_are_moved_by_their_displacements():
    warp = bent()
    np.testing.assert_allclose(warp(CENTRES), CENTRES + warp.displacements, atol=1e-8)


def test_a_warp_is_the_closest_affine_map_and_wendland_functions_of_the_rest():
    warp = bent()

    def wendland(points: np.ndarray) -> np.ndarray:
        distance = cdist(points, CENTRES) / REACH_MM
        return np.where(distance < 1, (1 - distance) ** 4 * (1 + 4 * distance), 0)

    def affine_columns(points: np.ndarray) -> np.ndarray:
        return np.c_[points, np.ones(len(points))]

    closest = np.linalg.lstsq(affine_columns(CENTRES), warp.displacements)[0]
    rest = warp.displacements - affine_columns(CENTRES) @ closest
    expected = affine_columns(POINTS) @ closest + wendland(POINTS) @ np.linalg.solve(wendland(CENTRES), rest)
    np.testing.assert_allclose(warp(POINTS) - POINTS, expected, atol=1e-7)
    # It is far from affine.
    assert np.abs(expected - affine_columns(POINTS) @ np.linalg.lstsq(affine_columns(POINTS), expected)[0]).max() > 1


def test_a_warp_is_affine_beyond_the_reach_of_its_control_points():
    warp = bent()
    far = CENTRES.max(0) + REACH_MM + np.random.default_rng(3).uniform(0, 300, (50, 3))
    columns = np.c_[far, np.ones(len(far))]
    moved = warp(far)
    np.testing.assert_allclose(columns @ np.linalg.lstsq(columns, moved)[0], moved, atol=1e-6)


@pytest.mark.parametrize("control_points", [SCATTERED, CORNERS], ids=["scattered", "corners of a cube"])
def test_affine_maps_are_reproduced_exactly_inside_and_far_outside(control_points):
    centres = np.array(control_points)
    warp = Warp(WarpSpace(control_points), affine(centres) - centres)
    for points in (POINTS, 10 * POINTS):
        np.testing.assert_allclose(warp(points), affine(points), atol=1e-6)
    np.testing.assert_allclose(warp.determinants(POINTS), np.linalg.det(MATRIX), atol=1e-9)
    np.testing.assert_allclose(warp.inverse(affine(POINTS)), POINTS, atol=1e-6)


def test_the_interpolation_matrix_displaces_points_as_the_warp_does():
    warp = bent()
    moved = POINTS + interpolation(SCATTERED, POINTS) @ warp.displacements
    np.testing.assert_allclose(moved, warp(POINTS), atol=1e-7)


def test_inverses_are_usually_carried_back_to_a_tenth_of_a_millimetre():
    warp = bent()
    goal = warp(POINTS)
    back, found = np.linalg.norm(warp(warp.inverse(goal)) - goal, axis=1), warp.inverse(goal)
    assert np.percentile(back, 99) < 0.1 and back.max() < 0.5
    error = np.linalg.norm(found - POINTS, axis=1)
    assert np.percentile(error, 99) < 0.1 and error.max() < 0.5


def test_inverses_from_a_table_are_almost_those_without():
    warp = bent()
    found = warp.inverse_in(CUBE, warp(POINTS))
    error = np.linalg.norm(found - POINTS, axis=1)
    assert np.median(error) < 0.05 and error.max() < 0.5


def test_inverses_of_points_outside_of_the_table_are_finite():
    far = np.array([[0.0, -1000.0, 0.0], [500.0, 500.0, 500.0]])
    assert np.isfinite(bent().inverse_in(CUBE, far)).all()


def test_determinants_are_those_of_finite_differences():
    warp, step = bent(std=5.0), 1e-3
    columns = [(warp(POINTS + step * axis) - warp(POINTS - step * axis)) / (2 * step) for axis in np.eye(3)]
    expected = np.linalg.det(np.stack(columns, axis=2))
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(warp.determinants(POINTS), expected, atol=1e-6)


def test_a_warp_that_does_not_fold_stays_as_it_is():
    warp = bent()
    assert warp.unfolded(CUBE) is warp


def test_a_warp_that_folds_is_smoothed_until_it_does_not():
    warp = swapped()
    unfolded = warp.unfolded(CUBE)
    assert warp.determinants(POINTS).min() < 0 < unfolded.determinants(POINTS).min()
    # Also between the two points that were swapped, where the fold was.
    moved = np.abs(warp.displacements - warp.displacements.mean(0)).sum(1)
    middle = CENTRES[np.argsort(moved)[-2:]].mean(0)
    near = middle + np.random.default_rng(0).normal(scale=8, size=(500, 3))
    assert warp.determinants(near).min() < 0 < unfolded.determinants(near).min()
    np.testing.assert_allclose(unfolded.displacements.mean(0), warp.displacements.mean(0), atol=0.05)
    assert unfolded.neck_height == warp.neck_height and unfolded.space == warp.space
    # Far from the fold, little has changed.
    far = np.linalg.norm(CENTRES - middle, axis=1) > 80
    assert np.abs(unfolded.displacements - warp.displacements)[far].max() < 2


def test_smoothing_leaves_affine_maps_alone():
    displacements = affine(CENTRES) - CENTRES + swapped().displacements
    unfolded = Warp(WarpSpace(SCATTERED), displacements).unfolded(CUBE).displacements
    alone = swapped().unfolded(CUBE).displacements
    # Both are smoothed alike: one is the other plus the affine map.
    np.testing.assert_allclose(unfolded - alone, affine(CENTRES) - CENTRES, atol=1e-6)


@pytest.mark.parametrize("cuts_neck", [False, True])
def test_parameters_become_the_warp_that_they_come_from(cuts_neck):
    space, warp = WarpSpace(SCATTERED, cuts_neck), bent()
    parameters = space.parameters(warp.displacements, -123.4)
    assert parameters.shape == (space.size,) == (3 * len(CENTRES) + cuts_neck,)
    again = space.warp(parameters)
    np.testing.assert_allclose(again.displacements, warp.displacements, atol=1e-4)
    assert again.neck_height == (pytest.approx(-123.4, abs=1e-4) if cuts_neck else None)
    assert torch.equal(space.parameters(again.displacements, again.neck_height), parameters)


def test_without_control_points_there_is_no_warp():
    assert WarpSpace().size == 0
    assert WarpSpace().warp(WarpSpace().parameters(np.zeros((0, 3)), -100.0)) is None


def test_the_mean_of_parameters_is_the_mean_of_heads():
    space, warps = WarpSpace(SCATTERED, True), [bent(seed) for seed in range(4)]
    heights = (-100.0, -110.0, -130.0, -90.0)
    rows = torch.stack([space.parameters(warp.displacements, height) for warp, height in zip(warps, heights)])
    mean = space.warp(rows.mean(0))
    np.testing.assert_allclose(mean(POINTS), np.mean([warp(POINTS) for warp in warps], axis=0), atol=1e-3)
    assert mean.neck_height == pytest.approx(np.mean(heights), abs=1e-4)


def test_spaces_come_back_from_json():
    for warps in (WarpSpace(), WarpSpace(CORNERS), WarpSpace(SCATTERED, True)):
        assert WarpSpace.of(json.loads(json.dumps(asdict(warps)))) == warps
        space = HeadSpace(Field(hidden=(4,)), CUBE, warps)
        plain = json.loads(json.dumps(asdict(space)))
        assert HeadSpace.of(plain) == space and hash(HeadSpace.of(plain)) == hash(space)
    # Older stores and checkpoints say nothing about warps.
    del plain["warps"]
    assert HeadSpace.of(plain) == HeadSpace(Field(hidden=(4,)), CUBE)


def test_the_unit_of_parameters_is_ten_centimetres():
    displacements = np.zeros((len(CENTRES), 3))
    displacements[1, 2] = UNIT_MM
    expected = torch.zeros(3 * len(CENTRES))
    expected[5] = 1.0
    assert torch.equal(WarpSpace(SCATTERED).parameters(displacements, None), expected)
