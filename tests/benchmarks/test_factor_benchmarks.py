"""The benchmarks of heads with factors run on ellipsoids that are said to have some."""

import csv
import itertools

import control
import head_classifier
import population
import pytest
import quick_metrics
from benchmark_runs import run, short_fits
from head_classifier import FACTORS, NUMBERS
from support import ONE_THREAD, SMALL, TINY, ellipsoid

from hyperdiffusion import read_attributes, train
from hyperdiffusion.diffusion import attribute_classifier
from overfit import overfit

COLUMNS = ("age", "smile", "open_mouth", "glasses")


@pytest.fixture(scope="module", autouse=True)
def small_classifiers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_classifier, "IMAGE_SIZE", 16)
        patch.setattr(head_classifier, "EPOCHS", 1)
        patch.setattr(attribute_classifier, "STEPS", 20)
        patch.setattr(quick_metrics, "POINTS", 64)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Training and test ellipsoids, whose height is their age."""
    return [write_heads(tmp_path_factory.mktemp(name), count) for name, count in (("scans", 6), ("test", 4))]


@pytest.fixture(scope="module")
def model_with_attributes(small_classifiers, folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    overfit(folders[0], folder / "store", config=SMALL, machine=ONE_THREAD)
    known = read_attributes(folders[0] / "heads.csv", folder / "store", columns=COLUMNS)
    train(folder / "store", folder / "model.safetensors", config=TINY, machine=ONE_THREAD, attributes=known)
    return folder / "model.safetensors"


def write_heads(folder, count):
    levels = list(itertools.islice(itertools.cycle(itertools.product(*FACTORS.values())), 0, 7 * count, 7))
    with open(folder / "heads.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", *FACTORS, *NUMBERS])
        for index in range(count):
            name = f"head_{index}.ply"
            ellipsoid([80, 90 + 5 * index, 85]).export(folder / name)
            numbers = [(index + shift) % count / count for shift in range(len(NUMBERS))]
            table.writerow([name, *levels[index], *numbers])
    return folder


def test_population(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(population, "VIEW_SIZE", 32)
    training = ["--training.coordinates", "pca", "--training.steps", 4, "--training.batch-size", 4]
    counts = ["--count", 3, "--classified", 3, "--resolution", 32]
    options = ["--withheld", "cap+thick", "--columns", *COLUMNS, *short_fits("overfit")]
    arguments = [*folders, tmp_path / "out", *options, *training, *counts]
    rows = run(population, tmp_path / "result.json", *arguments)["rows"]
    assert [row["set"] for row in rows] == ["test scans", "training fits", *population.GENERATORS]
    assert 0 <= rows[0]["accuracy"] <= 1 and 0 <= rows[0]["combination_coverage"] <= 1
    compared = [row["set"] for row in rows if row.get("withheld", "").startswith("cap+thick: ")]
    assert compared == ["test scans", "training fits", *population.BenchmarkConfig.sampled]
    assert (tmp_path / "out" / "population.png").exists()


def test_control(folders, model_with_attributes, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "VIEW_SIZE", 32)
    settings = ["--count", 3, "--people", 3, "--guidance", 0, 2, "--resolution", 32, "--sampling.steps", 4]
    arguments = [model_with_attributes, *folders, tmp_path / "out", *settings]
    rows = run(control, tmp_path / "result.json", *arguments)["rows"]
    assert [row["set"] for row in rows[:3]] == ["test scans", "guidance 0", "guidance 2"]
    assert all(row["within_mm"] > 0 and row["between_mm"] > 0 for row in rows[3:])
