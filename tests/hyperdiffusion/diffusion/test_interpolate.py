"""Heads between heads: ends that are the given ones, and paths whose shape is known."""

import dataclasses

import numpy as np
import pytest
import torch

from hyperdiffusion import sample
from hyperdiffusion.diffusion.coordinates import WeightCoordinates
from hyperdiffusion.diffusion.generate import BATCH_SIZE
from hyperdiffusion.diffusion.interpolate import (
    find_head,
    interpolate,
    interpolate_heads,
    interpolate_in_noise,
    mix_layers,
    project_to_latent_space,
    slerp,
)
from overfit import BadInput, Cube, Store
from overfit.canonical.align import CORNERS
from overfit.canonical.warp import WarpSpace


@pytest.fixture(scope="module")
def fits(small_store):
    return Store(small_store).read()


def test_the_straight_line_has_the_midpoint_in_its_middle():
    first, second = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    path = interpolate(first, second, frames=5)
    torch.testing.assert_close(path[[0, 2, 4]], torch.stack([first, (first + second) / 2, second]))


def test_spherical_interpolation_has_even_angles_and_keeps_the_length():
    first, second = torch.eye(3)[:2]
    path = slerp(first, second, frames=4)
    torch.testing.assert_close(path.norm(dim=1), torch.ones(4))
    angles = torch.arccos((path[:-1] * path[1:]).sum(1))
    torch.testing.assert_close(angles, torch.full((3,), torch.pi / 6))
    torch.testing.assert_close(slerp(first, first, frames=3), first.expand(3, 3))


def test_the_path_through_noise_ends_close_to_both_heads(model, fits):
    first, second = fits.parameters[0], fits.parameters[1]
    path = interpolate_in_noise(model, first=first, second=second, frames=3)
    for end, head in ((path[0], first), (path[2], second)):
        assert torch.dist(end, head) < 0.1 * torch.dist(first, second)


def test_heads_are_projected_before_they_are_interpolated_in_noise(model, fits):
    """Weight coordinates have no latent space to project to."""
    ends = fits.parameters[:2]
    projected = project_to_latent_space(model, ends)
    path = interpolate_heads(model, first=ends[0], second=ends[1], frames=2, space="noise")
    expected = interpolate_in_noise(model, first=projected[0], second=projected[1], frames=2)
    assert torch.equal(path, expected)
    straight = interpolate_heads(model, first=ends[0], second=ends[1], frames=3)
    assert torch.equal(straight, interpolate(ends[0], ends[1], frames=3))
    raw = dataclasses.replace(model, coordinates=WeightCoordinates.raw(model.space.token_sizes))
    assert torch.equal(project_to_latent_space(raw, ends), ends)


def test_the_middle_of_two_heads_has_the_mean_of_their_warps(warped_store):
    fits = Store(warped_store).read()
    (_, row, _), ends = interpolate(fits.parameters[0], fits.parameters[1], frames=3), [fits.head(0), fits.head(1)]
    middle, points = fits.space.head(row), 200 * torch.rand(50, 3).double().numpy() - 100
    expected = (ends[0].warp(points) + ends[1].warp(points)) / 2
    np.testing.assert_allclose(middle.warp(points), expected, atol=1e-3)
    assert middle.warp.neck_height == pytest.approx((ends[0].warp.neck_height + ends[1].warp.neck_height) / 2, abs=1e-3)


def test_the_path_through_noise_ends_close_to_both_warped_heads(warped_store, warped_model):
    first, second = Store(warped_store).read().parameters[:2]
    path = interpolate_in_noise(warped_model, first=first, second=second, frames=3)
    for end, head in ((path[0], first), (path[2], second)):
        assert torch.dist(end, head) < 0.1 * torch.dist(first, second)


def test_the_warp_comes_from_the_head_that_gives_the_first_layer(warped_store):
    fits = Store(warped_store).read()
    first, second = fits.parameters[:2]
    rows = mix_layers(first, second, sizes=fits.space.token_sizes)
    assert torch.equal(rows[0], first) and torch.equal(rows[-1], second)
    for row in rows[1:]:
        assert torch.equal(fits.space.warp_parameters(row), fits.space.warp_parameters(second))
    end = sum(fits.space.field.sizes[:2])
    assert torch.equal(fits.space.weights(rows[1]), torch.cat([fits.weights[1, :end], fits.weights[0, end:]]))


def test_mixed_heads_take_whole_layers(model):
    sizes = model.coordinates.sizes
    first, second = torch.zeros(sum(sizes)), torch.ones(sum(sizes))
    rows = mix_layers(first, second, sizes=sizes)
    assert len(rows) == len(sizes) // 2 + 1 and not rows[0].any() and rows[-1].all()
    assert [int(row.sum()) for row in rows] == [sum(sizes[:end]) for end in range(0, len(sizes) + 1, 2)]


def test_heads_are_found_by_number_and_by_name(model, fits):
    assert torch.equal(find_head("2", model, seed=4), sample(model, 3, seed=4)[2])
    for name in ("03.ply", "03"):
        assert torch.equal(find_head(name, model, fits=fits), fits.parameters[3])
    # A name that is no scan's is a number.
    assert torch.equal(find_head("1", model, fits=fits), sample(model, 2)[1])


def test_a_large_number_draws_one_batch_at_most(model, monkeypatch):
    drawn = []

    def counted(checkpoint, count, **options):
        drawn.append((count, options["first"]))
        return sample(checkpoint, count, **options)

    monkeypatch.setattr("hyperdiffusion.diffusion.interpolate.sample", counted)
    find_head("99999999", model)
    ((count, first),) = drawn
    assert count <= BATCH_SIZE and first + count == 100_000_000


def test_impossible_arguments_are_refused(model, fits):
    with pytest.raises(BadInput, match="nobody: no head of this name; give a number, or .* in `store`"):
        find_head("nobody", model, fits=fits)
    with pytest.raises(BadInput, match="`seed=-1`"):
        find_head("0", model, seed=-1)
    other = dataclasses.replace(fits, space=dataclasses.replace(fits.space, cube=Cube((0.0, 0.0, 0.0), 50.0)))
    with pytest.raises(BadInput, match="`store`: its fits have another field, cube or alignment"):
        find_head("03", model, fits=other)
    other = dataclasses.replace(fits, space=dataclasses.replace(fits.space, warps=WarpSpace(CORNERS)))
    with pytest.raises(BadInput, match="`store`: its fits have another field, cube or alignment"):
        find_head("03", model, fits=other)
    with pytest.raises(BadInput, match="`frames=1`: give 2 or more"):
        interpolate(fits.parameters[0], fits.parameters[1], frames=1)
