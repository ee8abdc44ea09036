"""Labels of spheres, whose signed distance is known."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from support import ellipsoid

from overfit import BadInput, Cube, LabelConfig
from overfit import labels as labels_module
from overfit.canonical.align import CORNERS
from overfit.canonical.neck import EXTENSION_MM, cut_neck, extend_neck
from overfit.canonical.warp import Warp, WarpSpace
from overfit.labels import LabelBatch, Labels, label_mesh

RADIUS = 100.0
CUBE = Cube((0.0, 0.0, 0.0), 150.0)
FEW = LabelConfig(near_points=4000, band_points=1000, uniform_points=1000)


def sphere() -> trimesh.Trimesh:
    return ellipsoid((RADIUS,) * 3, subdivisions=4)


def hollow_sphere() -> trimesh.Trimesh:
    """A sphere with a cavity of half its radius, and a way into it one millimetre in radius."""
    opening = trimesh.creation.cylinder(1.0, segment=[[0, 0, 0], [0, 0, 200]])
    return sphere().difference(trimesh.creation.icosphere(3, 50.0)).difference(opening)


def true_distance(labels: Labels) -> np.ndarray:
    return np.linalg.norm(CUBE.to_millimetres(labels.points), axis=1) - RADIUS


def labels_of(mesh: trimesh.Trimesh, seed: int = 0, warp: Warp | None = None, **changes) -> Labels:
    config = dataclasses.replace(FEW, **changes)
    return label_mesh(mesh, CUBE, config=config, rng=np.random.default_rng(seed), warp=warp)


def bent(neck_height: float | None = None) -> Warp:
    """A warp that makes things smaller, turns and bends them."""
    control_points = np.random.default_rng(0).uniform(-120, 120, (40, 3))
    matrix = np.array([[0.9, 0.1, 0.0], [-0.1, 0.85, 0.1], [0.0, 0.0, 0.9]])
    offsets = np.random.default_rng(1).normal(scale=2, size=(40, 3))
    space = WarpSpace(tuple(map(tuple, control_points.tolist())), cuts_neck=neck_height is not None)
    return Warp(space, control_points @ matrix.T - control_points + offsets, neck_height)


def signed_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """By trimesh, which shares no code with ours."""
    distance = trimesh.proximity.closest_point(mesh, points)[1]
    return np.where(mesh.contains(points), -distance, distance)


def test_labels_have_the_true_distances_at_the_places_that_the_config_names():
    labels = labels_of(sphere())
    assert labels.points.shape == (6000, 3) and labels.points.dtype == labels.distance.dtype == np.float32
    # The distance of normally distributed offsets from a plane has the mean sigma sqrt(2 / pi).
    near, band = np.abs(labels.distance[:4000]), np.abs(labels.distance[4000:5000])
    assert near.mean() == pytest.approx(FEW.near_sigma_mm * np.sqrt(2 / np.pi), rel=0.1)
    assert band.mean() == pytest.approx(FEW.band_sigma_mm * np.sqrt(2 / np.pi), rel=0.1)
    assert np.abs(labels.points[5000:]).max() <= 1 and np.abs(labels.points[5000:].mean()) < 0.05
    np.testing.assert_allclose(labels.distance, true_distance(labels), atol=0.4)


def test_near_points_may_be_as_far_from_the_surface_as_a_share_of_the_cube():
    labels = labels_of(sphere(), near_sigma_share=0.01, band_points=0, uniform_points=0, gap_mm=0.0)
    # Of an offset in three dimensions, one is across the surface.
    assert labels.distance.std() == pytest.approx(0.01 * 2 * CUBE.half, abs=0.15)


def test_labels_depend_only_on_the_generator():
    first, again, other = (labels_of(sphere(), seed) for seed in (0, 0, 1))
    assert np.array_equal(first.points, again.points) and not np.array_equal(first.points, other.points)


def test_a_warp_that_moves_nothing_changes_no_label():
    still = Warp(WarpSpace(CORNERS), np.zeros((8, 3)))
    plain, warped = labels_of(sphere()), labels_of(sphere(), warp=still)
    np.testing.assert_allclose(warped.points, plain.points, atol=1e-6)
    np.testing.assert_allclose(warped.distance, plain.distance, atol=1e-3)


@pytest.mark.parametrize("ends_in_plane", [False, True])
def test_warped_points_have_the_distances_of_where_they_are_on_the_head(ends_in_plane):
    """Where the head ends in a plane, that is a head with a longer neck."""
    height = -60.0 if ends_in_plane else None
    warp, mesh = bent(height), ellipsoid((85, 100, 90), subdivisions=4)
    if height is not None:
        mesh = cut_neck(mesh, height)
    labels = labels_of(mesh, warp=warp, gap_mm=0.0)
    on_head = warp(CUBE.to_millimetres(labels.points.astype(float)))
    expected = signed_distance(extend_neck(mesh) if ends_in_plane else mesh, on_head)
    np.testing.assert_allclose(labels.distance, expected, atol=1e-3)
    near, band = np.abs(labels.distance[:4000]), np.abs(labels.distance[4000:5000])
    # Half of a normal distribution lies within 0.6745 standard deviations.
    assert np.median(near) == pytest.approx(0.6745 * FEW.near_sigma_mm, rel=0.1)
    assert np.median(band) == pytest.approx(0.6745 * FEW.band_sigma_mm, rel=0.15)
    assert np.abs(labels.points[5000:]).max() <= 1 and np.abs(labels.points[5000:].mean()) < 0.05


def test_no_points_are_spent_on_the_plane_of_a_neck():
    mesh = cut_neck(ellipsoid((85, 100, 90), subdivisions=4), -60.0)
    warp = bent(-60.0)
    labels = labels_of(mesh, warp=warp, gap_mm=0.0)
    on_head = warp(CUBE.to_millimetres(labels.points.astype(float)))
    middle = np.linalg.norm(on_head[:, [0, 2]], axis=1) < 40
    near_plane = middle & (np.abs(on_head[:, 1] + 60) < 10)
    assert near_plane[:5000].sum() == 0 < near_plane[5000:].sum()
    # It is the inside of a longer neck, down to where that ends.
    in_neck = middle & (on_head[:, 1] < -60) & (on_head[:, 1] > -60 - EXTENSION_MM)
    assert in_neck.sum() > 10 and (labels.distance[in_neck] < 0).all()
    # Without a height there is a plane, as of any other part of the surface.
    closed = labels_of(mesh, warp=bent(), gap_mm=0.0)
    on_head = bent()(CUBE.to_millimetres(closed.points.astype(float)))[:5000]
    middle = np.linalg.norm(on_head[:, [0, 2]], axis=1) < 40
    assert (middle & (np.abs(on_head[:, 1] + 60) < 10)).sum() > 100


@pytest.mark.parametrize("overlap", [3.0, 100.0])
def test_a_narrow_gap_is_labelled_as_inside(overlap):
    lower, upper = (trimesh.creation.box((100, 100, 50)) for _ in range(2))
    lower.apply_translation([0, 0, -25.25])
    upper.apply_translation([100 - overlap, 0, 25.25])
    points = {"near_points": 40_000, "uniform_points": 20_000}
    plain, closed = (labels_of(lower + upper, gap_mm=gap, **points) for gap in (0.0, 0.8))

    def between(labels: Labels) -> np.ndarray:
        at = CUBE.to_millimetres(labels.points)
        from_middle = np.abs(at - [50 - overlap / 2, 0, 0])
        return labels.distance[(from_middle < [overlap / 2 - 1, 45, 0.2]).all(1)]

    assert (between(plain) > 0).all() and (between(closed) == np.float32(-0.4)).all()
    if overlap < 10:
        # Points that start in the gap stay there.
        assert len(between(closed)) > len(between(plain)) > 0
    else:
        # What nobody sees gets no points of its own.
        assert 0 < len(between(closed)) < len(between(plain))


def test_a_cavity_that_is_not_seen_from_outside_is_labelled_as_inside():
    """Behind a narrow opening it is as deep as the rest; the surface that is seen stays where it is."""
    mesh = hollow_sphere()
    plain, closed = (labels_of(mesh, gap_mm=gap, near_points=20_000, uniform_points=20_000) for gap in (0.0, 0.8))

    def from_centre(labels: Labels) -> np.ndarray:
        return true_distance(labels) + RADIUS

    assert (plain.distance[from_centre(plain) < 45] > 0).all()
    assert (closed.distance[from_centre(closed) < 48] <= -1.5).all()
    # The wall of the cavity is gone too, but for a few points about the opening.
    assert np.mean(closed.distance[np.abs(from_centre(closed) - 51) < 1] <= -1.4) > 0.9
    at_surface = np.abs(true_distance(closed)) < 10
    assert np.percentile(np.abs(closed.distance - true_distance(closed))[at_surface], 99) < 0.3


def test_a_cavity_that_is_filled_has_points_of_its_own():
    """Without any, fits of lips that are a little apart reached far into the mouth, and samples had bubbles there."""
    mesh = hollow_sphere()
    settings = {"band_points": 5000, "band_sigma_mm": 0.1, "uniform_points": 0}
    plain, closed = (labels_of(mesh, gap_mm=gap, near_points=1000, **settings) for gap in (0.0, 0.8))
    assert len(plain) == len(closed) == 6000
    radius = np.linalg.norm(CUBE.to_millimetres(closed.points), axis=1)
    # A tenth of the band: at the wall, behind it and as far in front of it as points are drawn.
    inside = (radius > 39) & (radius < 52)
    assert 450 < inside.sum() <= 500 and (closed.distance[inside] <= -1.4).mean() > 0.95
    assert np.ptp(radius[inside]) > 10


def test_neighbours_follow_each_other():
    """So that a batch that takes one point of each run covers the surface evenly."""
    labels = labels_of(sphere())
    for run in (labels.points[:4000], labels.points[4000:5000]):
        steps = np.linalg.norm(np.diff(run, axis=0), axis=1)
        shuffled = np.linalg.norm(np.diff(np.random.default_rng(0).permutation(run), axis=0), axis=1)
        assert steps.mean() < 0.3 * shuffled.mean()


def test_a_surface_that_encloses_nothing_is_refused():
    plane = trimesh.Trimesh([[-100, -100, 0], [100, -100, 0], [0, 100, 0]], [[0, 1, 2]], process=False)
    with pytest.raises(BadInput, match="encloses no volume"):
        labels_of(plane.subdivide_loop(4))


def test_the_sign_method_decides_who_measures(monkeypatch):
    monkeypatch.setattr(labels_module, "depth_scan_distance", lambda mesh, points: np.full(len(points), -7.0))
    assert (labels_of(sphere(), sign_method="mesh-to-sdf", gap_mm=0.0).distance == -7).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"face_share": 0.9, "detail_share": 0.2}, "`face_share=0.9`, `detail_share=0.2`"),
        ({"face_share": -0.1}, "`face_share=-0.1`: give 0 or more"),
        ({"near_points": -1}, "`near_points=-1`: give 0 or more"),
        ({"gap_mm": float("nan")}, "`gap_mm=nan`: give 0 or more"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        LabelConfig(**changes)


def test_labels_of_several_scans_are_stacked_in_their_order():
    first, second = (labels_of(sphere(), seed) for seed in (0, 1))
    batch = LabelBatch.stack([first[:10], second[:10]], torch.device("cpu"))
    np.testing.assert_array_equal(batch.points[1], second.points[:10])
    np.testing.assert_array_equal(batch.distance[0], first.distance[:10])
