"""The latent space: few directions of functions and of warps are found again, whatever else varies; and encoding."""

from dataclasses import replace

import pytest
import torch

from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from hyperdiffusion.diffusion.encode import LatentSpaceConfig, encode_heads
from hyperdiffusion.diffusion.latent_space import learn_latent_space
from overfit import BadInput, Cube, Field, FitConfig
from overfit.canonical.warp import UNIT_MM, WarpSpace
from overfit.field_labels import FIELD_LOSS
from overfit.fit import fit
from overfit.labels import LabelBatch
from overfit.neural_head import HeadSpace

CUBE = Cube((0.0, 0.0, 0.0), 100.0)
FIELD = Field(hidden=(32, 32))
SPACE = HeadSpace(FIELD, CUBE)
# Twenty control points and a neck.
WARPS = WarpSpace(
    tuple(map(tuple, (200 * torch.rand(20, 3, generator=torch.Generator().manual_seed(1)) - 100).tolist())), True
)
WARPED = HeadSpace(FIELD, CUBE, WARPS)
FIT = FitConfig(steps=500, points_per_step=512, mixture_weight=0.0)
QUICK = LatentSpaceConfig(latent_dim=4, latent_steps=400, latent_points=256, basis_lr=3e-3, mean_lr=3e-3)
RADII = torch.linspace(40, 80, 24)
# They differ by no more than the distance up to which fits know distances, so that those of mixtures are known too.
CLOSE_RADII = torch.linspace(50, 70, 24)


def sphere_fits(radii: torch.Tensor) -> torch.Tensor:
    """Networks of 24 spheres that differ by their radius alone, each fitted by itself."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(24, 3000, 3, generator=generator) * 2 - 1
    labels = LabelBatch(points, points.norm(dim=2) * CUBE.half - radii[:, None])
    return fit(FIELD, FIELD.initial(generator), labels, config=FIT)


@pytest.fixture(scope="module")
def spheres() -> torch.Tensor:
    return sphere_fits(RADII)


@pytest.fixture(scope="module")
def close_spheres() -> torch.Tensor:
    return sphere_fits(CLOSE_RADII)


def error_mm(weights: torch.Tensor, radii: torch.Tensor, field: Field = FIELD) -> float:
    """Mean distance in millimetres that networks (heads, P) give to points on spheres."""
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    logits = field(weights, directions * (radii / CUBE.half)[:, None, None])
    return float(FIELD_LOSS.softness_mm * logits.abs().mean())


@pytest.fixture(scope="module")
def learned(spheres) -> tuple[LatentCoordinates, torch.Tensor]:
    return learn_latent_space(SPACE, spheres, config=QUICK)


def test_the_latent_space_agrees_with_the_fits_better_than_as_many_principal_components(spheres, learned):
    coordinates, codes = learned
    assert codes.shape == (24, 4) == (24, coordinates.size)
    principal = LatentCoordinates.from_weights(spheres, FIELD.sizes)
    kept = principal.encode(spheres)
    kept[:, 4:] = 0
    ours, linear = error_mm(coordinates.decode(codes), RADII), error_mm(principal.decode(kept), RADII)
    assert ours < 0.8 * linear


def test_codes_are_white_and_the_same_seed_gives_the_same_latent_space(spheres):
    short = LatentSpaceConfig(latent_dim=4, latent_steps=20)
    _, codes = learn_latent_space(SPACE, spheres, config=short)
    torch.testing.assert_close(codes.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(codes.T @ codes / 24, torch.eye(4), atol=1e-2, rtol=0)
    assert torch.equal(learn_latent_space(SPACE, spheres, config=short)[1], codes)


def test_a_head_that_was_left_out_is_encoded_among_its_neighbours(spheres):
    others = [index for index in range(24) if index != 3]
    coordinates, _ = learn_latent_space(SPACE, spheres[others], config=QUICK)
    code = encode_heads(SPACE, spheres[3:4], coordinates=coordinates, config=QUICK)
    assert error_mm(coordinates.decode(code), RADII[3:4]) < 2
    assert error_mm(coordinates.decode(torch.zeros_like(code)), RADII[3:4]) > 5


def with_warps(spheres: torch.Tensor) -> torch.Tensor:
    """Networks of spheres of rising radius, each with a warp: linear in the radius and two other factors."""
    factors = torch.randn(24, 3, generator=torch.Generator().manual_seed(2))
    factors[:, 0] = (RADII - RADII.mean()) / RADII.std()
    mean, *directions = 0.05 * torch.randn(4, WARPS.size, generator=torch.Generator().manual_seed(3))
    return torch.cat([mean + factors @ torch.stack(directions), spheres], dim=1)


@pytest.fixture(scope="module")
def warped(spheres) -> torch.Tensor:
    return with_warps(spheres)


@pytest.fixture(scope="module")
def learned_with_warps(warped) -> tuple[LatentCoordinates, torch.Tensor]:
    return learn_latent_space(WARPED, warped, config=QUICK)


def mixture_error_mm(warped: torch.Tensor, mixed_share: float) -> float:
    """Error of random mixtures of the spheres' codes: their distances mix to those of a sphere of the mixed radius."""
    coordinates, codes = learn_latent_space(WARPED, warped, config=replace(QUICK, mixed_share=mixed_share))
    shares = torch.randn(64, 24, generator=torch.Generator().manual_seed(4)) / 24**0.5
    radii = CLOSE_RADII.mean() + shares @ (CLOSE_RADII - CLOSE_RADII.mean())
    mixed = coordinates.decode(codes.mean(0) + shares @ (codes - codes.mean(0)))
    return error_mm(WARPED.weights(mixed), radii)


def test_mixtures_of_heads_are_what_their_distances_mix_to(close_spheres):
    warped = with_warps(close_spheres)
    assert mixture_error_mm(warped, 0.5) < 0.7 * mixture_error_mm(warped, 0.0)


def with_idle_unit(weights: torch.Tensor) -> torch.Tensor:
    """The same functions by networks with one more unit, which differs widely from head to head and has no effect."""
    matrix, bias, following, *rest = FIELD.tensors(weights)
    idle = 3 * torch.randn(len(weights), 1, matrix.shape[2], generator=torch.Generator().manual_seed(5))
    first = torch.cat([matrix, idle], dim=1), torch.cat([bias, idle[:, :, 0]], dim=1)
    tensors = (*first, torch.nn.functional.pad(following, (0, 1)), *rest)
    return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)


def test_codes_of_aligned_heads_start_from_what_weights_do(close_spheres):
    """Weights without effect have no part in them, though they vary most."""
    field = Field(hidden=(33, 32))
    idle = with_idle_unit(close_spheres)
    assert error_mm(idle, CLOSE_RADII, field) < 0.5
    short = replace(QUICK, latent_dim=1, latent_steps=30, mixed_share=0.0)
    aligned, codes = learn_latent_space(HeadSpace(field, CUBE, WARPS), with_warps(idle), config=short)
    plain, plain_codes = learn_latent_space(HeadSpace(field, CUBE), idle, config=short)
    ours = error_mm(aligned.decode(codes)[:, WARPS.size :], CLOSE_RADII, field)
    assert ours < 0.5 * error_mm(plain.decode(plain_codes), CLOSE_RADII, field)


def warp_error_mm(parameters: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest error in millimetres of a displacement or a neck's height."""
    return float(UNIT_MM * (WARPED.warp_parameters(parameters) - WARPED.warp_parameters(truth)).abs().max())


def test_codes_decode_to_warps_that_are_linear_in_a_few_factors(warped, spheres):
    coordinates, codes = learn_latent_space(WARPED, warped, config=QUICK)
    decoded = coordinates.decode(codes)
    assert UNIT_MM * WARPED.warp_parameters(warped).std(0).mean() > 3 and warp_error_mm(decoded, warped) < 0.1
    # Three directions are for the warps. They take nothing away from the networks, as where no head is warped.
    assert coordinates.size == 4 + 3
    still = torch.cat([torch.zeros(24, WARPS.size), spheres], dim=1)
    alone, alone_codes = learn_latent_space(WARPED, still, config=QUICK)
    ours, theirs = (error_mm(WARPED.weights(rows), RADII) for rows in (decoded, alone.decode(alone_codes)))
    assert ours == pytest.approx(theirs, rel=0.05)
    torch.testing.assert_close(codes.T @ codes / 24, torch.eye(7), atol=1e-2, rtol=0)


def test_what_warps_and_networks_have_in_common_is_one_coordinate(learned_with_warps):
    """Radius and first factor are the same, so that the coordinates are those of three factors and little else."""
    coordinates, _ = learned_with_warps
    share = coordinates.std.square() / coordinates.std.square().sum()
    assert share[:3].sum() > 0.9
    parameters = coordinates.decode(torch.eye(7)[:3] * 2) - coordinates.mean
    # Moving along the coordinate that changes the spheres most changes the warps too.
    by_weights = WARPED.weights(parameters).norm(dim=1)
    assert WARPED.warp_parameters(parameters)[by_weights.argmax()].norm() > 0.1


def test_the_warp_of_a_head_that_was_left_out_is_encoded(warped):
    others = [index for index in range(24) if index != 5]
    coordinates, _ = learn_latent_space(WARPED, warped[others], config=QUICK)
    decoded = coordinates.decode(encode_heads(WARPED, warped[5:6], coordinates=coordinates, config=QUICK))
    assert warp_error_mm(decoded, warped[5:6]) < 0.1
    assert error_mm(WARPED.weights(decoded), RADII[5:6]) < 2


def test_no_more_directions_of_warps_are_kept_than_allowed(warped):
    config = LatentSpaceConfig(latent_dim=2, latent_steps=5, warp_dim=1)
    coordinates, codes = learn_latent_space(WARPED, warped, config=config)
    assert coordinates.size == 2 + 1
    assert warp_error_mm(coordinates.decode(codes), warped) > 1


def test_a_head_has_eight_tokens_with_its_warp_in_the_first(warped):
    default = HeadSpace(Field(), CUBE, WARPS)
    assert len(default.token_sizes) == 8 == len(HeadSpace(Field(), CUBE).token_sizes)
    config = LatentSpaceConfig(latent_dim=2, latent_steps=5)
    coordinates, codes = learn_latent_space(WARPED, warped, config=config)
    assert coordinates.sizes == WARPED.token_sizes == (WARPS.size + FIELD.sizes[0], *FIELD.sizes[1:])
    to_token, _ = coordinates.token_maps
    first = (coordinates.decode(codes) - coordinates.mean)[:, : WARPED.token_sizes[0]]
    scale = coordinates.std.square().mean().sqrt()
    torch.testing.assert_close(scale * (codes @ to_token[0]).norm(dim=1), first.norm(dim=1), atol=1e-3, rtol=1e-3)


def test_networks_without_a_surface_are_learned_too():
    empty = torch.zeros(4, FIELD.size)
    empty[:, -1] = torch.tensor([-1.0, -2, -3, -4])
    config = LatentSpaceConfig(latent_dim=2, latent_steps=5)
    coordinates, codes = learn_latent_space(SPACE, empty, config=config)
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
        learn_latent_space(SPACE, torch.zeros(4, FIELD.size), seed=-1)
