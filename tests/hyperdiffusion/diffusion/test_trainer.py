"""One training in memory: its learning rate, its average, its mixture and its best model."""

import dataclasses

import pytest
import torch
from support import TINY

from hyperdiffusion import TrainingConfig, TransformerConfig
from hyperdiffusion.diffusion.coordinates import LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.denoiser import MixtureDenoiser
from hyperdiffusion.diffusion.encode_store import EncodedStore
from hyperdiffusion.diffusion.trainer import Trainer, learning_rate
from hyperdiffusion.presets import PRESETS
from overfit import BadInput

NO_VALIDATION = torch.zeros(0, 8)
SMALL = TransformerConfig(width=8, depth=1, attention_heads=2, dropout=0.0)


def raw(config: TrainingConfig, *, heads: int = 4, **options) -> Trainer:
    codes = torch.randn(heads, 8, generator=torch.Generator().manual_seed(0))
    data = EncodedStore(WeightCoordinates.raw((6, 2)), codes, NO_VALIDATION)
    return Trainer(data, dataclasses.replace(config, coordinates="raw", transformer=SMALL), **options)


def latent(config: TrainingConfig, *, clusters: bool) -> Trainer:
    """Sixty heads along three directions, ten of them for validation; in two clusters or in one."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(60, 3, generator=generator) @ torch.randn(3, 12, generator=generator) / 3
    if clusters:
        weights[::2] += 5 * torch.randn(12, generator=generator)
    coordinates = LatentCoordinates.from_weights(weights[:50], (8, 4))
    return Trainer(
        EncodedStore(coordinates, coordinates.encode(weights[:50]), coordinates.encode(weights[50:])), config
    )


def parameters(module: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def test_the_step_schedule_decays_by_a_tenth_every_200_epochs():
    paper = PRESETS["paper"]
    rates = {step: learning_rate(step, paper, total_steps=2000, steps_per_epoch=2) for step in (0, 399, 400, 1999)}
    assert rates == pytest.approx({0: 2e-4, 399: 2e-4, 400: 1.8e-4, 1999: 2e-4 * 0.9**4})


def test_the_cosine_schedule_peaks_after_the_warmup_and_ends_near_zero():
    config = TrainingConfig(steps=1000)
    rates = [learning_rate(step, config, total_steps=1000, steps_per_epoch=2) for step in range(1000)]
    assert max(rates) == rates[99] == pytest.approx(config.lr) and rates[-1] < 1e-8
    # A short training peaks halfway.
    short = [learning_rate(step, config, total_steps=50, steps_per_epoch=2) for step in range(50)]
    assert max(short) == short[24] == pytest.approx(config.lr)


def test_epochs_replace_steps():
    assert raw(dataclasses.replace(TINY, epochs=3, batch_size=3)).total_steps == 6


def test_the_average_is_that_of_the_weights_and_holds_no_graph():
    """A graph of every step would fill the memory."""
    trainer = raw(TINY)
    average = parameters(trainer.state.denoiser)
    for done in (1, 2, 3):
        trainer.step()
        average = average.lerp(parameters(trainer.state.denoiser), 1 - done / (done + 10))
    torch.testing.assert_close(parameters(trainer.state.ema), average)
    assert not any(parameter.requires_grad for parameter in trainer.state.ema.parameters())


def test_without_average_and_validation_there_is_one_model():
    state = raw(dataclasses.replace(TINY, ema_decay=0.0)).state
    assert state.ema is None and state.best is None and state.result is state.denoiser


def test_the_first_step_has_the_loss_of_the_weights_and_moves_by_the_learning_rate():
    trainer = raw(dataclasses.replace(PRESETS["paper"], epochs=0), heads=32)
    before = trainer.state.denoiser.transformer.project[0].bias.detach().clone()
    # The untrained denoiser predicts zero, so that the loss is the heads' own size.
    assert float(trainer.step()) == pytest.approx(1, rel=0.2)
    # Adam's first step has the length of the learning rate in every entry.
    moved = (trainer.state.denoiser.transformer.project[0].bias.detach() - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 2e-4), atol=1e-6, rtol=0.01)


def test_training_starts_from_the_mixture_that_validation_selects():
    trainer = latent(TINY, clusters=True)
    assert trainer.state.denoiser.mixture.components == 2 and trainer.state.best_loss < 0.9
    assert latent(TINY, clusters=False).state.denoiser.mixture.components == 1
    bounded = dataclasses.replace(TINY, max_mixture_components=1)
    assert latent(bounded, clusters=True).state.denoiser.mixture.components == 1


def test_the_best_model_is_kept_and_training_that_does_not_help_ends_with_the_mixture():
    trainer = latent(dataclasses.replace(TINY, patience=3, lr=0.0), clusters=True)
    loss = trainer.state.best_loss
    while not trainer.finished:
        trainer.step()
        assert trainer.validate() == pytest.approx(loss, rel=1e-4)
    assert trainer.state.step == 3 and trainer.state.best_step == 0
    assert type(trainer.model()) is MixtureDenoiser
    # A model that is better is kept, whatever comes after it.
    trainer = latent(
        dataclasses.replace(TINY, steps=160, batch_size=32, max_mixture_components=1, lr=3e-3), clusters=True
    )
    losses = {}
    while not trainer.finished:
        trainer.step()
        if trainer.state.step % 20 == 0:
            losses[trainer.state.step] = trainer.validate()
    assert trainer.state.best_loss < 0.99 and trainer.state.best_loss == losses[trainer.state.best_step]
    denoiser = trainer.model()
    assert torch.equal(parameters(denoiser), parameters(trainer.state.best))
    assert trainer.validation_loss(denoiser) == pytest.approx(trainer.state.best_loss, rel=1e-4)


def test_sharding_needs_several_processes():
    with pytest.raises(BadInput, match="`shard`: needs torchrun with several processes"):
        raw(dataclasses.replace(TINY, ema_decay=0.0), shard=True)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(steps=0), "`steps=0`: give 1 or more"),
        (dict(epochs=-1), "`epochs=-1`: give 0 or more"),
        (dict(seed=-1), "`seed=-1`: give 0 or more"),
        (dict(lr=float("nan")), "`lr=nan`: give 0 or more"),
        (dict(ema_decay=1.5), "`ema_decay=1.5`: give 0 to 1"),
        (dict(val_fraction=1.0), "`val_fraction=1.0`: give 0 to 0.9"),
        (dict(batch_size=0), "`batch_size=0`: give 1 or more"),
    ],
)
def test_impossible_settings_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        TrainingConfig(**arguments)
