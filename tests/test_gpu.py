"""A GPU computes what the CPU does. Skipped without one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import SMALL, TINY, train_until_killed

from hyperdiffusion import Checkpoint, LatentSpaceConfig, sample, train
from hyperdiffusion.diffusion.interpolate import find_head, interpolate_heads
from overfit import Machine, Store, overfit
from overfit.decoder import logit_grid

GPU = Machine(device="cuda", threads=2)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


def test_fits_are_as_accurate_as_on_cpu(scan_folder, store, tmp_path):
    ours = [record.error_mm for record in overfit(scan_folder, tmp_path / "store", config=SMALL, machine=GPU).records]
    theirs = [record.error_mm for record in Store(store).records().values()]
    assert len(ours) == len(theirs) and np.mean(ours) < 1.5 * np.mean(theirs)


def test_grids_equal_those_of_the_cpu(store):
    fits = Store(store).read()
    here, there = (
        logit_grid(replace(fits.head(0), weights=fits.weights[0].to(device)), 64) for device in ("cpu", "cuda")
    )
    assert np.abs(here - there).max() < 1e-3 * np.abs(here).max()


def test_a_model_trained_on_a_gpu_generates_the_same_heads_on_cpu(store, tmp_path):
    path = tmp_path / "model.safetensors"
    latent = replace(TINY, coordinates="latent", latent_space=LatentSpaceConfig(latent_steps=50))
    there = sample(train(store, path, config=latent, machine=GPU), 3)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), sample(Checkpoint.load(path), 3), atol=1e-3, rtol=1e-3)


def test_fits_are_interpolated_on_a_gpu(store, tmp_path):
    model = train(store, tmp_path / "model.safetensors", config=TINY, machine=GPU)
    fits = Store(store).read()
    first, second = find_head("head_0", model, fits=fits), find_head("0", model)
    path = interpolate_heads(model, first=first, second=second, frames=3, space="noise")
    assert path.is_cuda and torch.isfinite(path).all()


@pytest.mark.parametrize("coordinates", ["pca", "raw"])
def test_a_killed_training_ends_as_an_undisturbed_one(store, tmp_path, coordinates):
    config, path = replace(TINY, coordinates=coordinates), tmp_path / "again.safetensors"
    undisturbed = train(store, tmp_path / "undisturbed.safetensors", config=config, machine=GPU)
    train_until_killed(store, path, config, GPU)
    again = train(store, path, config=config, machine=GPU)
    for ours, theirs in zip(again.denoiser.parameters(), undisturbed.denoiser.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
