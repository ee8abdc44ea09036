"""The wheel, built and installed outside the clone, has all that sampling needs: code, template, checkpoint, types."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import trimesh

ROOT = Path(__file__).resolve().parents[1]
# Left out of the copy that the wheel is built from.
NO_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", "build", "demo", "site", "wandb", "*.egg-info", "__pycache__", ".*_cache"
)


def run(*words, **options) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, work / "source", ignore=NO_SOURCES)
    # Without isolation and dependencies: nothing is downloaded.
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", work / "dist", work / "source")
    (wheel,) = (work / "dist").glob("hyperdiffusion_heads-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel in it; the other packages are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", paths["purelib"], wheel)
    # A plain path: the editable installation of the project in that folder has no say here.
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_the_installed_command_samples_the_shipped_model(environment, tmp_path):
    python = environment / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = run(
        python,
        "-c",
        "import hyperdiffusion, overfit; print(hyperdiffusion.__file__, overfit.__file__)",
        cwd=tmp_path,
        env=clean,
    )
    assert where.count(str(environment)) == 2
    run(
        python,
        "-m",
        "hyperdiffusion",
        "sample",
        "new",
        "--count",
        "2",
        "--resolution",
        "48",
        "--no-repair",
        "--sampler",
        "dpm",
        "--steps",
        "5",
        "--threads",
        "1",
        cwd=tmp_path,
        env=clean,
    )
    meshes = sorted((tmp_path / "new").glob("*.ply"))
    assert len(meshes) == 2 and all(trimesh.load_mesh(mesh).is_watertight for mesh in meshes)
    assert (tmp_path / "new" / "heads.png").exists()


def test_the_wheel_marks_its_packages_as_typed(environment):
    names = {
        path.parent.name for path in environment.rglob("py.typed") if path.parent.name in ("overfit", "hyperdiffusion")
    }
    assert names == {"overfit", "hyperdiffusion"}
