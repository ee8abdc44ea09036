"""The command line from end to end, on small shapes: folders in, meshes out, and one line for bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from support import command, ellipsoid, run_cli, run_process

from hyperdiffusion.cli import COMMANDS, _with_flags
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from overfit import BadInput, Store
from overfit.scans.template import Template

SMALL = [
    *("--near-points", "6000", "--band-points", "2000", "--uniform-points", "2000"),
    *("--first-steps", "200", "--steps", "60", "--points-per-step", "512"),
    *("--max-error-mm", "20", "--check-resolution", "32", "--no-repair", "--prepared"),
    *("--align", "none"),
]
TINY = [
    *("--width", "32", "--depth", "1", "--attention-heads", "2"),
    *("--steps", "20", "--latent-steps", "30", "--latent-points", "64", "--encode-steps", "20"),
    # As much noise as in 500 timesteps.
    *("--timesteps", "50", "--beta-end", "0.2"),
]


@pytest.fixture(scope="module")
def work(scan_folder, tmp_path_factory):
    """A folder with a store, a model and scans, of which one is no mesh."""
    work = tmp_path_factory.mktemp("work")
    shutil.copytree(scan_folder, work / "scans")
    (work / "scans" / "text.ply").write_text("no mesh")
    ellipsoid((80, 110, 90)).subdivide().export(work / "scans" / "sub head.obj")
    done = run_cli("overfit", work / "scans", work / "store", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "7 fitted, 0 kept from before, 1 skipped" in done.stdout
    assert "skipped: text.ply: cannot be read as a mesh" in done.stdout
    done = run_cli("train", work / "store", work / "model.safetensors", *TINY)
    assert done.returncode == 0, done.stderr
    shutil.copytree(work / "store", work / "trained store")
    return work


def test_decoded_fits_have_the_names_and_sizes_of_their_scans(work):
    done = run_cli("decode", work / "store", work / "fits", "--resolution", "64")
    assert done.returncode == 0, done.stderr
    names = {f"head_{index}.ply" for index in range(6)} | {"sub head.obj.ply", "decoded.csv"}
    assert {path.name for path in (work / "fits").iterdir()} == names
    fitted, scan = (trimesh.load_mesh(work / folder / "head_0.ply") for folder in ("fits", "scans"))
    assert fitted.is_watertight
    np.testing.assert_allclose(fitted.bounds, scan.bounds, atol=12)


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "glb"])
def test_samples_are_watertight_meshes_in_every_format_with_a_picture(work, tmp_path, suffix):
    model = ["--checkpoint", work / "model.safetensors"]
    done = run_cli("sample", tmp_path, *model, "--count", "2", "--resolution", "48", "--format", suffix, "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "heads.png",
        f"sample_003_00000.{suffix}",
        f"sample_003_00001.{suffix}",
    ]
    assert trimesh.load_mesh(tmp_path / f"sample_003_00000.{suffix}").is_watertight


def test_raw_scans_are_prepared_before_they_are_fitted(tmp_path):
    """One raw head in metres, lying on its back, and a file that is no mesh."""
    (tmp_path / "scans").mkdir()
    head = Template.standard().mesh.copy()
    head.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]) @ np.diag([1e-3] * 3 + [1]))
    head.export(tmp_path / "scans" / "head.obj")
    (tmp_path / "scans" / "text.ply").write_text("no mesh")
    words = ["overfit", tmp_path / "scans", tmp_path / "store", *(word for word in SMALL if word != "--prepared")]
    done = run_cli(*words)
    assert done.returncode == 0, done.stderr
    assert "1 prepared, 0 kept from before, 1 skipped" in done.stdout and "1 fitted" in done.stdout
    assert (tmp_path / "store" / "prepared" / "prepared.png").exists()
    assert [record.name for record in Store(tmp_path / "store").read().records] == ["head.obj.ply"]
    done = run_cli(*words)
    assert "0 prepared, 1 kept from before, 1 skipped" in done.stdout and "0 fitted, 1 kept" in done.stdout


def test_a_withdrawn_scan_disappears_everywhere(tmp_path):
    scans, store, model = tmp_path / "scans", tmp_path / "store", tmp_path / "model"
    scans.mkdir()
    for index in range(3):
        ellipsoid((70 + 5 * index, 110, 90)).export(scans / f"{index}.ply")
    fit = ["overfit", scans, store, *SMALL]
    decode = ["decode", store, tmp_path / "fits", "--resolution", "32"]
    train = ["train", store, model, *TINY]
    for words in (fit, decode, train):
        assert run_cli(*words).returncode == 0
    (scans / "0.ply").unlink()
    assert "removed the fit of 0.ply: its scan is gone" in run_cli(*fit).stdout
    assert f"removed the mesh of 0.ply: it is no longer in {store}" in run_cli(*decode).stdout
    assert sorted(path.name for path in (tmp_path / "fits").iterdir()) == ["1.ply", "2.ply", "decoded.csv"]
    assert f"1 of its training heads removed from {store}; training it anew" in run_cli(*train).stdout
    assert len(Checkpoint.load(model).training.heads) == 2
    assert "anew" not in run_cli(*train).stdout


def test_two_processes_train_one_model(work, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["-m", "hyperdiffusion", "train", work / "trained store", tmp_path / "model", *TINY, "--threads", "1"]
    done = subprocess.run([*torchrun, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Trained for 20 steps") == 1
    done = run_cli(
        "sample", tmp_path / "heads", "--checkpoint", tmp_path / "model", "--count", "1", "--resolution", "32"
    )
    assert done.returncode == 0, done.stderr


def test_evaluate_reports_on_a_checkpoint_and_on_a_folder(work, tmp_path):
    scans = tmp_path / "scans"
    shutil.copytree(work / "scans", scans)
    (scans / "text.ply").unlink()
    quick = ["--reference", scans, "--train", scans, "--points", "200", "--emd-heads", "2", "--emd-points", "50"]
    for generated in (work / "model.safetensors", scans):
        out = tmp_path / f"report of {generated.name}"
        done = run_cli("evaluate", generated, out, *quick, "--resolution", "48", "--count", "4")
        assert done.returncode == 0, done.stderr
        assert "1-NNA" in done.stdout and "copy rate" in done.stdout
        assert {"report.html", "report.md", "report.json"} <= {path.name for path in out.iterdir()}


def test_evaluate_refuses_what_it_cannot_compare(work, scan_folder, tmp_path):
    model, out = work / "model.safetensors", tmp_path / "out"
    # A test head that cannot be read must not be left out in silence.
    assert "text.ply" in run_cli("evaluate", model, out, "--reference", work / "scans").error
    assert "no scans in it" in run_cli("evaluate", model, out, "--reference", work / "trained store").error
    assert str(tmp_path / "none") in run_cli("evaluate", tmp_path / "none", out, "--reference", scan_folder).error


@pytest.mark.parametrize(
    "words, count, picture",
    [
        (["interpolate", "0", "3", "--frames", "3"], 3, "frame.png"),
        (["interpolate", "head_0.ply", "sub head", "--frames", "4", "--space", "noise"], 4, "frame.png"),
        (["mix", "1", "head_2"], 5, "layers.png"),
    ],
)
def test_heads_between_two(work, tmp_path, words, count, picture):
    options = ["--checkpoint", work / "model.safetensors", "--store", work / "trained store", "--resolution", "48"]
    done = run_cli(words[0], tmp_path, *words[1:], *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / picture).exists() and len(list(tmp_path.glob("*.ply"))) == count
    assert "nobody: no head of this name" in run_cli(words[0], tmp_path, "nobody", "1", *options).error


def test_a_second_run_keeps_the_fits_and_adds_new_scans(work):
    before = Store(work / "store").read()
    ellipsoid((75, 100, 80)).export(work / "scans" / "new.ply")
    done = run_cli("overfit", work / "scans", work / "store", *SMALL)
    assert "1 fitted, 7 kept from before, 1 skipped" in done.stdout, done.stderr
    after = Store(work / "store").read()
    kept = [index for index, record in enumerate(after.records) if record.name != "new.ply"]
    assert np.array_equal(after.weights[kept], before.weights)


def test_a_store_that_was_killed_ends_as_an_undisturbed_one(scan_folder, store, tmp_path):
    words = command("overfit", scan_folder, tmp_path / "store", *SMALL, "--batch-size", "2")
    with subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True) as process:
        # Its progress bar says that fits are on their way.
        shown = b""
        while b"fitting" not in shown and (chunk := process.stderr.read(1)):
            shown += chunk
        os.killpg(process.pid, signal.SIGKILL)
        process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    assert run_cli("overfit", scan_folder, tmp_path / "store", *SMALL, "--batch-size", "2").returncode == 0
    fits, undisturbed = Store(tmp_path / "store").read(), Store(store).read()
    assert [record.name for record in fits.records] == [record.name for record in undisturbed.records]
    assert np.array_equal(fits.weights, undisturbed.weights)


def test_a_finished_model_is_not_trained_again(work, store, tmp_path):
    shutil.copy(work / "model.safetensors", tmp_path / "model")
    again = ["train", work / "trained store", tmp_path / "model", *TINY]
    assert run_cli(*again).returncode == 0
    assert "--steps 20, not 21" in run_cli(*again, "--steps", "21").error
    assert "was trained on other heads" in run_cli("train", store, tmp_path / "model", *TINY).error
    assert (tmp_path / "model").read_bytes() == (work / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "name, content", [("empty folder", None), ("text.ply", "no mesh"), ("nan.ply", np.nan), ("two.ply", 2)]
)
def test_a_folder_without_a_usable_scan_is_refused(tmp_path, name, content):
    scans = tmp_path / "scans"
    scans.mkdir()
    if isinstance(content, str):
        (scans / name).write_text(content)
    elif content == 2:
        trimesh.Trimesh(np.eye(4, 3) * 200, [[0, 1, 2], [0, 1, 3]], process=False).export(scans / name)
    elif content is not None:
        trimesh.Trimesh(np.full((300, 3), content), np.arange(300).reshape(-1, 3), process=False).export(scans / name)
    for flags in ([], ["--prepared"]):
        line = run_cli("overfit", scans, tmp_path / "-".join(["store", *flags]), *flags).error
        assert name in line or "no scans in it" in line
    assert not (tmp_path / "store---prepared").exists()
    # The reports on raw scans are kept.
    assert (tmp_path / "store" / "prepared" / "prepared.csv").exists() == (content is not None)


def test_a_store_of_other_settings_is_refused_and_kept(work):
    before = (work / "store" / "weights.safetensors").read_bytes()
    line = run_cli("overfit", work / "scans", work / "store", *SMALL, "--octaves", "3").error
    assert line.startswith("hyperdiffusion: --octaves 3: ") and "was made with 4" in line
    assert (work / "store" / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "words, steps",
    [
        ([], 1000),
        (["--align", "none"], 2000),
        (["--align", "similarity"], 2000),
        (["--align", "none", "--steps", "9"], 9),
    ],
)
def test_the_number_of_steps_follows_the_alignment(tmp_path, monkeypatch, words, steps):
    found = []

    def overfit(*_, config, **__):
        found.append(config.with_steps().fit.steps)
        raise BadInput("enough")

    monkeypatch.setattr("hyperdiffusion.cli.stage1.overfit", overfit)
    assert "enough" in run_cli("overfit", tmp_path, tmp_path / "store", "--prepared", *words).error
    assert found == [steps]


def test_a_store_of_version_2_is_decoded_and_resumes_without_alignment(scan_folder, store, tmp_path):
    old = shutil.copytree(store, tmp_path / "store")
    content = json.loads((old / "store.json").read_text()) | {"version": 2}
    del content["warps"], content["settings"]["alignment"]
    del content["field"]["activation"], content["settings"]["field"]["activation"]
    (old / "store.json").write_text(json.dumps(content))
    done = run_cli("decode", old, tmp_path / "fits", "--resolution", "32")
    assert done.returncode == 0 and len(list((tmp_path / "fits").glob("*.ply"))) == 6, done.stderr
    aligned = [*(word for word in SMALL if word not in ("--align", "none")), "--align", "warp"]
    line = run_cli("overfit", scan_folder, old, *aligned).error
    assert line.startswith("hyperdiffusion: --align warp: ") and "was made with none" in line
    done = run_cli("overfit", scan_folder, old, *SMALL, "--activation", "relu", "--mixture-weight", "0")
    assert "0 fitted, 6 kept from before, 0 skipped" in done.stdout, done.stderr
    assert np.array_equal(Store(old).read().parameters, Store(store).read().parameters)


def test_files_and_folders_of_the_wrong_kind_are_named(work, scan_folder, tmp_path):
    model, out = work / "model.safetensors", tmp_path / "out"
    assert "not a store" in run_cli("decode", work / "scans", out).error
    assert "not a store" in run_cli("train", work / "scans", tmp_path / "model").error
    # Swapped arguments.
    swapped = run_cli("train", model, work / "store", *TINY).error
    assert "damaged" not in swapped and "a file where" in swapped
    assert f"{tmp_path}: a folder" in run_cli("train", work / "trained store", tmp_path, *TINY).error
    assert f"{tmp_path}: a folder" in run_cli("sample", out, "--checkpoint", tmp_path).error
    assert "inside the store" in run_cli("overfit", work / "scans", work, *SMALL).error
    assert "not a store, and not empty" in run_cli("overfit", scan_folder, work / "scans", *SMALL).error
    file = tmp_path / "file"
    file.write_text("x")
    for words in (
        ["sample", file, "--checkpoint", model, "--count", "1", "--resolution", "16"],
        ["decode", work / "store", file, "--resolution", "16"],
        ["overfit", work / "scans", file, *SMALL],
    ):
        assert f"{file}: a file where a" in run_cli(*words).error
    assert not out.exists()


def test_damaged_checkpoints_are_named(work, tmp_path):
    truncated, other = tmp_path / "truncated.safetensors", tmp_path / "other.safetensors"
    truncated.write_bytes((work / "model.safetensors").read_bytes()[:-1000])
    other.write_bytes((work / "store" / "weights.safetensors").read_bytes())
    assert "not a complete safetensors file" in run_cli("sample", tmp_path / "out", "--checkpoint", truncated).error
    assert "another kind of file" in run_cli("sample", tmp_path / "out", "--checkpoint", other).error
    assert not (tmp_path / "out").exists()


def test_a_store_inside_its_scans_is_refused(work):
    line = run_cli("overfit", work / "scans", work / "scans" / "store", *SMALL).error
    assert str(work / "scans" / "store") in line
    assert not (work / "scans" / "store").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "OUT", "--count", "0"],
        ["sample", "OUT", "--count", "1000000000"],
        ["sample", "OUT", "--seed", "-1"],
        ["sample", "OUT", "--sampler", "ddim", "--steps", "900"],
        ["sample", "OUT", "--resolution", "4"],
        ["sample", "OUT", "--resolution", "5000"],
        ["sample", "OUT", "--threads", "-1"],
        ["interpolate", "OUT", "0", "1", "--seed", "-1"],
        ["interpolate", "OUT", "0", "1", "--frames", "1"],
        ["mix", "OUT", "0", "1", "--seed", "-1"],
        ["evaluate", "MODEL", "OUT", "--reference", "SCANS", "--seed", "-1"],
        ["evaluate", "MODEL", "OUT", "--reference", "SCANS", "--count", "1"],
        ["heads", "OUT", "--seed", "-1"],
        ["heads", "OUT", "--count", "0"],
        ["train", "STORE", "NEW", "--seed", "-1"],
        ["train", "STORE", "NEW", "--steps", "0"],
        ["train", "STORE", "NEW", "--lr", "-1"],
        ["overfit", "SCANS", "NEW", "--prepared", "--coordinates", "4"],
        ["overfit", "SCANS", "NEW", "--prepared", "--batch-size", "-1"],
    ],
)
def test_values_that_make_no_sense_are_refused_by_their_flag(work, scan_folder, tmp_path, words):
    places = {
        "OUT": tmp_path / "out",
        "NEW": tmp_path / "new",
        "MODEL": work / "model.safetensors",
        "SCANS": scan_folder,
        "STORE": work / "trained store",
    }
    if words[0] in ("sample", "interpolate", "mix"):
        words = [*words, "--checkpoint", places["MODEL"]]
    flag, value = [
        (flag, value)
        for flag, value in zip(words, words[1:])
        if re.fullmatch(r"--[\w-]+", str(flag))
        and flag not in ("--checkpoint", "--reference", "--prepared", "--sampler")
    ][0]
    threads = None if "--threads" in words else 1
    line = run_cli(*[places.get(word, word) for word in words], threads=threads).error
    assert f"{flag} {value}" in line
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


def test_a_distant_head_costs_no_more_than_a_near_one(work, tmp_path):
    options = ["--checkpoint", work / "model.safetensors", "--resolution", "16"]
    assert run_cli("mix", tmp_path, "0", "99999999", *options).returncode == 0


def test_a_gpu_that_is_not_there_is_refused(work, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = run_cli("sample", tmp_path, "--checkpoint", work / "model.safetensors", "--device", "cuda").error
    assert "--device cuda: PyTorch sees no GPU" in line


def test_a_full_disk_leaves_nothing_half_written(work, tmp_path):
    def limit_files_to_a_kilobyte():
        import resource

        # A write beyond the limit fails as on a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = run_process(
        "decode", work / "store", tmp_path / "out", "--resolution", "16", preexec_fn=limit_files_to_a_kilobyte
    )
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "free some disk space" in line and str(tmp_path / "out") in line
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", [function.__name__ for function in COMMANDS])
def test_help_explains_every_flag_by_a_sentence_of_its_own(name):
    done = run_cli(name, "--help", threads=None)
    assert done.returncode == 0
    text = re.sub(r"[│╭╰─╮╯]", " ", done.stdout)
    assert "--threads" in text and "--device" in text
    # Flags stand at the left; what follows until the next one is their help.
    helps = re.split(r"\n\s+(?=--[a-z])", text)[1:]
    sentences = [re.sub(r"\s+", " ", part.split("(default")[0].split("  ", 1)[-1]).strip() for part in helps]
    assert all(len(sentence) > 10 for sentence in sentences)
    assert len(set(sentences)) == len(sentences)


def test_a_closed_pipe_prints_no_error():
    with subprocess.Popen(command("--help", threads=None), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == b"" and process.returncode == 0


def test_the_version_is_printed(capsys):
    from importlib.metadata import version

    from hyperdiffusion.cli import main

    main(["--version"])
    assert capsys.readouterr().out.strip() == version("hyperdiffusion-heads")


def test_the_overview_has_a_line_for_every_command():
    lines = run_cli("--help", threads=None).stdout.splitlines()
    assert all(any(line.startswith(f"  {command.__name__} ") for line in lines) for command in COMMANDS)


def test_arguments_in_messages_become_flags():
    assert _with_flags("`batch_size=-1`: give 0 or more") == "--batch-size -1: give 0 or more"
    assert _with_flags("raise `max_error_mm`; `hyperdiffusion overfit A B`") == (
        "raise --max-error-mm; `hyperdiffusion overfit A B`"
    )


def test_wandb_logs_offline(work, tmp_path):
    logged = ["--sample-every", "20", "--wandb", "offline"]
    done = run_process("train", work / "store", tmp_path / "model", *TINY, *logged, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    assert list((tmp_path / "wandb").rglob("samples*.png")) and (tmp_path / "model.png").exists()


def test_optional_and_slow_libraries_are_not_imported_at_the_start():
    code = "import sys, hyperdiffusion.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    slow = {"wandb", "mesh_to_sdf", "x_transformers", "anny", "ray", "laspy", "pye57", "OpenEXR"}
    assert done.returncode == 0 and not slow & set(done.stdout.split())
