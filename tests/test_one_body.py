"""Pockets and islands vanish from the labels; everything else stays as it was."""

import numpy as np
import torch
from conftest import ellipsoid

from overfit import Cube, Field, Fitting, decode
from overfit.decode import bodies
from overfit.fit import fit
from overfit.healing import heal, review, whole_mesh
from overfit.occupancy import Occupancy, tensors
from overfit.one_body import EXTRA, one_body

CUBE = Cube((0.0, 0.0, 0.0), 100.0)
HEAD, POCKET, ISLAND = ((0, 0, 0), 60.0), ((0, 0, 30), 6.0), ((75, 75, 75), 8.0)


def gap(points: np.ndarray, sphere) -> np.ndarray:
    return np.linalg.norm(points - sphere[0], axis=1) - sphere[1]


def ball(sphere):
    mesh = ellipsoid((sphere[1],) * 3)
    mesh.apply_translation(sphere[0])
    return mesh


def labels(count: int = 40_000) -> Occupancy:
    random = np.random.default_rng(0)
    points = random.uniform(-100, 100, (count, 3))
    # Most points close to the surface, as the sampling lays them.
    for index, (centre, radius) in enumerate((HEAD, POCKET, ISLAND)):
        ray = random.normal(size=(count // 4, 3))
        ray *= (radius + random.normal(scale=2, size=(count // 4, 1))) / np.linalg.norm(ray, axis=1, keepdims=True)
        points[index * count // 4:(index + 1) * count // 4] = centre + ray
    distance = np.maximum(gap(points, HEAD), -gap(points, POCKET))
    distance = np.minimum(distance, gap(points, ISLAND))
    return Occupancy(CUBE.to_field(points).astype(np.float32), distance.astype(np.float32))


def test_points_about_strays_take_the_side_of_what_surrounds_them():
    pocket = ball(POCKET)
    pocket.invert()
    label = labels()
    revised = one_body(label, ball(HEAD) + pocket + ball(ISLAND), CUBE, np.random.default_rng(0))
    points, revised = revised.points, revised.distance
    millimetres = CUBE.to_millimetres(points)
    in_pocket, in_island = gap(millimetres, POCKET) < 0, gap(millimetres, ISLAND) < 0
    assert in_pocket.sum() > 100 and in_island.sum() > 100
    assert (revised[in_pocket] < 0).all() and (revised[in_island] > 0).all()
    far = (gap(millimetres, POCKET) > 2) & (gap(millimetres, ISLAND) > 2)
    assert far[:-EXTRA].sum() > 1000 and not far[-EXTRA:].any()
    assert np.array_equal(revised[far], label.distance[far])


def test_one_body_keeps_its_labels():
    label = labels()
    assert one_body(label, ball(HEAD), CUBE, np.random.default_rng(0)) is label


def strays(weights) -> int:
    return len(bodies(decode(Field(), weights[0], CUBE, 64, keep_islands=True))) - 1


def fitted(revise=None) -> torch.Tensor:
    start = Field().initial(torch.Generator().manual_seed(0))
    return fit(Field(), start, *tensors([labels()], torch.device("cpu")), Fitting(points=1024), 600, 5e-3,
               review=revise)


def test_a_fit_that_is_reviewed_ends_as_one_body():
    def revise(weights):
        return tensors(review(weights, [labels()], Field(), CUBE, 64), torch.device("cpu"))

    assert strays(fitted()) == 2 and strays(fitted(revise)) == 0


def test_a_finished_fit_is_healed():
    weights = fitted()
    torn = [whole_mesh(Field(), weights[0], CUBE, 64)]
    healed, meshes = heal(weights, torn, [labels()], Field(), CUBE, 64, Fitting(points=1024))
    assert strays(weights) == 2 and strays(healed) == 0
    error = gap(meshes[0].vertices, HEAD)
    assert len(bodies(meshes[0])) == 1 and np.abs(error).mean() < 0.5


def test_a_fit_of_one_body_or_of_none_is_left_alone():
    ball_label, nothing = labels(), torch.zeros(1, Field().size)
    same, meshes = heal(nothing, [None], [ball_label], Field(), CUBE, 64, Fitting())
    assert torch.equal(same, nothing) and meshes == [None]
