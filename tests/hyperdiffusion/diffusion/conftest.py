"""A small store of networks whose weights are drawn, and a model trained on it: fast enough to make in every worker."""

from pathlib import Path

import pytest
import torch
from support import ONE_THREAD, TINY

from hyperdiffusion import train
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from overfit import Cube, DecodeConfig, Field, FitRecord, Store

CUBE = Cube((0.0, 0.0, 0.0), 100.0)


def record(name: str) -> FitRecord:
    return FitRecord(name, name, 1.0, 0.1, 0.1, 1)


@pytest.fixture(scope="session")
def make_store():
    """A function that writes a store of weights (heads, P)."""

    def make(folder: Path, field: Field, weights: torch.Tensor) -> Path:
        store = Store.create(folder, field=field, cube=CUBE, settings={})
        store.add(0, weights, [record(f"{index:02d}.ply") for index in range(len(weights))])
        return folder

    return make


@pytest.fixture(scope="session")
def small_store(make_store, tmp_path_factory) -> Path:
    """Eight spheres' worth of small networks, each a little different."""
    generator = torch.Generator().manual_seed(0)
    field = Field(hidden=(8, 8))
    weights = field.initial(generator) + 0.05 * torch.randn(8, field.size, generator=generator)
    return make_store(tmp_path_factory.mktemp("small") / "store", field, weights)


@pytest.fixture(scope="session")
def trained(small_store, tmp_path_factory) -> Path:
    """The checkpoint of an undisturbed training on the small store."""
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    train(small_store, path, config=TINY, machine=ONE_THREAD)
    return path


@pytest.fixture(scope="session")
def model(trained) -> Checkpoint:
    return Checkpoint.load(trained)


@pytest.fixture
def coarse_labels(monkeypatch) -> None:
    """Finds the surfaces of fits on a coarse grid; the networks of the small store have none worth a finer one."""
    coarse = DecodeConfig(resolution=16, keep_all_components=True)
    monkeypatch.setattr("overfit.field_labels.SURFACE_CONFIG", coarse)
