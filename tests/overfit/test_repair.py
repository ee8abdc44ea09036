"""Pockets and islands vanish, and everything else stays as it was."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from support import ellipsoid

from overfit import Cube, DecodeConfig, Field, FitConfig, NeuralHead, try_decode
from overfit.canonical.align import CORNERS
from overfit.canonical.warp import Warp, WarpSpace
from overfit.fit import ReviseLabels, fit
from overfit.geometry.mesh import connected_components
from overfit.labels import LabelBatch, Labels
from overfit.repair import (
    STRAY_POINTS,
    FittedHead,
    relabel_strays,
    repair_fits,
    repair_sample,
    revise_labels,
)

CPU = torch.device("cpu")
CUBE = Cube((0.0, 0.0, 0.0), 100.0)
FIELD = Field()
CONFIG = FitConfig(steps=600, points_per_step=1024)
RESOLUTION = 64
# Centres and radii of spheres, in millimetres.
HEAD = ((0, 0, 0), 60.0)
POCKET = ((0, 0, 30), 6.0)
ISLAND = ((75, 75, 75), 8.0)


def distance_to(sphere, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - sphere[0], axis=1) - sphere[1]


def ball(sphere) -> trimesh.Trimesh:
    mesh = ellipsoid((sphere[1],) * 3)
    mesh.apply_translation(sphere[0])
    return mesh


def head_with_strays() -> trimesh.Trimesh:
    pocket = ball(POCKET)
    pocket.invert()
    return ball(HEAD) + pocket + ball(ISLAND)


def labels(count: int = 40_000) -> Labels:
    """Labels of a head with a pocket and an island."""
    random = np.random.default_rng(0)
    points = random.uniform(-100, 100, (count, 3))
    # Most points are near a surface, as for scans.
    for index, (centre, radius) in enumerate((HEAD, POCKET, ISLAND)):
        ray = random.normal(size=(count // 4, 3))
        ray *= (radius + random.normal(scale=2, size=(count // 4, 1))) / np.linalg.norm(ray, axis=1, keepdims=True)
        points[index * count // 4 : (index + 1) * count // 4] = centre + ray
    distance = np.maximum(distance_to(HEAD, points), -distance_to(POCKET, points))
    distance = np.minimum(distance, distance_to(ISLAND, points))
    return Labels(CUBE.to_field(points).astype(np.float32), distance.astype(np.float32))


def fitted(revise: ReviseLabels | None = None) -> FittedHead:
    start = FIELD.initial(torch.Generator().manual_seed(0))
    rows = fit(FIELD, start, LabelBatch.stack([labels()], CPU), config=CONFIG, revise_labels=revise)
    head = NeuralHead(FIELD, CUBE, rows[0])
    return FittedHead(head, labels(), decoded(head))


def decoded(head: NeuralHead) -> trimesh.Trimesh | None:
    return try_decode(head, DecodeConfig(RESOLUTION, keep_all_components=True))


def strays(mesh: trimesh.Trimesh | None) -> int:
    assert mesh is not None
    return len(connected_components(mesh)) - 1


@pytest.fixture(scope="module")
def with_strays() -> FittedHead:
    return fitted()


def test_points_in_and_near_strays_get_the_sign_of_their_surroundings():
    label = labels()
    revised = relabel_strays(label, head_with_strays(), cube=CUBE, rng=np.random.default_rng(0))
    millimetres = CUBE.to_millimetres(revised.points)
    in_pocket, in_island = distance_to(POCKET, millimetres) < 0, distance_to(ISLAND, millimetres) < 0
    assert in_pocket.sum() > 100 and in_island.sum() > 100
    assert (revised.distance[in_pocket] < 0).all() and (revised.distance[in_island] > 0).all()
    far = (distance_to(POCKET, millimetres) > 2) & (distance_to(ISLAND, millimetres) > 2)
    assert far[:-STRAY_POINTS].sum() > 1000 and not far[-STRAY_POINTS:].any()
    assert np.array_equal(revised.distance[far], label.distance[far])


def test_a_head_of_one_component_keeps_its_labels():
    label = labels()
    assert relabel_strays(label, ball(HEAD), cube=CUBE, rng=np.random.default_rng(0)) is label


def test_labels_revised_during_a_fit_leave_one_component(with_strays):
    def revise(weights: torch.Tensor) -> LabelBatch:
        revised = revise_labels(weights, [labels()], field=FIELD, cube=CUBE, resolution=RESOLUTION)
        return LabelBatch.stack(revised, CPU)

    assert strays(with_strays.mesh) == 2 and strays(fitted(revise).mesh) == 0


def test_a_finished_fit_is_repaired(with_strays):
    (repaired,) = repair_fits([with_strays], resolution=RESOLUTION, config=CONFIG)
    assert with_strays.has_strays and not repaired.has_strays
    assert strays(repaired.mesh) == strays(decoded(repaired.head)) == 0
    assert repaired.mesh is not None and np.abs(distance_to(HEAD, repaired.mesh.vertices)).mean() < 0.5


def test_fits_of_one_component_and_of_none_stay_as_they_are():
    empty = FittedHead(NeuralHead(FIELD, CUBE, torch.zeros(FIELD.size)), labels(), None)
    single = FittedHead(NeuralHead(FIELD, CUBE, torch.ones(FIELD.size)), labels(), ball(HEAD))
    repaired = repair_fits([empty, single], resolution=RESOLUTION, config=CONFIG)
    assert repaired[0] is empty and repaired[1] is single


def test_a_sample_is_repaired_without_a_scan(with_strays):
    """In canonical space: a warp that moves the head does not count."""
    mesh = with_strays.mesh
    assert mesh is not None
    head = dataclasses.replace(with_strays.head, warp=Warp(WarpSpace(CORNERS), np.full((8, 3), 50.0)))
    repaired = repair_sample(head, mesh, resolution=RESOLUTION)
    assert strays(repaired) == 0
    assert np.abs(distance_to(HEAD, repaired.vertices)).mean() < 0.5


def test_a_sample_of_one_component_stays_as_it_is():
    mesh = ball(HEAD)
    assert repair_sample(NeuralHead(FIELD, CUBE, torch.zeros(FIELD.size)), mesh, resolution=RESOLUTION) is mesh
