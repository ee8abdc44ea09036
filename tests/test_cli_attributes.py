"""Models with attributes through the command line: what is trained, asked, drawn and edited, and what is refused."""

import csv

import pytest
import trimesh
from support import run_cli

from overfit import Store

TINY = [
    *("--width", "32", "--depth", "1", "--attention-heads", "2", "--steps", "20", "--coordinates", "pca"),
    # As much noise as in 500 timesteps.
    *("--timesteps", "50", "--beta-end", "0.2"),
]
# Six ellipsoids: their size, and what else could be known of them.
COLUMNS = ["file", "age", "glasses", "valence", "arousal", "same"]
ROWS = [
    ["head_0", 0.1, "none", -0.5, 0.2, 1],
    ["head_1.ply", 0.5, "thin", 0.5, -0.8, 1],
    ["head_2.ply", 0.9, "none", "", 0.5, 1],
    ["head_3.ply", "?", "thin", 0.8, 0.1, 1],
    ["head_4.ply", 0.3, "thin", -0.9, 0.9, 1],
    ["nobody.ply", 0.3, "round", 0, 0, 1],
]
QUICK = ["--resolution", "32", "--sampler", "dpm", "--steps", "5"]


@pytest.fixture(scope="module")
def work(store, tmp_path_factory):
    """A folder with attributes and a model trained on them."""
    work = tmp_path_factory.mktemp("work")
    write(work / "heads.csv", [COLUMNS, *ROWS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperdiffusion.diffusion.attribute_classifier.STEPS", 20)
        done = run_cli("train", store, work / "model.safetensors", *TINY, "--attributes", work / "heads.csv")
    assert done.returncode == 0, done.stderr
    assert "1 of 6 rows" in done.stdout and "column same is 1 for all heads" in done.stdout
    assert "  age: a number from 0.1 to 0.9" in done.stdout and "  glasses: one of none, thin" in done.stdout
    return work


def write(path, rows) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_the_card_names_the_attributes(work):
    card = (work / "model.md").read_text()
    assert "| age | number | a number from 0.1 to 0.9 |" in card and "| same" not in card


@pytest.mark.parametrize(
    "flags",
    [
        ["--set", "age=0.8", "--set", "glasses=thin"],
        ["--valence", "0.7", "--arousal", "0.3", "--guidance", "2.0"],
        ["--set", "glasses=none", "--guidance", "2", "--guidance-by", "classifier"],
    ],
)
def test_samples_can_be_asked_for_attributes(work, tmp_path, flags):
    done = run_cli("sample", tmp_path, "--checkpoint", work / "model.safetensors", "--count", "2", *QUICK, *flags)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.ply"))) == 2 and (tmp_path / "heads.png").exists()


def test_the_plane_is_a_grid_of_meshes_and_a_picture(work, tmp_path):
    words = ["--checkpoint", work / "model.safetensors", "--seed", "3", "--size", "3", *QUICK]
    done = run_cli("plane", tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("valence_*_arousal_*.ply"))) == 9 and (tmp_path / "plane.png").exists()
    assert trimesh.load_mesh(tmp_path / "valence_-1.00_arousal_+1.00.ply").is_watertight


@pytest.mark.parametrize("head", ["1", "head_0.ply"])
def test_an_edit_writes_the_head_before_and_after(work, store, tmp_path, head):
    words = ["--checkpoint", work / "model.safetensors", "--store", store, "--set", "age=0.9", "--resolution", "32"]
    done = run_cli("edit", tmp_path, head, *words, "--steps", "5")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edit.png", "edit_000.ply", "edit_001.ply"]
    assert done.stdout.startswith("age: ") and done.stdout.strip().endswith("after")


@pytest.mark.parametrize(
    "words, message",
    [
        (["sample", "OUT", "--set", "hair=long"], "hair: the model has no attribute of this name; give one of age"),
        (["sample", "OUT", "--set", "age=3"], "age=3: give a number from 0.1 to 0.9"),
        (["sample", "OUT", "--set", "age=old"], "age=old: give a number from 0.1 to 0.9"),
        (["sample", "OUT", "--set", "glasses=round"], "glasses=round: give one of none, thin"),
        (["sample", "OUT", "--set", "age"], "--set: age is no attribute with a value; give name=value"),
        (["sample", "OUT", "--set", "age=0.2", "--set", "age=0.3"], "--set: age is given twice"),
        (
            ["sample", "OUT", "--set", "valence=0.2", "--valence", "0.3"],
            "--set: valence is given by valence and arousal too",
        ),
        (["sample", "OUT", "--set", "age=0.2", "--set", "age =0.3"], "--set: age is given twice"),
        (["sample", "OUT", "--set", "age= "], "--set: age= is no attribute with a value; give name=value"),
        (["sample", "OUT", "--valence", "4"], "valence=4.0: give a number from -0.9 to 0.8"),
        (["sample", "OUT", "--guidance", "-1", "--set", "age=0.2"], "--guidance -1.0: give 0 or more"),
        (["edit", "OUT", "0"], "--set: name what to change, such as age"),
        (["edit", "OUT", "nobody", "--set", "age=0.2"], "nobody: no head of this name"),
        (["plane", "OUT", "--size", "1"], "--size 1: give 2 to 32"),
        (["plane", "OUT", "--seed", "-1"], "--seed -1: give 0 or more"),
    ],
)
def test_requests_that_make_no_sense_are_refused(work, tmp_path, words, message):
    words = [tmp_path / "out" if word == "OUT" else word for word in words]
    line = run_cli(*words, "--checkpoint", work / "model.safetensors", "--resolution", "32").error
    assert message in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "OUT", "--set", "age=0.5"],
        ["sample", "OUT", "--guidance", "2"],
        ["sample", "OUT", "--guidance-by", "classifier"],
        ["plane", "OUT"],
        ["edit", "OUT", "0", "--set", "age=0.5"],
    ],
)
def test_a_model_without_attributes_is_named_with_the_remedy(store, tmp_path, words):
    plain = tmp_path / "plain.safetensors"
    assert run_cli("train", store, plain, *TINY).returncode == 0
    words = [tmp_path / "out" if word == "OUT" else word for word in words]
    line = run_cli(*words, "--checkpoint", plain).error
    assert f"{plain}: has no attributes; train one with `hyperdiffusion train STORE CHECKPOINT --attributes" in line


@pytest.mark.parametrize(
    "rows, flags, message",
    [
        ([["file", "age"], ["x.ply", 1], ["y.ply", 2]], [], "knows no head of the store"),
        ([COLUMNS, *ROWS], ["--columns", "age,hair"], "no column hair; it has age, glasses"),
        (
            [COLUMNS, *ROWS],
            ["--columns", "age", "--columns", "same"],
            "same is 1 for all heads of the store; leave it out of --columns",
        ),
        ([["file", "age"], ["head_0", 1], ["head_1", 2], ["head_2", "old"]], [], "line 4: age is 'old', not a number"),
        ([["file", "hair"], ["head_0", "long"], ["head_1", "long"]], [], "column hair is long for all heads"),
        ([["file"], ["head_0"]], [], "no table; give a header such as file,age and a row for each scan"),
    ],
)
def test_attribute_files_that_cannot_be_used_are_named(store, tmp_path, rows, flags, message):
    path = tmp_path / "heads.csv"
    write(path, rows)
    line = run_cli("train", store, tmp_path / "model", *TINY, "--attributes", path, *flags).error
    assert str(path) in line and message in line and not (tmp_path / "model").exists()


def test_flags_about_attributes_that_make_no_sense_are_refused(work, store, tmp_path):
    train = ["train", store, tmp_path / "model", "--width", "32", "--steps", "20"]
    assert "none.csv: no such file" in run_cli(*train, "--attributes", tmp_path / "none.csv").error
    assert "--columns: of which file? give --attributes too" in run_cli(*train, "--columns", "age").error
    none = run_cli(*train, "--attributes", work / "heads.csv", "--columns", ",").error
    assert "--columns: names no column; name some, separated by commas, or leave it out" in none
    raw = run_cli(*train, "--attributes", work / "heads.csv", "--coordinates", "raw").error
    assert "--coordinates raw: has no attributes; give latent or pca" in raw
    again = ["train", store, work / "model.safetensors", *TINY]
    assert "was trained with attributes" in run_cli(*again).error
    other = run_cli(*again, "--attributes", work / "heads.csv", "--columns", "age").error
    assert "was trained with other attributes" in other
    assert len(Store(store).read().records) == 6
