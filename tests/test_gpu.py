"""What a GPU computes is what the CPU does. Skipped where there is none."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SMALL

from hyperdiffusion import Checkpoint, Shape, Subspace, Training, sample, train
from overfit import Machine, Store, overfit
from overfit.decode import logit_grid

GPU = Machine(device="cuda", threads=2)
TINY = Training("weights", shape=Shape(width=32, depth=1, heads=2, dropout=0.0), steps=30, batch=8, save_every=0.0)

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
def test_a_run_that_was_killed_ends_as_an_undisturbed_one(store, tmp_path, monkeypatch, coordinates):
    training, module = replace(TINY, coordinates=coordinates), importlib.import_module("hyperdiffusion.learner")
    whole = train(store, tmp_path / "whole.safetensors", training, GPU)
    step = module.Learner.step

    def killed(run):
        if run.done == 17:
            raise KeyboardInterrupt
        return step(run)

    monkeypatch.setattr(module.Learner, "step", killed)
    monkeypatch.setattr(importlib.import_module("hyperdiffusion.train"), "SHARE", float("inf"))
    path = tmp_path / "again.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(store, path, training, GPU)
    assert path.with_name("again.safetensors.state").exists()
    monkeypatch.undo()
    again = train(store, path, training, GPU)
    for ours, theirs in zip(again.denoiser.parameters(), whole.denoiser.parameters()):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
