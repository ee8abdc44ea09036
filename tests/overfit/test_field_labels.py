"""Labels that networks give about themselves: near their surface, with the distances that their logits say."""

import torch

from overfit import Cube, Field
from overfit.field_labels import BAND_POINTS, FIELD_LOSS, NEAR_POINTS, UNIFORM_POINTS, FieldLabels

CUBE = Cube((0.0, 0.0, 0.0), 150.0)
RADIUS_MM = 90.0


class Ball(Field):
    """A field whose logits are those of a perfect fit to a sphere."""

    def __call__(self, weights, points):
        return (RADIUS_MM - CUBE.half * points.norm(dim=-1)) / FIELD_LOSS.softness_mm


def test_labels_are_near_the_surface_and_say_what_the_network_says():
    labels = FieldLabels.of(Ball(), CUBE, weights=torch.zeros(2, Ball().size))
    assert labels.points.shape == (2, NEAR_POINTS + BAND_POINTS + UNIFORM_POINTS, 3)
    true = CUBE.half * labels.points.norm(dim=-1) - RADIUS_MM
    torch.testing.assert_close(labels.distance, true, atol=1e-4, rtol=1e-4)
    near, band, uniform = true.abs().split([NEAR_POINTS, BAND_POINTS, UNIFORM_POINTS], dim=1)
    assert 1 < near.mean() < 2.5 < 6 < band.mean() < 10 < uniform.mean()
    assert labels.points[:, -UNIFORM_POINTS:].abs().max() <= 1


def test_networks_without_a_surface_are_labelled_anywhere_in_the_cube():
    labels = FieldLabels.of(Field(), CUBE, weights=torch.zeros(1, Field().size))
    assert labels.points.abs().max() <= 1 and not labels.distance.any()
    assert (labels.points.mean((0, 1)).abs() < 0.05).all()


def test_every_network_has_points_of_its_own_whatever_the_others_are():
    weights = torch.zeros(3, Field().size)
    three, two = (FieldLabels.of(Field(), CUBE, weights=weights[:count]) for count in (3, 2))
    assert torch.equal(three.points[:2], two.points)
    assert not torch.equal(three.points[0], three.points[1])
