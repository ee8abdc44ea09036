"""Shapes whose answers are known, and settings small enough for tests."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from hyperdiffusion import Shape, Training, train
from overfit import Fitting, Machine, Sampling, Settings, overfit

# Where real data lies beside a checkout; tests that want it skip where it does not.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

SMALL = Settings(review=32, sampling=Sampling(near=6000, wide=2000, uniform=2000), worst_mm=20.0,
                 fitting=Fitting(steps=60, first_steps=200, points=512))
ONE_THREAD = Machine(device="cpu", threads=1)
TINY = Training("weights", shape=Shape(width=32, depth=1, heads=2, dropout=0.0), steps=30, batch=8, save_every=0.0)


class Killed(Exception):
    """Stands for a kill."""


def train_till_killed(store: Path, path: Path, training: Training, machine: Machine) -> None:
    """A training that is killed at its step 17; its state lies on disk, saved whatever share of the time that took."""
    learner = importlib.import_module("hyperdiffusion.learner").Learner
    step = learner.step

    def killed(run):
        if run.done == 17:
            raise Killed
        return step(run)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(learner, "step", killed)
        patch.setattr(importlib.import_module("hyperdiffusion.seldom"), "SHARE", float("inf"))
        train(store, path, training, machine)
    assert not path.exists() and path.with_name(path.name + ".state").exists()


def ellipsoid(radii, subdivisions: int = 3) -> trimesh.Trimesh:
    """An ellipsoid of a head's size, in millimetres."""
    mesh = trimesh.creation.icosphere(subdivisions)
    return trimesh.Trimesh(mesh.vertices * radii, mesh.faces, process=False)


@pytest.fixture(scope="session")
def scan_folder(tmp_path_factory) -> Path:
    """Six ellipsoids as PLY files: heads to learn from."""
    folder = tmp_path_factory.mktemp("scans")
    for index in range(6):
        radii = np.random.default_rng(index).uniform([60, 90, 70], [90, 130, 100])
        ellipsoid(radii).export(folder / f"head_{index}.ply")
    return folder


@pytest.fixture(scope="session")
def store(scan_folder, tmp_path_factory) -> Path:
    """A store of the six, fitted shortly."""
    folder = tmp_path_factory.mktemp("stores") / "store"
    overfit(scan_folder, folder, SMALL, ONE_THREAD, batch=2)
    return folder


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
