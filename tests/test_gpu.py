"""What a GPU computes is what the CPU does. Skipped where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SMALL, TINY, train_till_killed

from hyperdiffusion import Checkpoint, Subspace, sample, train
from overfit import Machine, Store, overfit
from overfit.decode import logit_grid

GPU = Machine(device="cuda", threads=2)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


def test_fits_come_as_close_as_on_cpu(scan_folder, store, tmp_path):
    ours = [record.error_mm for record in overfit(scan_folder, tmp_path / "store", SMALL, GPU).records]
    theirs = [record.error_mm for record in Store(store).records().values()]
    assert len(ours) == len(theirs) and np.mean(ours) < 1.5 * np.mean(theirs)


def test_grids_are_those_of_the_cpu(store):
    fits = Store(store).read()
    here, there = (logit_grid(fits.field, fits.weights[0].to(device), 64) for device in ("cpu", "cuda"))
    assert np.abs(here - there).max() < 1e-3 * np.abs(here).max()


def test_a_model_trained_on_a_gpu_draws_the_same_heads_on_cpu(store, tmp_path):
    path = tmp_path / "model.safetensors"
    there = sample(train(store, path, replace(TINY, coordinates="function", subspace=Subspace(axes_steps=50)), GPU), 3)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), sample(Checkpoint.load(path), 3), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("coordinates", ["weights", "raw"])
def test_a_run_that_was_killed_ends_as_an_undisturbed_one(store, tmp_path, coordinates):
    training, path = replace(TINY, coordinates=coordinates), tmp_path / "again.safetensors"
    whole = train(store, tmp_path / "whole.safetensors", training, GPU)
    train_till_killed(store, path, training, GPU)
    again = train(store, path, training, GPU)
    for ours, theirs in zip(again.denoiser.parameters(), whole.denoiser.parameters()):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
