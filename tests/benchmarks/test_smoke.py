"""Every benchmark runs on tiny data by its own command line, and writes its rows as JSON."""

import csv
from dataclasses import replace
from pathlib import Path

import compare_generators
import completion
import completion_noise
import few_scans
import fit_quality
import fit_scale
import fit_settings
import fit_speed
import included_model
import metrics_speed
import numpy as np
import prepare_quality
import prepare_repeatability
import pytest
import results_io
import sample_speed
import train_scale
from baselines import velocity_diffusion
from benchmark_runs import run, short_fits
from support import ONE_THREAD, SMALL, TINY, ellipsoid, random_head

from hyperdiffusion import TransformerConfig, train
from overfit import AlignmentConfig, BadInput, RunContext, Store, overfit

# Methods that need no minutes and no GPU; the omitted ones differ from these by a number.
METHODS = [
    *("training_scans", "training_fits", "noisy_fits", "ours", "gaussian_latent", "hyperdiffusion", "scaled_weights"),
    *("gaussian_weights_10", "gaussian_vertices", "auto_decoder", "auto_decoder_gaussian", "point_cloud", "voxels_24"),
]


@pytest.fixture(scope="module")
def test_folder(tmp_path_factory):
    """Three ellipsoids that are not in the store."""
    folder = tmp_path_factory.mktemp("test")
    for index in range(3):
        radii = np.random.default_rng(100 + index).uniform([60, 90, 70], [90, 130, 100])
        ellipsoid(radii).export(folder / f"test_{index}.ply")
    return folder


def test_fit_quality(scan_folder, store, test_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fit_quality, "VIEW_SIZE", 32)
    picture = tmp_path / "fits.png"
    arguments = (scan_folder, store, "--count", 2, "--resolution", 32, "--reference", test_folder, "--picture", picture)
    rows = run(fit_quality, tmp_path / "result.json", *arguments)["rows"]
    assert [row.get("fits") for row in rows[:3]] == ["mean", "median", "worst"]
    assert rows[3]["pairs"] == 1 and rows[3]["midpoint_mm"] > 0
    assert [row["set"] for row in rows[4:]] == ["training fits", "training scans"]
    assert 0 <= rows[4]["one_nna_chamfer"]["mean"] <= 1
    assert picture.exists() and "| training fits |" in capsys.readouterr().out


def test_fit_settings(scan_folder, tmp_path):
    settings = [*short_fits("default"), *short_fits("settings"), "--settings.fit.lr", "2e-3"]
    arguments = (scan_folder, "--count", 2, "--resolution", 32, *settings)
    rows = run(fit_settings, tmp_path / "result.json", *arguments)["rows"]
    assert [row["settings"] for row in rows] == ["default", "given"]
    assert rows[0]["mean_mm"] != rows[1]["mean_mm"] and rows[0]["midpoint_mm"] > 0


def test_fit_speed(scan_folder, tmp_path):
    steps = ["--published-steps", 100, 200, "--our-steps", 30, 60, "--our-heads", 2, "--resolution", 32]
    settings = [*short_fits("published"), *short_fits("ours")]
    rows = run(fit_speed, tmp_path / "result.json", scan_folder, *steps, *settings)["rows"]
    assert [row["method"] for row in rows] == ["published", "published", "ours", "ours"]
    assert all(row["seconds_per_head"] > 0 and row["mean_mm"] > 0 for row in rows)


def test_speed_ups_are_read_from_the_line_between_our_points():
    ours = [
        {"method": "ours", "mean_mm": 0.3, "seconds_per_head": 1.0},
        {"method": "ours", "mean_mm": 0.1, "seconds_per_head": 3.0},
    ]
    published = [
        {"method": "published", "mean_mm": 0.2, "seconds_per_head": 20.0},
        {"method": "published", "mean_mm": 0.05, "seconds_per_head": 90.0},
    ]
    reached, not_reached = fit_speed.speed_ups([*published, *ours])
    assert reached["our_seconds"] == pytest.approx(2.0) and reached["speed_up"] == pytest.approx(10.0)
    assert "speed_up" not in not_reached


def test_fit_scale(scan_folder, tmp_path):
    rows = run(fit_scale, tmp_path / "result.json", scan_folder, "--counts", 2)["rows"]
    assert rows[0]["scans"] == 2 and rows[0]["memory_mib"] > 0


def test_metrics_speed(tmp_path):
    arguments = ("--heads", 4, "--pairs", 2, "--points", 64)
    rows = run(metrics_speed, tmp_path / "result.json", *arguments)["rows"]
    assert len(rows) == 3 and rows[1]["max_difference_mm"] < 1e-3


def test_completion(tmp_path):
    (tmp_path / "heads").mkdir()
    for seed in range(2):
        random_head(seed).export(tmp_path / "heads" / f"{seed}.ply")
    warped = replace(SMALL, alignment=AlignmentConfig(control_points=60), max_error_mm=1000)
    overfit(tmp_path / "heads", tmp_path / "store", config=warped, machine=ONE_THREAD)
    model = Path(__file__).parents[2] / "checkpoints" / "heads.safetensors"
    quick = ["--completion.draws", 2, "--completion.completion-steps", 5, "--count", 1, "--resolution", 48]
    folders = (model, tmp_path / "store", tmp_path / "heads", tmp_path / "out")
    row = run(completion, tmp_path / "result.json", *folders, *quick, "--parts", "face")["rows"][0]
    assert row["part"] == "face" and 0.05 < row["seen"] < 0.4 and 0 <= row["coverage"] <= 1
    # The whole head is the truth.
    assert row["seen_mm"] < row["unseen_mm"] < row["mean_head_mm"]
    assert row["spread_seen_mm"] < row["spread_unseen_mm"]


def test_completion_noise(tmp_path):
    (tmp_path / "heads").mkdir()
    random_head(0).export(tmp_path / "heads" / "0.ply")
    model = Path(__file__).parents[2] / "checkpoints" / "heads.safetensors"
    arguments = (model, tmp_path / "heads", "--count", 1, "--scans", 2000, 0.3, "--resolution", 48)
    quick = ("--completion.completion-steps", 5)
    (row,) = run(completion_noise, tmp_path / "result.json", *arguments, *quick)["rows"]
    assert row["points"] == 2000 and 0.1 < row["completed_mm"] < 3 and 0.1 < row["closed_mm"] < 3


def test_few_scans_takes_the_first_fits(store, tmp_path):
    few_scans._copy_first(store, tmp_path / "copy", 2)
    copy, whole = Store(tmp_path / "copy").read(), Store(store).read()
    assert [record.name for record in copy.records] == [record.name for record in whole.records[:2]]
    assert copy.space == whole.space and (copy.parameters == whole.parameters[:2]).all()


def test_few_scans_tells_whose_heads_samples_are_like():
    radii = [(70, 100, 80), (70, 100, 85), (90, 120, 100)]
    heads = [ellipsoid(one) for one in radii]
    share = few_scans._share_nearest(
        heads, [ellipsoid((70, 100, 82))], [ellipsoid((92, 120, 100))], context=RunContext()
    )
    assert share == pytest.approx(2 / 3)


def test_prepare_quality(tmp_path):
    prepared, clean = tmp_path / "prepared", tmp_path / "clean"
    for folder in (prepared, clean):
        folder.mkdir()
    with open(prepared / "prepared.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "skipped"])
        writer.writeheader()
        writer.writerows([{"name": "a.ply", "skipped": ""}, {"name": "b.ply", "skipped": "no face"}])
    ellipsoid([70, 110, 90]).export(prepared / "a.ply")
    # Clean heads are in centimetres.
    ellipsoid([7, 11, 9]).export(clean / "a.ply")
    rows = run(prepare_quality, tmp_path / "result.json", prepared, clean)["rows"]
    assert rows[0]["worst"] < 5 and rows[1]["worst"] < 1
    # The skipped scan counts as outside of the bound.
    assert [row["within_bound"] for row in rows] == [0.5, 0.5]


HEAD_MODEL = """
import numpy as np
from overfit.scans.prepare import load_template

class HeadModel:
    identity, expression = np.zeros((1, 0)), np.zeros((1, 0))

    def mesh(self, identity, expression):
        template = load_template(None).mesh
        return template.vertices / 10, template.faces

def scanlike(vertices, faces, rng):
    return vertices + rng.normal(scale=0.01, size=vertices.shape), faces
"""


def test_prepare_repeatability(tmp_path):
    script = tmp_path / "head_model.py"
    script.write_text(HEAD_MODEL)
    rows = run(prepare_repeatability, tmp_path / "result.json", script, tmp_path / "out", "--count", 1)["rows"]
    assert [row["within_bound"] for row in rows] == [1, 1]
    # The noise differs, and so do the poses a little.
    assert 0 < rows[0]["median"] < 1 and 0 < rows[1]["median"] < 0.5
    with pytest.raises(BadInput, match="give the head model's script"):
        run(prepare_repeatability, tmp_path / "result.json", tmp_path / "missing.py", tmp_path / "out")


def test_train_scale(tmp_path):
    pytest.importorskip("resource")
    rows = run(train_scale, tmp_path / "result.json", tmp_path, "--heads", 8, "--gib", 8, "--steps", 2)["rows"]
    assert rows[0]["heads"] == 8 and rows[0]["succeeded"] == "yes"


def test_sample_speed(store, tmp_path):
    train(store, tmp_path / "model.safetensors", config=TINY, machine=ONE_THREAD)
    arguments = ("--runs", 1, "--count", 1, "--resolution", 32, "--checkpoint", tmp_path / "model.safetensors")
    row = run(sample_speed, tmp_path / "result.json", *arguments)["rows"][0]
    assert row["min_seconds"] == row["median_seconds"] == row["max_seconds"] > 0


def test_included_model(scan_folder, store, test_folder, tmp_path):
    model = tmp_path / "model.safetensors"
    train(store, model, config=TINY, machine=ONE_THREAD)
    settings = ["--checkpoint", model, "--evaluation.points", 64, "--evaluation.emd-heads", 0]
    folders = (scan_folder, test_folder, tmp_path / "report")
    rows = run(included_model, tmp_path / "result.json", *folders, *settings)["rows"]
    assert [row["set"] for row in rows] == ["test scans", "training scans", "generated"]
    assert 0 <= rows[-1]["one_nna_chamfer"]["mean"] <= 1 and "copy_rate" in rows[-1]


def test_compare_generators(scan_folder, store, test_folder, tmp_path, monkeypatch):
    tiny = TransformerConfig(width=32, depth=1, attention_heads=2, dropout=0.0)
    monkeypatch.setattr(compare_generators, "SMALL_TRANSFORMER", tiny)
    monkeypatch.setattr(compare_generators, "TRIAL_STEPS", (3, 4))
    monkeypatch.setattr(compare_generators, "MIN_STEPS", 3)
    monkeypatch.setattr(compare_generators, "PUBLISHED_STEPS", 5)
    monkeypatch.setattr(compare_generators, "SHOWN", 1)
    monkeypatch.setattr(velocity_diffusion, "SAMPLING_STEPS", 3)
    settings = ["--minutes", 0.005, "--count", 3, "--resolution", 32, "--evaluation.points", 128]
    settings += ["--training.coordinates", "pca", "--training.steps", 3]
    settings += ["--training.transformer.width", 32, "--training.transformer.depth", 1]
    folders = (scan_folder, test_folder, tmp_path / "out")
    arguments = (store, *folders, *settings, "--methods", *METHODS)
    rows = run(compare_generators, tmp_path / "first.json", *arguments)["rows"]
    assert [row["set"] for row in rows] == ["test scans", *[compare_generators.METHODS[name][0] for name in METHODS]]
    copies = next(row for row in rows if row["set"] == "training fits")
    assert copies["one_component"] is not None and copies["coverage_chamfer"]["mean"] > 0
    assert (tmp_path / "out" / "methods.png").exists()

    def refuse(task):
        raise AssertionError("ran again")

    # A second call reads everything from the folder ...
    monkeypatch.setattr(
        compare_generators,
        "METHODS",
        {name: (label, refuse) for name, (label, _) in compare_generators.METHODS.items()},
    )
    assert run(compare_generators, tmp_path / "second.json", *arguments)["rows"] == rows
    # ... and other settings need another folder.
    with pytest.raises(BadInput, match="was made with count 3"):
        run(compare_generators, tmp_path / "third.json", *arguments, "--count", 2)


def test_bad_input_ends_in_one_line(monkeypatch):
    def main(config):
        raise BadInput("FOLDER: empty; give another")

    monkeypatch.setattr("sys.argv", ["benchmark.py"])
    with pytest.raises(SystemExit, match="FOLDER: empty; give another"):
        results_io.run_benchmark(main, results_io.BenchmarkOptions)


def test_unknown_methods_are_refused(scan_folder, store, test_folder, tmp_path):
    with pytest.raises(BadInput, match="methods=ourz"):
        run(
            compare_generators, tmp_path / "result.json", store, scan_folder, test_folder, tmp_path, "--methods", "ourz"
        )
