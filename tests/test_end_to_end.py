"""The whole way through the command line, on small shapes: folders in, meshes out, bad input told."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from conftest import ellipsoid

from overfit import Store

SMALL = ["--near", "6000", "--wide", "2000", "--uniform", "2000", "--first-steps", "200", "--steps", "60", "--points",
         "512", "--worst-mm", "20", "--review", "32", "--prepared"]
TINY = ["--width", "32", "--depth", "1", "--heads", "2", "--steps", "20", "--axes-steps", "30"]


def command(*words, threads: str | None = "1") -> list[str]:
    flags = ["--threads", threads] if threads else []
    return [sys.executable, "-m", "hyperdiffusion", *map(str, words), *flags]


def run(*words, threads: str | None = "1", **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*words, threads=threads), capture_output=True, text=True, **options)


def told(done: subprocess.CompletedProcess) -> str:
    """The one line that bad input ends in."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def made(scan_folder, tmp_path_factory):
    """A folder in which the whole way was gone once: store, model and samples, with two bad files among the scans."""
    work = tmp_path_factory.mktemp("work")
    shutil.copytree(scan_folder, work / "scans")
    (work / "scans" / "text.ply").write_text("no mesh")
    ellipsoid((80, 110, 90)).subdivide().export(work / "scans" / "sub head.obj")
    done = run("overfit", work / "scans", work / "store", *SMALL, threads="2")
    assert done.returncode == 0, done.stderr
    assert "7 fitted, 0 kept from before, 1 set aside" in done.stdout
    assert "set aside: text.ply: cannot be read as a mesh" in done.stdout
    done = run("train", work / "store", work / "model.safetensors", *TINY)
    assert done.returncode == 0, done.stderr
    shutil.copytree(work / "store", work / "trained store")
    return work


def test_decoded_fits_carry_the_scans_names_and_lie_on_them(made):
    done = run("decode", made / "store", made / "fits", "--resolution", "64")
    assert done.returncode == 0, done.stderr
    names = {f"head_{index}" for index in range(6)} | {"sub head"}
    assert {path.stem for path in (made / "fits").iterdir()} == names
    fitted, scan = (trimesh.load_mesh(made / folder / "head_0.ply") for folder in ("fits", "scans"))
    assert fitted.is_watertight
    np.testing.assert_allclose(fitted.bounds, scan.bounds, atol=12)


def test_sampled_heads_are_closed_meshes_in_every_format_with_a_picture(made):
    for suffix in ("ply", "obj", "stl", "glb"):
        out = made / f"heads {suffix}"
        done = run("sample", out, "--checkpoint", made / "model.safetensors", "--count", "2", "--resolution", "48",
                   "--format", suffix, "--seed", "3")
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in out.iterdir()) == [
            "heads.png", f"sample_003_00000.{suffix}", f"sample_003_00001.{suffix}"]
        assert trimesh.load_mesh(out / f"sample_003_00000.{suffix}").is_watertight


def test_two_processes_train_one_model(made, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
             "hyperdiffusion", "train", made / "trained store", tmp_path / "model", *TINY, "--threads", "1"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Trained for 20 steps") == 1
    done = run("sample", tmp_path / "heads", "--checkpoint", tmp_path / "model", "--count", "1", "--resolution", "32")
    assert done.returncode == 0, done.stderr


def test_a_model_and_a_folder_are_evaluated(made, tmp_path):
    quick = ["--reference", made / "scans", "--train", made / "scans", "--points", "200", "--emd-heads", "2",
             "--emd-points", "50"]
    # What cannot be read must not be left out of heads that are to be trusted.
    assert "text.ply" in told(run("evaluate", made / "fits", tmp_path / "out", *quick))
    scans = tmp_path / "scans"
    shutil.copytree(made / "scans", scans)
    (scans / "text.ply").unlink()
    quick[1] = quick[3] = scans
    assert "--count 1" in told(run("evaluate", made / "model.safetensors", tmp_path / "out", *quick, "--count", "1"))
    assert "no such checkpoint" in told(run("evaluate", tmp_path / "none", tmp_path / "out", *quick))
    for generated in (made / "model.safetensors", scans):
        out = tmp_path / f"report of {generated.name}"
        done = run("evaluate", generated, out, *quick, "--resolution", "48", "--count", "4")
        assert done.returncode == 0, done.stderr
        assert "| 1-NNA by earth mover's |" in done.stdout
        assert {"report.html", "report.md", "report.json"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize("words, count, picture", [
    (["interpolate", "0", "3", "--frames", "3"], 3, "frame.png"),
    (["interpolate", "head_0.ply", "sub head", "--frames", "4", "--way", "noise"], 4, "frame.png"),
    (["mix", "1", "head_2"], 5, "layers.png")])
def test_heads_between_two(made, tmp_path, words, count, picture):
    out = tmp_path / "out"
    done = run(words[0], out, *words[1:], "--checkpoint", made / "model.safetensors", "--store", made / "trained store",
               "--resolution", "48")
    assert done.returncode == 0, done.stderr
    assert (out / picture).exists() and len(list(out.glob("*.ply"))) == count
    bad = run(words[0], out, "nobody", "1", "--checkpoint", made / "model.safetensors", "--resolution", "48")
    assert "nobody: no head of that name" in told(bad)


def test_a_second_run_keeps_what_is_done_and_fits_what_is_new(made):
    before = Store(made / "store").read()
    ellipsoid((75, 100, 80)).export(made / "scans" / "new.ply")
    done = run("overfit", made / "scans", made / "store", *SMALL)
    assert "1 fitted, 7 kept from before, 1 set aside" in done.stdout, done.stderr
    after = Store(made / "store").read()
    kept = [index for index, record in enumerate(after.records) if record.name != "new.ply"]
    assert np.array_equal(after.weights[kept], before.weights)


def test_killed_at_any_moment_the_store_ends_as_an_undisturbed_one(scan_folder, store, tmp_path):
    words = command("overfit", scan_folder, tmp_path / "store", *SMALL, "--batch", "2")
    kills = 0
    for wait in (3.0, 4.5, 6.0, 7.5):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True) as process:
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
    assert kills
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fits, undisturbed = Store(tmp_path / "store").read(), Store(store).read()
    assert [record.name for record in fits.records] == [record.name for record in undisturbed.records]
    assert np.array_equal(fits.weights, undisturbed.weights)


def test_a_finished_model_is_not_trained_again(made, store, tmp_path):
    shutil.copy(made / "model.safetensors", tmp_path / "model")
    again = ["train", made / "trained store", tmp_path / "model"]
    assert run(*again, *TINY).returncode == 0
    assert "was trained with steps 20, not 21" in told(run(*again, *TINY, "--steps", "21"))
    assert "was trained on other heads" in told(run("train", store, tmp_path / "model", *TINY))
    assert (tmp_path / "model").read_bytes() == (made / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name, content", [
    ("empty folder", None), ("text.ply", "no mesh"), ("nan.ply", np.nan), ("two.ply", 2)])
def test_folders_without_a_usable_scan_are_told(tmp_path, name, content):
    scans = tmp_path / "scans"
    scans.mkdir()
    if isinstance(content, str):
        (scans / name).write_text(content)
    elif content == 2:
        trimesh.Trimesh(np.eye(4, 3) * 200, [[0, 1, 2], [0, 1, 3]], process=False).export(scans / name)
    elif content is not None:
        trimesh.Trimesh(np.full((300, 3), content), np.arange(300).reshape(-1, 3), process=False).export(scans / name)
    for ready in ([], ["--prepared"]):
        line = told(run("overfit", scans, tmp_path / "-".join(["store", *ready]), *ready))
        assert name in line or "no scans in it" in line
    assert not (tmp_path / "store---prepared").exists()
    # What was found about raw scans is kept.
    assert (tmp_path / "store" / "prepared" / "prepared.csv").exists() == (content is not None)


def test_a_store_of_other_settings_is_told_and_kept(made):
    before = (made / "store" / "weights.safetensors").read_bytes()
    line = told(run("overfit", made / "scans", made / "store", *SMALL, "--octaves", "3"))
    assert "--octaves 4, not 3" in line
    assert (made / "store" / "weights.safetensors").read_bytes() == before


def test_what_is_no_store_or_no_checkpoint_is_told(made, tmp_path):
    assert "no store" in told(run("decode", made / "scans", tmp_path / "out"))
    assert "no store" in told(run("train", made / "scans", tmp_path / "model"))
    assert "holds other things" in told(run("overfit", made / "scans", made / "scans"))
    truncated, other = tmp_path / "truncated.safetensors", tmp_path / "other.safetensors"
    truncated.write_bytes((made / "model.safetensors").read_bytes()[:-1000])
    other.write_bytes((made / "store" / "weights.safetensors").read_bytes())
    assert "not a whole safetensors file" in told(run("sample", tmp_path / "out", "--checkpoint", truncated))
    assert "another kind of file" in told(run("sample", tmp_path / "out", "--checkpoint", other))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags, words", [
    (["--count", "0"], "--count 0"), (["--sampler", "ddim", "--steps", "900"], "--steps 900"),
    (["--resolution", "4"], "resolution of 4"),
    (["--device", "cuda"], "PyTorch sees no GPU")])
def test_flags_that_make_no_sense_are_told(made, tmp_path, flags, words):
    done = run("sample", tmp_path / "out", "--checkpoint", made / "model.safetensors", *flags)
    assert words in done.stderr and told(done)


def test_a_full_disk_is_told_and_leaves_nothing_half_written(made, tmp_path):
    def no_more_than_a_kilobyte():
        import resource

        # A write beyond the limit fails as on a full disk does, but for the error's name.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    line = told(run("decode", made / "store", tmp_path / "out", "--resolution", "16",
                    preexec_fn=no_more_than_a_kilobyte))
    assert "run the same command again" in line and str(tmp_path / "out") in line
    assert not list((tmp_path / "out").iterdir())


def test_every_command_explains_itself():
    for name in ("heads", "prepare", "overfit", "decode", "train", "sample", "interpolate", "mix", "evaluate", "demo"):
        done = run(name, "--help", threads=None)
        assert done.returncode == 0
        assert "--threads" in done.stdout and "--device" in done.stdout


def test_wandb_is_imported_only_where_it_is_asked_for(made, tmp_path):
    for mode in ("disabled", "offline"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "hyperdiffusion", "train", made / "store", tmp_path / mode,
             *TINY, "--show-every", "20", "--wandb", mode, "--threads", "1"], capture_output=True, text=True,
            cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        imported = any(line.split("|")[-1].strip() == "wandb" for line in done.stderr.splitlines())
        assert imported == (mode == "offline")
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    assert list((tmp_path / "wandb").rglob("samples*.png")) and (tmp_path / "offline.png").exists()

