"""Fixtures that several test modules share: a folder of scans and a store fitted to it."""

import os
from pathlib import Path

# Before numpy is imported: threads of two test processes wait for each other ten times as long as they compute.
os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "IGL")}

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Before anything imports the packages.
install_import_hook(("overfit", "hyperdiffusion"), "shape_checks.typechecker")

from shape_checks import check_again  # noqa: E402
from support import ONE_THREAD, SMALL, ellipsoid  # noqa: E402

from hyperdiffusion.rendering import render  # noqa: E402
from overfit import overfit  # noqa: E402


def pytest_runtest_setup() -> None:
    check_again()
    # Pictures have jagged edges, and take a quarter of the rays.
    render.SUPERSAMPLING = 1


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
    overfit(scan_folder, folder, config=SMALL, machine=ONE_THREAD, batch_size=2)
    return folder


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
