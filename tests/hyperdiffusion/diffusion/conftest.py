"""Small stores of heads whose parameters are drawn, and a model trained on one: fast enough to make in every worker."""

from pathlib import Path

import pytest
import torch
from support import ONE_THREAD, TINY

from hyperdiffusion import train
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from overfit import Cube, DecodeConfig, Field, FitRecord, Store
from overfit.canonical.warp import WarpSpace
from overfit.neural_head import HeadSpace

CUBE = Cube((0.0, 0.0, 0.0), 100.0)


def record(name: str) -> FitRecord:
    return FitRecord(name, name, 1.0, 0.1, 0.1, 1)


@pytest.fixture(scope="session")
def make_store():
    """A function that writes a store of heads from their parameters (heads, S)."""

    def make(folder: Path, field: Field, parameters: torch.Tensor, *, warps: WarpSpace = WarpSpace()) -> Path:
        store = Store.create(folder, space=HeadSpace(field, CUBE, warps), settings={})
        store.add(0, parameters, [record(f"{index:02d}.ply") for index in range(len(parameters))])
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
def warped_store(make_store, tmp_path_factory) -> Path:
    """Eight small networks as in the small store, each with a warp and the height of a neck."""
    generator, field = torch.Generator().manual_seed(1), Field(hidden=(8, 8))
    weights = field.initial(generator) + 0.05 * torch.randn(8, field.size, generator=generator)
    points = torch.rand(20, 3, generator=generator) * 200 - 100
    warps = WarpSpace(tuple(map(tuple, points.tolist())), cuts_neck=True)
    # Displacements of millimetres, and heights about -100 mm.
    warp = 0.02 * torch.randn(8, warps.size, generator=generator)
    warp[:, -1] -= 1
    parameters = torch.cat([warp, weights], dim=1)
    return make_store(tmp_path_factory.mktemp("warped") / "store", field, parameters, warps=warps)


@pytest.fixture(scope="session")
def trained(small_store, tmp_path_factory) -> Path:
    """The checkpoint of an undisturbed training on the small store."""
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    train(small_store, path, config=TINY, machine=ONE_THREAD)
    return path


@pytest.fixture(scope="session")
def model(trained) -> Checkpoint:
    return Checkpoint.load(trained)


@pytest.fixture(scope="session")
def warped_model(warped_store, tmp_path_factory) -> Checkpoint:
    """A model of warped heads."""
    return train(warped_store, tmp_path_factory.mktemp("warped") / "model", config=TINY, machine=ONE_THREAD)


@pytest.fixture
def coarse_labels(monkeypatch) -> None:
    """Finds the surfaces of fits on a coarse grid; the networks of the small store have none worth a finer one."""
    coarse = DecodeConfig(resolution=16, keep_all_components=True)
    monkeypatch.setattr("overfit.field_labels.SURFACE_CONFIG", coarse)
