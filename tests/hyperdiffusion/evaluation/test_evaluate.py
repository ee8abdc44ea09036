"""The evaluation of folders and of checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from support import ONE_THREAD, TINY, bumpy_ellipsoid

from hyperdiffusion import train
from hyperdiffusion.evaluation.evaluate import evaluate
from hyperdiffusion.evaluation.set_metrics import EvaluationConfig
from overfit.decoder import DecodeConfig
from overfit.runtime.errors import BadInput

CONFIG = EvaluationConfig(points=50, emd_heads=0, standardised=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Folders of three test heads in metres, three training heads and four generated ones, one of them damaged."""
    random = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("sets")
    for name, count in (("test", 3), ("training", 3), ("generated", 4)):
        (root / name).mkdir()
        for index in range(count):
            head = bumpy_ellipsoid(random)
            if name == "test":
                head.apply_scale(1e-3)
            head.export(root / name / f"{index}.ply")
    (root / "generated" / "1.ply").write_bytes(b"ply\n")
    return {name: root / name for name in ("test", "training", "generated")}


@pytest.fixture(scope="module")
def checkpoint(store, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    train(store, path, config=TINY, machine=ONE_THREAD)
    return path


def run(folders, out, **options):
    options = {"reference": folders["test"], "config": CONFIG, "machine": ONE_THREAD} | options
    return evaluate(options.pop("generated", folders["generated"]), out, **options)


def test_a_folder_is_compared_with_as_many_heads_as_there_are_test_heads(folders, tmp_path):
    report = run(folders, tmp_path / "out", train=folders["training"])
    assert list(report.sets) == ["test", "training", "generated"]
    assert report.sets["generated"].heads == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.json", "report.md"}


def test_a_generated_head_that_cannot_be_read_counts_as_failed(folders, tmp_path):
    report = run(folders, tmp_path, count=4)
    assert [mesh is None for mesh in report.meshes] == [False, True, False, False]
    assert [validity.watertight for validity in report.sets["generated"].validity] == [True, False, True, True]


def test_a_real_head_that_cannot_be_read_is_refused(folders, tmp_path):
    with pytest.raises(BadInput, match=r"1\.ply"):
        run(folders, tmp_path, reference=folders["generated"])


def test_generated_heads_in_another_unit_are_failures(folders, tmp_path):
    report = run(folders, tmp_path, generated=folders["test"])
    assert list(report.meshes) == [None] * 3


@pytest.mark.parametrize("options", [{"count": 1}, {"count": -1}, {"count": 10**9}, {"seed": -1}])
def test_counts_and_seeds_are_bounded(folders, tmp_path, options):
    ((name, value),) = options.items()
    with pytest.raises(BadInput, match=f"`{name}={value}`"):
        run(folders, tmp_path, **options)


@pytest.mark.parametrize("argument", ["generated", "reference"])
def test_a_single_head_is_too_few(folders, tmp_path, argument):
    (tmp_path / "single").mkdir()
    bumpy_ellipsoid(np.random.default_rng(0)).export(tmp_path / "single" / "head.ply")
    with pytest.raises(BadInput, match="too few"):
        run(folders, tmp_path / "out", **{argument: tmp_path / "single"})


def test_samples_of_a_checkpoint_are_written_and_evaluated(checkpoint, folders, tmp_path):
    report = run(
        folders,
        tmp_path,
        generated=checkpoint,
        count=2,
        seed=3,
        decoding=DecodeConfig(resolution=24, keep_all_components=True),
    )
    written = sorted((tmp_path / "heads").glob("*.ply"))
    assert report.sets["generated"].heads == 2
    assert [path.stem for path in written] == [
        f"sample_003_{index:05d}" for index, mesh in enumerate(report.meshes) if mesh is not None
    ]
    for path, mesh in zip(written, [mesh for mesh in report.meshes if mesh is not None]):
        np.testing.assert_allclose(trimesh.load_mesh(path).extents, mesh.extents, rtol=1e-5)
