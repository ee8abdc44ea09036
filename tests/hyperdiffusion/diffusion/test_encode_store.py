"""Encoding a store: which heads are for what, and what an interrupted run resumes."""

import dataclasses

import pytest
import torch
from support import TINY

from hyperdiffusion import TrainingConfig
from hyperdiffusion.diffusion import encode_store as module
from hyperdiffusion.diffusion.encode import LatentSpaceConfig
from hyperdiffusion.diffusion.encode_store import EncodedStore, encode_store, train_val_split
from hyperdiffusion.diffusion.training_config import TrainingRun
from overfit import BadInput, RunContext, Store

LATENT = dataclasses.replace(
    TINY,
    coordinates="latent",
    latent_space=LatentSpaceConfig(latent_dim=2, latent_steps=10, latent_points=64, encode_steps=5, max_latent_heads=4),
)


class Interrupted(Exception):
    """Stands for a kill."""


def encoded(store, path, config: TrainingConfig) -> EncodedStore:
    rows = Store(store).rows()
    run = TrainingRun(config, tuple(record.digest for record in rows.records))
    return encode_store(rows, path, run=run, context=RunContext())


@pytest.mark.parametrize("count, held_out", [(19, 0), (20, 2), (100, 10), (10_000, 256)])
def test_a_tenth_of_the_heads_validates_up_to_a_bound(count, held_out):
    training, validation = train_val_split(count, TrainingConfig())
    assert len(validation) == held_out and sorted([*training, *validation]) == list(range(count))


@pytest.mark.parametrize("name", ["small_store", "warped_store"])
@pytest.mark.parametrize("coordinates", ["raw", "scaled", "pca"])
def test_codes_decode_to_the_parameters_of_the_heads(request, tmp_path, coordinates, name):
    store = request.getfixturevalue(name)
    config = dataclasses.replace(TINY, coordinates=coordinates)
    data = encoded(store, tmp_path / "codes", config)
    training, _ = train_val_split(8, config)
    codes = data.training[torch.arange(8)]
    torch.testing.assert_close(data.coordinates.decode(codes), Store(store).rows()[training], atol=1e-5, rtol=1e-4)
    assert data.coordinates.sizes == Store(store).space.token_sizes
    assert (tmp_path / "codes").exists() == (coordinates == "pca")


def test_heads_that_the_latent_space_is_not_learned_on_are_encoded_in_it(small_store, tmp_path, coarse_labels):
    data = encoded(small_store, tmp_path / "codes", LATENT)
    codes = data.training[torch.arange(8)]
    assert codes.shape == (8, 2) and codes.any(1).all()


def test_warps_are_in_the_latent_space_too(warped_store, tmp_path, coarse_labels):
    latent_space = dataclasses.replace(LATENT.latent_space, max_latent_heads=8)
    data = encoded(warped_store, tmp_path / "codes", dataclasses.replace(LATENT, latent_space=latent_space))
    store = Store(warped_store)
    training, _ = train_val_split(8, LATENT)
    decoded = data.coordinates.decode(data.training[torch.arange(8)])
    # Two directions for the networks, and half as many as heads for the warps.
    assert data.coordinates.size == 2 + 4 and data.coordinates.sizes == store.space.token_sizes
    truth = store.space.warp_parameters(store.rows()[training])
    centred = truth - truth.mean(0)
    singular = torch.linalg.svdvals(centred)
    # No four directions come closer than the principal components.
    error = (store.space.warp_parameters(decoded) - truth).square().sum()
    torch.testing.assert_close(error, singular[4:].square().sum(), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("config", [LATENT, TINY], ids=["latent", "pca"])
def test_an_interrupted_encoding_resumes_with_the_heads_that_are_left(
    small_store, tmp_path, monkeypatch, coarse_labels, config
):
    monkeypatch.setattr(module, "CHUNK", 1)
    undisturbed = encoded(small_store, tmp_path / "one", config)
    saved = []
    save = module._Encoding.save

    def interrupted(self, path, run):
        save(self, path, run)
        saved.append(int(self.encoded.sum()))
        if len(saved) == 2:
            raise Interrupted

    monkeypatch.setattr(module._Encoding, "save", interrupted)
    monkeypatch.setattr(module.Throttle, "is_due", lambda *_: True)
    with pytest.raises(Interrupted):
        encoded(small_store, tmp_path / "two", config)
    assert saved[1] == saved[0] + 1 < 8
    monkeypatch.setattr(module._Encoding, "save", save)
    # The coordinates are not computed again.
    monkeypatch.setattr(module, "_start", None)
    resumed = encoded(small_store, tmp_path / "two", config)
    assert torch.equal(resumed.training[torch.arange(8)], undisturbed.training[torch.arange(8)])
    assert torch.equal(resumed.coordinates.basis, undisturbed.coordinates.basis)


def test_codes_of_another_training_are_refused(small_store, tmp_path):
    encoded(small_store, tmp_path / "codes", TINY)
    with pytest.raises(BadInput, match="was trained with `seed=0`, not 1"):
        encoded(small_store, tmp_path / "codes", dataclasses.replace(TINY, seed=1))
    with pytest.raises(BadInput, match="another kind of file"):
        encoded(small_store, small_store / "shards" / "000000.safetensors", TINY)
