"""The latent space: few directions of functions are found again, whatever else varies in the weights; and encoding."""

import pytest
import torch

from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from hyperdiffusion.diffusion.encode import LatentSpaceConfig, encode_heads
from hyperdiffusion.diffusion.latent_space import learn_latent_space
from overfit import BadInput, Cube, Field, FitConfig
from overfit.field_labels import FIELD_LOSS
from overfit.fit import fit
from overfit.labels import LabelBatch

CUBE = Cube((0.0, 0.0, 0.0), 100.0)
FIELD = Field(hidden=(32, 32))
QUICK = LatentSpaceConfig(latent_dim=4, latent_steps=400, latent_points=256, basis_lr=3e-3, mean_lr=3e-3)
RADII = torch.linspace(40, 80, 24)


@pytest.fixture(scope="module")
def spheres() -> torch.Tensor:
    """Networks of 24 spheres that differ by their radius alone, each fitted by itself."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(24, 3000, 3, generator=generator) * 2 - 1
    labels = LabelBatch(points, points.norm(dim=2) * CUBE.half - RADII[:, None])
    return fit(FIELD, FIELD.initial(generator), labels, config=FitConfig(steps=500, points_per_step=512))


def error_mm(weights: torch.Tensor, radii: torch.Tensor) -> float:
    """Mean distance in millimetres that networks (heads, P) give to points on spheres."""
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    logits = FIELD(weights, directions * (radii / CUBE.half)[:, None, None])
    return float(FIELD_LOSS.softness_mm * logits.abs().mean())


def test_the_latent_space_agrees_with_the_fits_better_than_as_many_principal_components(spheres):
    coordinates, codes = learn_latent_space(FIELD, CUBE, weights=spheres, config=QUICK)
    assert codes.shape == (24, 4) == (24, coordinates.size)
    principal = LatentCoordinates.from_weights(spheres, FIELD.sizes)
    kept = principal.encode(spheres)
    kept[:, 4:] = 0
    learned, linear = error_mm(coordinates.decode(codes), RADII), error_mm(principal.decode(kept), RADII)
    assert learned < 0.8 * linear


def test_codes_are_white_and_the_same_seed_gives_the_same_latent_space(spheres):
    short = LatentSpaceConfig(latent_dim=4, latent_steps=20)
    _, codes = learn_latent_space(FIELD, CUBE, weights=spheres, config=short)
    torch.testing.assert_close(codes.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(codes.T @ codes / 24, torch.eye(4), atol=1e-2, rtol=0)
    assert torch.equal(learn_latent_space(FIELD, CUBE, weights=spheres, config=short)[1], codes)


def test_a_head_that_was_left_out_is_encoded_among_its_neighbours(spheres):
    others = [index for index in range(24) if index != 5]
    coordinates, _ = learn_latent_space(FIELD, CUBE, weights=spheres[others], config=QUICK)
    code = encode_heads(FIELD, CUBE, weights=spheres[5:6], coordinates=coordinates, config=QUICK)
    assert error_mm(coordinates.decode(code), RADII[5:6]) < 2
    assert error_mm(coordinates.decode(torch.zeros_like(code)), RADII[5:6]) > 5


def test_networks_without_a_surface_are_learned_too():
    empty = torch.zeros(4, FIELD.size)
    empty[:, -1] = torch.tensor([-1.0, -2, -3, -4])
    config = LatentSpaceConfig(latent_dim=2, latent_steps=5)
    coordinates, codes = learn_latent_space(FIELD, CUBE, weights=empty, config=config)
    assert torch.isfinite(coordinates.decode(codes)).all()


@pytest.mark.parametrize(
    "arguments, words",
    [(dict(latent_steps=0), "`latent_steps=0`: give 1 or more"), (dict(basis_lr=float("nan")), "`basis_lr=nan`")],
)
def test_impossible_settings_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        LatentSpaceConfig(**arguments)


def test_a_negative_seed_is_refused():
    with pytest.raises(BadInput, match="`seed=-1`"):
        learn_latent_space(FIELD, CUBE, weights=torch.zeros(4, FIELD.size), seed=-1)
