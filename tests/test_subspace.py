"""The subspace: few directions of functions are found again, whatever noise the weights hold that no function shows."""

import pytest
import torch

from hyperdiffusion.healed import healed
from hyperdiffusion.subspace import LOSS, Pool, Subspace, learn, place
from hyperdiffusion.tokens import Tokens
from overfit import BadInput, Cube, Field
from overfit.decode import bodies, decode, largest_body
from overfit.fit import fit

CUBE = Cube((0.0, 0.0, 0.0), 100.0)
FIELD = Field(hidden=(32, 32))
QUICK = Subspace(axes=4, axes_steps=600, axes_points=256, axes_rate=2e-3, mean_rate=2e-3)


@pytest.fixture(scope="module")
def spheres() -> torch.Tensor:
    """Networks of 24 spheres whose one difference is the radius, from 40 to 80 mm, each fitted by itself."""
    random = torch.Generator().manual_seed(0)
    points = torch.rand(24, 4000, 3, generator=random) * 2 - 1
    radii = torch.linspace(40, 80, 24)[:, None]
    distance = points.norm(dim=2) * CUBE.half - radii
    return fit(FIELD, FIELD.initial(random), points, distance, LOSS, 600, 5e-3)


def off(weights: torch.Tensor, radii: torch.Tensor) -> float:
    """Mean distance in millimetres that networks (heads, P) give to points on spheres."""
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    logits = FIELD(weights, directions * (radii / CUBE.half)[:, None, None])
    return float(LOSS.softness_mm * logits.abs().mean())


def test_heads_in_the_subspace_say_what_their_fits_say_better_than_on_as_many_principal_axes(spheres):
    radii = torch.linspace(40, 80, 24)
    tokens, places = learn(FIELD, CUBE, spheres, QUICK)
    assert places.shape == (24, 4) == (24, tokens.size)
    principal = Tokens.of(spheres, FIELD.sizes)
    kept = principal.encode(spheres)
    kept[:, 4:] = 0
    learned, linear = off(tokens.decode(places), radii), off(principal.decode(kept), radii)
    assert learned < 1.0 and learned < 0.7 * linear


def test_places_are_white_and_the_same_seed_gives_the_same_subspace(spheres):
    short = Subspace(axes=4, axes_steps=20)
    tokens, places = learn(FIELD, CUBE, spheres, short)
    torch.testing.assert_close(places.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(places.T @ places / 24, torch.eye(4), atol=1e-2, rtol=0)
    assert torch.equal(learn(FIELD, CUBE, spheres, short)[1], places)


def test_a_head_that_was_left_out_is_placed_among_its_neighbours(spheres):
    others = [index for index in range(24) if index != 10]
    tokens, _ = learn(FIELD, CUBE, spheres[others], QUICK)
    placed = place(FIELD, CUBE, spheres[10:11], tokens, QUICK)
    radius = torch.linspace(40, 80, 24)[10:11]
    assert off(tokens.decode(placed), radius) < 1.5
    assert off(tokens.decode(torch.zeros_like(placed)), radius) > 2


def test_points_lie_about_the_surface_and_say_what_the_fit_says(spheres):
    pool = Pool.of(FIELD, CUBE, spheres[:2])
    way = pool.points.norm(dim=2) * CUBE.half - torch.tensor([[40.0], [80 - 40 * 22 / 23]])
    assert way[:, :5120].abs().median() < 2.5
    torch.testing.assert_close(pool.distance[0], -LOSS.softness_mm * FIELD(spheres[0], pool.points[0]))


def test_a_network_with_an_island_is_healed_and_stays_where_it_was():
    random = torch.Generator().manual_seed(0)
    points = torch.rand(1, 20_000, 3, generator=random) * 2 - 1
    middles = torch.tensor([[0.0, 0, 0], [0.75, 0.75, 0.75]])[:, None]
    distance = CUBE.half * (points - middles).norm(dim=2) - torch.tensor([[60.0], [15.0]])
    row = fit(FIELD, FIELD.initial(random), points, distance.amin(0)[None], LOSS, 1500, 5e-3)[0]
    torn = decode(FIELD, row, CUBE, 48, keep_islands=True)
    assert len(bodies(torn)) == 2
    whole = healed(FIELD, row, torn, CUBE, 48)
    assert len(bodies(whole)) == 1
    assert whole.bounds == pytest.approx(largest_body(torn).bounds, abs=3)
    assert healed(FIELD, row, whole, CUBE, 48) is whole


def test_networks_without_a_surface_do_not_stop_it():
    empty = torch.zeros(4, FIELD.size)
    empty[:, -1] = torch.tensor([-1.0, -2, -3, -4])
    tokens, places = learn(FIELD, CUBE, empty, Subspace(axes=2, axes_steps=5))
    assert torch.isfinite(tokens.decode(places)).all()


def test_numbers_that_make_no_sense_are_told():
    with pytest.raises(BadInput, match="--axes-steps 0"):
        Subspace(axes_steps=0)
