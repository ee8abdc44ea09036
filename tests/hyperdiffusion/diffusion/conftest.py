"""Small stores of heads whose parameters are drawn, and a model trained on one: fast enough to make in every worker."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from support import ONE_THREAD, TINY

from hyperdiffusion import NoiseSchedule, read_attributes, train
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from overfit import Cube, DecodeConfig, Field, FitRecord, Store
from overfit.canonical.warp import WarpSpace
from overfit.neural_head import HeadSpace

FIELD = Field(hidden=(8, 8))
LEVELS = ("none", "thick", "thin")
CUBE = Cube((0.0, 0.0, 0.0), 100.0)


@dataclass(frozen=True)
class KnownPopulation:
    """Heads whose parameters are a linear function of their attributes, and noise in other directions.

    The noise does not correlate with the attributes, as that of many heads does not.
    """

    parameters: torch.Tensor
    """(heads, S)."""
    directions: torch.Tensor
    """(8, S), orthonormal: of age, valence, arousal, two of glasses, and three of noise."""
    numbers: torch.Tensor
    """(heads, 3): age, valence and arousal, each from -1 to 1."""
    glasses: torch.Tensor
    """(heads,) indices into LEVELS."""

    @classmethod
    def draw(cls, count: int) -> "KnownPopulation":
        generator = torch.Generator().manual_seed(3)
        directions = torch.linalg.qr(torch.randn(FIELD.size, 8, generator=generator))[0].T
        numbers = 2 * torch.rand(count, 3, generator=generator) - 1
        glasses = torch.randint(3, (count,), generator=generator)
        noise = 0.4 * torch.randn(count, 8, generator=generator)
        # Along the directions of attributes, little is left that they do not explain.
        noise[:, :5] *= 0.05
        shift = torch.cat([numbers, cls.offsets(glasses), torch.zeros(count, 3)], dim=1)
        known = shift[:, :5] - shift[:, :5].mean(0)
        noise = noise - known @ torch.linalg.lstsq(known, noise).solution
        return cls(FIELD.initial(generator) + (shift + noise) @ directions, directions, numbers, glasses)

    @staticmethod
    def offsets(glasses: torch.Tensor) -> torch.Tensor:
        """Where glasses (heads,) put a head along their two directions (heads, 2)."""
        return torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[glasses]

    def place(self, parameters: torch.Tensor) -> torch.Tensor:
        """Where heads (heads, S) lie along the directions (heads, 8): at their attributes, and at their noise."""
        shift = torch.cat([self.numbers, self.offsets(self.glasses), torch.zeros(len(self.numbers), 3)], dim=1)
        base = (self.parameters - shift @ self.directions).mean(0)
        return (parameters - base) @ self.directions.T

    def write_csv(self, path: Path) -> None:
        with open(path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "age", "valence", "arousal", "glasses"])
            for index, (row, glasses) in enumerate(zip(self.numbers.tolist(), self.glasses.tolist())):
                table.writerow([f"{index:03d}", *(f"{number:.4f}" for number in row), LEVELS[glasses]])


def record(name: str) -> FitRecord:
    return FitRecord(name, name, 1.0, 0.1, 0.1, 1)


@pytest.fixture(scope="session")
def make_store():
    """A function that writes a store of heads from their parameters (heads, S)."""

    def make(folder: Path, field: Field, parameters: torch.Tensor, *, warps: WarpSpace = WarpSpace()) -> Path:
        store = Store.create(folder, space=HeadSpace(field, CUBE, warps), settings={})
        digits = max(2, len(str(len(parameters) - 1)))
        store.add(0, parameters, [record(f"{index:0{digits}d}.ply") for index in range(len(parameters))])
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


@pytest.fixture(scope="session")
def known_heads() -> KnownPopulation:
    return KnownPopulation.draw(400)


@pytest.fixture(scope="session")
def attributed_store(make_store, known_heads, tmp_path_factory) -> Path:
    """A store of the known heads, with heads.csv beside it."""
    folder = make_store(tmp_path_factory.mktemp("attributed") / "store", FIELD, known_heads.parameters)
    known_heads.write_csv(folder.parent / "heads.csv")
    return folder


@pytest.fixture(scope="session")
def attributed_model(attributed_store, tmp_path_factory) -> Checkpoint:
    """A model of the known heads and their attributes."""
    path = tmp_path_factory.mktemp("attributed") / "model.safetensors"
    table = read_attributes(attributed_store.parent / "heads.csv", attributed_store)
    config = replace(TINY, noise_schedule=NoiseSchedule(timesteps=100, beta_end=0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperdiffusion.diffusion.attribute_classifier.STEPS", 200)
        return train(attributed_store, path, config=config, attributes=table, machine=ONE_THREAD)
