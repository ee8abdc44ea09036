"""Samples are written chunk by chunk; heads without a surface are reported, and disks that are too small refused."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from support import ONE_THREAD

from hyperdiffusion import Checkpoint, sample, write_between, write_samples
from hyperdiffusion.diffusion import generate
from hyperdiffusion.diffusion import write_samples as module
from overfit import BadInput, DecodeConfig

COARSE = DecodeConfig(resolution=16)


@pytest.fixture
def checkpoint(trained) -> Checkpoint:
    return Checkpoint.load(trained)


def test_chunks_write_all_heads_under_their_numbers(checkpoint, tmp_path, monkeypatch):
    drawn = []

    def record(model, count, *, first, **options):
        drawn.append((first, count))
        return sample(model, count, first=first, **options)

    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(generate, "sample", record)
    written = write_samples(checkpoint, tmp_path, count=5, seed=3, decoding=COARSE, repair=False)
    assert drawn == [(0, 2), (2, 2), (4, 1)] and written.written == 5 and not written.failures
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "heads.png",
        *(f"sample_003_{index:05d}.ply" for index in range(5)),
    ]


def test_heads_without_a_surface_are_failures(checkpoint, tmp_path):
    weights = sample(checkpoint, 2)
    weights[0] = 0.0
    written = write_between(checkpoint, weights, tmp_path, name="frame", decoding=COARSE)
    assert written.written == 1 and [head.name for head in written.failures] == ["frame_000"]
    with pytest.raises(BadInput, match="no head has a surface"):
        write_between(checkpoint, torch.zeros_like(weights), tmp_path, name="frame", decoding=COARSE)


def test_a_disk_that_is_too_small_is_refused_before_the_work(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    with pytest.raises(BadInput, match="^`count=16`: the meshes would take about 0.1 GB"):
        write_samples(checkpoint, tmp_path / "out", context=ONE_THREAD.start(show_progress=False))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [{"count": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(checkpoint, tmp_path, arguments):
    (name, value), *_ = arguments.items()
    with pytest.raises(BadInput, match=f"^`{name}={value}`"):
        write_samples(checkpoint, tmp_path, **arguments)
