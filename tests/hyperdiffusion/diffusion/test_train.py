"""Training and its files: what is learned, written, resumed, and refused."""

import dataclasses
import os

import pytest
import torch
from PIL import Image
from support import ONE_THREAD, TINY, train_until_killed

from hyperdiffusion import SamplingConfig, sample, train, withdrawn_heads
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.encode import LatentSpaceConfig
from overfit import BadInput, Field, Store

LATENT = dataclasses.replace(
    TINY,
    coordinates="latent",
    latent_space=LatentSpaceConfig(latent_dim=3, latent_steps=10, latent_points=64, encode_steps=5, max_latent_heads=4),
)


def parameters(model: Checkpoint) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.denoiser.parameters())


@pytest.mark.parametrize("coordinates", ["latent", "raw"])
def test_a_killed_training_ends_as_an_undisturbed_one(small_store, tmp_path, coarse_labels, coordinates):
    config, again = dataclasses.replace(LATENT, coordinates=coordinates), tmp_path / "again.safetensors"
    undisturbed = train(small_store, tmp_path / "one.safetensors", config=config, machine=ONE_THREAD)
    train_until_killed(small_store, again, config, ONE_THREAD)
    resumed = train(small_store, again, config=config, machine=ONE_THREAD)
    assert torch.equal(parameters(resumed), parameters(undisturbed)) and len(parameters(resumed))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.safetensors", "one.safetensors"]


def test_another_seed_trains_another_model(small_store, model, tmp_path):
    other = train(small_store, tmp_path / "other", config=dataclasses.replace(TINY, seed=1), machine=ONE_THREAD)
    assert not torch.equal(parameters(other), parameters(model))


def test_a_finished_checkpoint_is_not_trained_again_nor_with_other_settings(small_store, trained):
    before = trained.read_bytes()
    found = train(small_store, trained, config=dataclasses.replace(TINY, save_every=9.0), machine=ONE_THREAD)
    assert torch.equal(sample(found, 2), sample(Checkpoint.load(trained), 2)) and trained.read_bytes() == before
    with pytest.raises(BadInput, match="was trained with `steps=30`, not 31"):
        train(small_store, trained, config=dataclasses.replace(TINY, steps=31), machine=ONE_THREAD)
    bigger = dataclasses.replace(TINY.transformer, width=64)
    with pytest.raises(BadInput, match="was trained with `width=32`, not 64"):
        train(small_store, trained, config=dataclasses.replace(TINY, transformer=bigger), machine=ONE_THREAD)


def test_a_checkpoint_of_other_heads_is_refused(make_store, trained, tmp_path):
    store = make_store(tmp_path / "store", Field(hidden=(8, 8)), torch.randn(3, Field(hidden=(8, 8)).size))
    with pytest.raises(BadInput, match="was trained on other heads"):
        train(store, trained, config=TINY, machine=ONE_THREAD)


def test_a_model_of_heads_that_left_the_store_is_trained_anew(make_store, tmp_path):
    field = Field(hidden=(8, 8))
    heads = torch.randn(5, field.size, generator=torch.Generator().manual_seed(0))
    store, path = make_store(tmp_path / "store", field, heads), tmp_path / "model"
    assert withdrawn_heads(store, path) == 0
    first = train(store, path, config=TINY, machine=ONE_THREAD)
    assert withdrawn_heads(store, path) == 0
    gone = Store(store).read().records[0]
    Store(store).remove({gone.name})
    assert withdrawn_heads(store, path) == 1
    second = train(store, path, config=TINY, machine=ONE_THREAD)
    assert gone.digest in first.training.heads and gone.digest not in second.training.heads
    assert Checkpoint.load(path).training.heads == second.training.heads and withdrawn_heads(store, path) == 0


def test_a_training_that_was_interrupted_starts_anew_without_heads_that_left_the_store(make_store, tmp_path):
    field = Field(hidden=(8, 8))
    heads = torch.randn(5, field.size, generator=torch.Generator().manual_seed(0))
    store, path = make_store(tmp_path / "store", field, heads), tmp_path / "model"
    train_until_killed(store, path, TINY, ONE_THREAD)
    gone = Store(store).read().records[0]
    Store(store).remove({gone.name})
    undisturbed = train(store, tmp_path / "other", config=TINY, machine=ONE_THREAD)
    assert torch.equal(parameters(train(store, path, config=TINY, machine=ONE_THREAD)), parameters(undisturbed))
    assert not any(tmp_path.glob("model.*"))


@pytest.mark.parametrize("coordinates, bound", [("pca", 0.3), ("scaled", 0.4)])
def test_samples_of_two_distant_heads_are_close_to_one_or_the_other(make_store, tmp_path, coordinates, bound):
    field = Field(hidden=(4,))
    heads = torch.randn(2, field.size, generator=torch.Generator().manual_seed(0))
    longer = dataclasses.replace(TINY, coordinates=coordinates, steps=300, batch_size=32, lr=5e-3, warmup_steps=30)
    model = train(make_store(tmp_path / "store", field, heads), tmp_path / "model", config=longer, machine=ONE_THREAD)
    # A spread above 1 makes up for a denoiser that is trained for a few steps only.
    samples = sample(model, 20, config=SamplingConfig(spread=1.15))
    distance = torch.cdist(samples, heads)
    assert (distance.min(1).values < bound * torch.dist(*heads)).float().mean() > 0.8
    assert len(distance.argmin(1).unique()) == 2


def test_samples_of_two_clusters_leave_the_gap_between_them_empty(make_store, tmp_path):
    generator, field = torch.Generator().manual_seed(0), Field(hidden=(4,))
    offset = 5 * torch.randn(field.size, generator=generator)
    heads = torch.randn(60, 3, generator=generator) @ torch.randn(3, field.size, generator=generator) / 3
    heads[::2] += offset
    store = make_store(tmp_path / "store", field, heads)
    model = train(store, tmp_path / "model", config=dataclasses.replace(TINY, steps=1), machine=ONE_THREAD)
    along = (sample(model, 100) - heads.mean(0)) @ offset / offset.square().sum()
    # The clusters are at plus and minus one half; a Gaussian would put 0.38 of its samples between the quarters.
    assert float((along.abs() < 0.25).float().mean()) < 0.02
    assert model.training.mixture_components == 2 and model.training.val_loss < 0.9
    assert "mixture of 2 Gaussians" in model.training.summary()


def test_a_picture_of_samples_is_drawn(store, tmp_path):
    model = train(
        store, tmp_path / "model", config=dataclasses.replace(TINY, steps=2, sample_every=1), machine=ONE_THREAD
    )
    assert model.training.steps == 2
    with Image.open(tmp_path / "model.png") as picture:
        # Heads of a picture are in one row, under a label.
        assert picture.width > picture.height and len(picture.getcolors(1 << 20)) > 10


def test_a_compiled_training_gives_the_same_model(small_store, model, tmp_path, monkeypatch):
    """That compiling is asked for once; test_distributed trains with a traced model."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    same = train(small_store, tmp_path / "model", config=TINY, machine=ONE_THREAD, compile=True)
    assert len(compiled) == 1
    assert torch.equal(parameters(same), parameters(model))


def test_compiling_without_a_compiler_is_refused(small_store, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(BadInput, match="`compile`: finds no C.. compiler; install g"):
        train(small_store, tmp_path / "model", config=TINY, machine=ONE_THREAD, compile=True)


def test_unusable_stores_and_paths_are_refused(make_store, small_store, trained, tmp_path):
    field = Field(hidden=(4,))
    one = make_store(tmp_path / "one", field, torch.zeros(1, field.size))
    with pytest.raises(BadInput, match="holds one head"):
        train(one, tmp_path / "model", config=TINY, machine=ONE_THREAD)
    broken = make_store(tmp_path / "broken", field, torch.full((2, field.size), torch.nan))
    with pytest.raises(BadInput, match="weights of 0..ply are not finite"):
        train(broken, tmp_path / "model", config=TINY, machine=ONE_THREAD)
    with pytest.raises(BadInput, match="a folder; give the name of a file"):
        train(small_store, tmp_path, config=TINY, machine=ONE_THREAD)
    with pytest.raises(BadInput, match="give the store first, then the checkpoint"):
        train(trained, small_store, config=TINY, machine=ONE_THREAD)
