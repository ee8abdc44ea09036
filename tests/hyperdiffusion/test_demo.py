"""The demo runs every stage once and resumes; here on ellipsoids in place of the head model's heads."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from support import ONE_THREAD, SMALL, TINY, ellipsoid

from hyperdiffusion import EvaluationConfig
from hyperdiffusion.data.head_folder import ATTRIBUTES
from hyperdiffusion.demo import DemoConfig, run_demo
from overfit import DecodeConfig

CONFIG = DemoConfig(
    training_heads=4,
    test_heads=3,
    generated_heads=3,
    overfit=SMALL,
    training=replace(TINY, steps=10),
    evaluation=EvaluationConfig(points=100, emd_heads=0),
    decoding=DecodeConfig(resolution=32),
)


def write_ellipsoids(out: Path, count: int, *, seed: int, **_) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"head_{seed}_{index}.ply" for index in range(count)]
    for index, path in enumerate(paths):
        radii = np.random.default_rng([seed, index]).uniform([60, 90, 70], [90, 130, 100])
        ellipsoid(radii).export(path)
    # Half of the columns are the same for all heads.
    values = [[f"level {index % (position % 2 + 1)}" for position in range(len(ATTRIBUTES))] for index in range(count)]
    with open(out / "heads.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", *ATTRIBUTES], *([path.name, *row] for path, row in zip(paths, values))])
    return paths


def test_the_demo_makes_heads_a_picture_and_a_table_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr("hyperdiffusion.demo.write_heads", write_ellipsoids)
    monkeypatch.setattr("hyperdiffusion.diffusion.attribute_classifier.STEPS", 20)
    text = run_demo(tmp_path, CONFIG, machine=ONE_THREAD)
    assert all(column in text for column in ("test", "training", "fits", "generated"))
    assert "1-NNA" in text and "copy rate" in text
    assert len(list((tmp_path / "heads").glob("*.ply"))) == 3
    assert (tmp_path / "heads.png").exists() and (tmp_path / "report.html").exists()
    card = (tmp_path / "checkpoint.md").read_text()
    assert ATTRIBUTES[1] in card and ATTRIBUTES[0] not in card
    monkeypatch.setattr("hyperdiffusion.demo.train", None)
    assert run_demo(tmp_path, CONFIG, machine=ONE_THREAD) == text
