"""Folders of heads: what is written, what is kept, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
import trimesh
from support import ONE_THREAD, run_cli

from hyperdiffusion.data import head_folder
from hyperdiffusion.data.expressions import EXPRESSIONS
from hyperdiffusion.data.factors import LEVELS
from hyperdiffusion.data.head_folder import write_heads
from hyperdiffusion.data.population import HeadPopulation
from overfit.runtime.errors import BadInput


@pytest.fixture
def loaded(model, population, monkeypatch):
    """Loading takes seconds."""
    monkeypatch.setattr(head_folder, "HeadModel", lambda: model)
    monkeypatch.setattr(head_folder, "HeadPopulation", lambda model: population)


@pytest.fixture
def boxes(loaded, monkeypatch):
    """Heads of every population are boxes: what matters is which are written."""
    box = trimesh.creation.box()
    monkeypatch.setattr(HeadPopulation, "mesh", lambda *arguments: box)
    monkeypatch.setattr("hyperdiffusion.data.synthetic_heads.HeadModel.mesh", lambda *arguments: box)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "heads.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_head_k_of_a_seed_does_not_depend_on_the_count_and_is_described(loaded, tmp_path):
    write_heads(tmp_path / "one", 1, seed=5, machine=ONE_THREAD)
    paths = write_heads(tmp_path / "two", 2, seed=5, machine=ONE_THREAD)
    assert paths[0].read_bytes() == (tmp_path / "one" / paths[0].name).read_bytes()
    rows = rows_of(tmp_path / "two")
    assert [row["file"] for row in rows] == [path.name for path in paths]
    assert rows[0] == rows_of(tmp_path / "one")[0]
    assert 0.3 <= float(rows[0]["age"]) <= 1 and rows[0]["age"] != rows[1]["age"]
    assert trimesh.load_mesh(paths[0]).is_watertight


def test_heads_csv_has_factors_expressions_affect_and_parameters(boxes, model, tmp_path):
    write_heads(tmp_path, 20, machine=ONE_THREAD)
    rows = rows_of(tmp_path)
    names = list(rows[0])
    known = ["file", *LEVELS, *EXPRESSIONS, "valence", "arousal", "gender", "age"]
    assert names[: len(known)] == known
    assert set(model.details) < set(names) and {"jawOpen", "mouthSmileLeft"} < set(names)
    assert all(row[factor] in levels for row in rows for factor, levels in LEVELS.items())
    for row in rows:
        assert sum(float(row[name]) > 0 for name in EXPRESSIONS) <= 2
        assert np.hypot(float(row["valence"]), float(row["arousal"])) <= 1.0001
        # An open mouth is shown by the jaw and by nothing else.
        assert (float(row["open_mouth"]) > 0) == (float(row["jawOpen"]) > 0)


def test_plain_heads_are_the_head_model_s_own(loaded, model, tmp_path):
    assert run_cli("heads", tmp_path / "plain", "--plain", "--count", "1", "--seed", "3").returncode == 0
    mesh = trimesh.load_mesh(tmp_path / "plain" / "head_003_00000.ply", process=False)
    expected = model.mesh(model.person(np.random.default_rng([3, 0])))
    assert mesh.vertices == pytest.approx(expected.vertices, abs=1e-4) and np.array_equal(mesh.faces, expected.faces)
    assert not set(LEVELS) & set(rows_of(tmp_path / "plain")[0])


def test_plain_heads_and_heads_with_factors_show_the_same_people(boxes, tmp_path):
    for name, plain in (("plain", True), ("factors", False)):
        write_heads(tmp_path / name, 3, plain=plain, machine=ONE_THREAD)
    for plain, other in zip(rows_of(tmp_path / "plain"), rows_of(tmp_path / "factors")):
        assert all(plain[name] == other[name] for name in ("gender", "age", "caucasian", "l-ear-scale-incr"))


def test_existing_heads_are_kept(boxes, tmp_path):
    (path,) = write_heads(tmp_path, 1, machine=ONE_THREAD)
    path.write_text("kept")
    paths = write_heads(tmp_path, 2, machine=ONE_THREAD)
    assert path.read_text() == "kept" and paths[1].exists()


def test_rows_of_other_seeds_and_larger_counts_are_kept(boxes, tmp_path):
    write_heads(tmp_path, 3, seed=0, machine=ONE_THREAD)
    write_heads(tmp_path, 2, seed=1, machine=ONE_THREAD)
    before = contents(tmp_path)
    write_heads(tmp_path, 1, seed=0, machine=ONE_THREAD)
    assert contents(tmp_path) == before
    assert [row["file"][5:14] for row in rows_of(tmp_path)] == [
        "000_00000", "000_00001", "000_00002", "001_00000", "001_00001",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "first, second, message",
    [
        ({}, {"plain": True}, "lists heads with factors; leave out `plain`"),
        ({"plain": True}, {}, "lists plain heads; add `plain`"),
        ({}, {"expressions": 3}, "head_000_0000.* other `expressions` or `without`.*; repeat the options"),
        ({"plain": True}, {"plain": True, "expressions": 3}, "other `expressions`"),
        ({}, {"without": ["glasses"]}, "other `expressions` or `without`"),
        ({"without": ["glasses"]}, {}, "other `expressions` or `without`"),
        # Other heads, but in the same folder.
        ({}, {"without": ["glasses"], "seed": 1}, "other `expressions` or `without`"),
    ],
)
def test_heads_of_other_options_are_refused_and_kept(boxes, tmp_path, first, second, message):
    write_heads(tmp_path, 12, **first, machine=ONE_THREAD)
    before = contents(tmp_path)
    for count in (12, 14):
        with pytest.raises(BadInput, match=f"heads.csv: .*{message}"):
            write_heads(tmp_path, count, **second, machine=ONE_THREAD)
    assert contents(tmp_path) == before


def test_an_interrupted_folder_is_recognised(boxes, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HeadPopulation, "mesh", interrupt)
        write_heads(tmp_path, 4, machine=ONE_THREAD)
    with pytest.raises(BadInput, match="leave out `plain`"):
        write_heads(tmp_path, 4, plain=True, machine=ONE_THREAD)
    assert all(path.exists() for path in write_heads(tmp_path, 4, machine=ONE_THREAD))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--without", "cap+wig"], "--without cap+wig: wig is unknown; join by + any of hair"),
        (["--without", "hair", "--without", "bald"], "--without: every head has one of hair, bald; withhold fewer"),
        (["--plain", "--without", "cap+beard"], "--without: plain heads have no factors; leave out --without or"),
    ],
)
def test_the_command_line_refuses_in_one_line(tmp_path, words, message):
    done = run_cli("heads", tmp_path / "out", *words)
    assert message in done.error and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"count": 0}, {"count": -5}, {"count": 10**9}, {"seed": -1}, {"expressions": -1}])
def test_counts_and_seeds_are_bounded(tmp_path, options):
    ((name, value),) = options.items()
    with pytest.raises(BadInput, match=f"`{name}={value}`"):
        write_heads(tmp_path, **options)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'"' + 200_000 * b"a"])
def test_another_file_in_place_of_heads_csv_is_named_and_kept(boxes, tmp_path, content):
    (tmp_path / "heads.csv").write_bytes(content)
    with pytest.raises(BadInput, match="heads.csv: not a table of heads; move it away"):
        write_heads(tmp_path, 1, machine=ONE_THREAD)
    assert (tmp_path / "heads.csv").read_bytes() == content
