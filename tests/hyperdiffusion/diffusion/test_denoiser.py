"""Denoisers: shapes, where training starts, and which inputs an output depends on."""

import pytest
import torch
from torch.nn.init import normal_

from hyperdiffusion import NoiseSchedule, TransformerConfig
from hyperdiffusion.diffusion.coordinates import LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.denoiser import (
    LatentDenoiser,
    MixtureDenoiser,
    WeightDenoiser,
    make_denoiser,
    restore_denoiser,
    sinusoidal_embedding,
)
from hyperdiffusion.presets import PRESETS
from overfit import BadInput, Field

SCHEDULE = NoiseSchedule()
SMALL = TransformerConfig(width=32, depth=2, attention_heads=4)


def coordinates(heads: int = 12) -> LatentCoordinates:
    weights = torch.randn(heads, 20, generator=torch.Generator().manual_seed(0))
    return LatentCoordinates.from_weights(weights, (10, 3, 7))


def denoiser() -> LatentDenoiser:
    torch.manual_seed(0)
    made = LatentDenoiser(SMALL, SCHEDULE, coordinates())
    for project in made.transformer.project:
        normal_(project.weight)
    return made.eval()


def test_an_untrained_denoiser_is_the_optimal_one_of_a_gaussian():
    """On many clean coordinates, no linear function of the noised ones is closer."""
    fresh = LatentDenoiser(SMALL, SCHEDULE, coordinates())
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(20_000, 11, generator=generator) * fresh.mixture.within_variance.sqrt()
    for t in (0, 300, 499):
        step = torch.full((len(clean),), t)
        noised = SCHEDULE.add_noise(clean, torch.randn(clean.shape, generator=generator), step)
        predicted = MixtureDenoiser(SCHEDULE, fresh.mixture)(noised, step)
        assert torch.equal(fresh(noised[:100], step[:100]), predicted[:100])
        slope = (noised * clean).sum(0) / noised.square().sum(0)
        torch.testing.assert_close(predicted, slope * noised, atol=0.05, rtol=0.05)


def test_a_transformer_is_restored_only_if_it_contributes():
    fresh, noised, step = LatentDenoiser(SMALL, SCHEDULE, coordinates()), torch.randn(5, 11), torch.arange(5) * 90
    restored = restore_denoiser(SMALL, coordinates(), schedule=SCHEDULE, state=fresh.state_dict())
    assert type(restored) is MixtureDenoiser and not list(restored.parameters())
    assert torch.equal(restored(noised, step), fresh.eval()(noised, step))
    # What is saved of it is restored as it was.
    again = restore_denoiser(None, coordinates(), schedule=SCHEDULE, state=restored.state_dict())
    assert torch.equal(again(noised, step), restored(noised, step))
    fresh.transformer.project[1].bias.data[0] = 1e-3
    restored = restore_denoiser(SMALL, coordinates(), schedule=SCHEDULE, state=fresh.state_dict())
    assert torch.equal(restored.eval()(noised, step), fresh(noised, step))
    assert not torch.equal(restored(noised, step), again(noised, step))


def test_token_maps_of_another_sign_or_rank_are_restored_as_they_were(monkeypatch):
    """Linear algebra libraries choose the signs of eigenvectors differently."""
    made, noised, step = denoiser().eval(), torch.randn(5, 11), torch.arange(5) * 90
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    eigh = torch.linalg.eigh

    def other_eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        energy, rotation = eigh(matrix)
        return energy, -rotation

    monkeypatch.setattr(torch.linalg, "eigh", other_eigh)
    restored = restore_denoiser(SMALL, coordinates(), schedule=SCHEDULE, state=state).eval()
    assert torch.equal(restored(noised, step), made(noised, step))
    # Directions of almost no variance count or not.
    same = coordinates()
    monkeypatch.setattr("hyperdiffusion.diffusion.coordinates.MIN_RELATIVE_STD", 0.5)
    restored = restore_denoiser(SMALL, same, schedule=SCHEDULE, state=state).eval()
    assert torch.equal(restored(noised, step), made(noised, step))
    monkeypatch.undo()
    monkeypatch.setattr(torch.linalg, "eigh", other_eigh)
    # As in checkpoints of earlier versions.
    without = {name: tensor for name, tensor in state.items() if "_token_" not in name}
    older = restore_denoiser(SMALL, coordinates(), schedule=SCHEDULE, state=without).eval()
    assert not torch.equal(older(noised, step), made(noised, step))
    with pytest.raises(RuntimeError, match="missing or unknown parts"):
        restore_denoiser(SMALL, coordinates(), schedule=SCHEDULE, state=without | {"transformer.extra": noised})


def test_a_state_with_a_transformer_of_unknown_size_is_refused():
    with pytest.raises(TypeError, match="size is missing"):
        restore_denoiser(None, coordinates(), schedule=SCHEDULE, state=denoiser().state_dict())


def test_the_published_denoiser_is_restored():
    weights = WeightCoordinates.raw((6, 2))
    made = WeightDenoiser(SMALL, weights).eval()
    normal_(made.transformer.project[0].weight)
    noised, step = torch.randn(3, 8), torch.tensor([1, 200, 499])
    restored = restore_denoiser(SMALL, weights, schedule=SCHEDULE, state=made.state_dict()).eval()
    assert torch.equal(restored(noised, step), made(noised, step))


def test_the_default_field_has_nine_tokens():
    weights = torch.randn(5, Field().size)
    made = LatentDenoiser(SMALL, SCHEDULE, LatentCoordinates.from_weights(weights, Field().sizes))
    seen = []
    made.transformer.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    made(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    assert seen == [(2, 9, 32)]


def test_every_coordinate_and_the_timestep_change_every_entry_of_the_correction():
    made, x = denoiser(), torch.randn(1, 11)
    before = made.correction(x, torch.tensor([10]))
    assert (made.correction(x, torch.tensor([11])) != before).all()
    for index in range(11):
        moved = x.clone()
        moved[0, index] += 1
        assert (made.correction(moved, torch.tensor([10])) != before).all()


def test_rows_of_a_batch_do_not_mix():
    made, x = denoiser(), torch.randn(3, 11)
    steps = torch.tensor([1, 200, 499])
    torch.testing.assert_close(made(x, steps)[1:2], made(x[1:2], steps[1:2]), atol=1e-4, rtol=1e-4)


def test_timesteps_have_different_embeddings():
    waves = sinusoidal_embedding(torch.arange(500), 64)
    assert waves.shape == (500, 64)
    assert torch.pdist(waves).min() > 0.1


def test_the_published_denoiser_has_1_42_billion_parameters():
    published = PRESETS["paper"].transformer
    with torch.device("meta"):
        made = make_denoiser(published, WeightCoordinates.raw(Field().sizes), schedule=SCHEDULE)
    assert len(made.transformer.embed) == 8
    # 12 layers of twelve width x width matrices, and every weight in and out of the width.
    expected = 12 * 12 * 2880**2 + 2 * 36737 * 2880
    count = sum(parameter.numel() for parameter in made.parameters())
    assert count == pytest.approx(expected, rel=0.02) and round(count / 1e9, 2) == 1.42
    outputs = made.to("meta")(torch.zeros(2, 36737, device="meta"), torch.zeros(2, dtype=torch.long, device="meta"))
    assert outputs.shape == (2, 36737)


def test_a_larger_spread_scales_mean_and_correction_alike():
    made = denoiser()
    noised, step = torch.randn(5, 11, generator=torch.Generator().manual_seed(1)), torch.full((5,), 499)
    torch.testing.assert_close(made.with_spread(1.0)(noised, step), made(noised, step))
    # At the noisiest timestep little is known: predictions are as far from the mean as the components are wide.
    near, far = (made.with_spread(factor)(noised, step).norm() for factor in (0.01, 0.02))
    torch.testing.assert_close(far / near, torch.tensor(2.0), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(width=30, attention_heads=4), "`width=30`: give an even multiple of `attention_heads=4`"),
        (dict(depth=0), "`depth=0`: give 1 or more"),
        (dict(dropout=float("nan")), "`dropout=nan`: give 0 to 1"),
    ],
)
def test_impossible_sizes_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        TransformerConfig(**arguments)
