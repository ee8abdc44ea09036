"""Checkpoints: what is read is what was written; other files, other versions and damage are refused."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support import TINY

from hyperdiffusion import TrainingConfig, sample
from hyperdiffusion.diffusion import checkpoint as module
from hyperdiffusion.diffusion import checkpoint_v3
from hyperdiffusion.diffusion.checkpoint import CHECKPOINT, VERSION, Checkpoint, TrainingRecord
from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from hyperdiffusion.diffusion.denoiser import LatentDenoiser
from hyperdiffusion.diffusion.schedule import NoiseSchedule
from overfit import BadInput, Cube, Field, HeadSpace, NeuralHead, Store, WarpSpace
from overfit.canonical.align import CORNERS


def rewritten(path, target, change):
    """The checkpoint with its description changed."""
    with safe_open(path, "pt") as file:
        tensors, description = (
            {name: file.get_tensor(name) for name in file.keys()},
            json.loads(file.metadata()[CHECKPOINT]),
        )
    change(description)
    save_file(tensors, target, {CHECKPOINT: json.dumps(description)})
    return target


def test_what_is_loaded_is_what_was_saved(small_store, model, trained, tmp_path):
    store = Store(small_store)
    assert model.space == store.space
    model.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == trained.read_bytes()
    head = model.head(sample(model, 1)[0])
    assert isinstance(head, NeuralHead) and (head.field, head.cube) == (store.space.field, store.space.cube)


def test_warps_are_saved_with_the_model(warped_store, warped_model, tmp_path):
    warped_model.save(tmp_path / "again")
    again = Checkpoint.load(tmp_path / "again")
    assert again.space == Store(warped_store).space and again.coordinates.sizes == again.space.token_sizes
    rows = sample(again, 2)
    assert torch.equal(rows, sample(warped_model, 2)) and rows.shape == (2, again.space.size)
    head = again.head(rows[0])
    assert head.warp is not None and head.warp.neck_height == pytest.approx(100 * float(rows[0, 60]), abs=1e-4)


def as_version_6(description: dict) -> None:
    """Its transformer did not say that the timestep is only a token."""
    description["version"] = 6
    assert description["transformer"].pop("adaptive_norm") is False


@pytest.mark.parametrize(
    "warps, adaptive_norm",
    [(WarpSpace(), True), (WarpSpace(), False), (WarpSpace(CORNERS, cuts_neck=True), True)],
    ids=["weights", "version 6", "warps"],
)
def test_a_loaded_denoiser_predicts_what_the_trained_one_did(tmp_path, warps, adaptive_norm):
    """Heads of a learned latent space: directions of warps have no part in most of the tokens."""
    generator, space = (
        torch.Generator().manual_seed(0),
        HeadSpace(Field(hidden=(32, 32)), Cube((0.0, 0.0, 0.0), 100.0), warps),
    )
    directions = torch.randn(12, space.field.size, generator=generator)
    if warps.size:
        directions = torch.block_diag(torch.randn(6, warps.size, generator=generator), directions)
    codes = torch.randn(40, len(directions), generator=generator)
    mean = torch.randn(space.size, generator=generator)
    coordinates = LatentCoordinates.from_codes(mean, directions, codes=codes, sizes=space.token_sizes)
    transformer = replace(TINY.transformer, adaptive_norm=adaptive_norm)
    denoiser = LatentDenoiser(transformer, NoiseSchedule(), coordinates).eval()
    # As after training: a transformer that predicts something.
    for parameter in denoiser.transformer.project.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    record = TrainingRecord({}, [], steps=1, best_step=1, mixture_components=1, val_loss=None)
    path = tmp_path / "model"
    Checkpoint(space, coordinates, NoiseSchedule(), denoiser, record).save(path)
    loaded = Checkpoint.load(path if adaptive_norm else rewritten(path, tmp_path / "old", as_version_6)).denoiser
    noised, step = torch.randn(32, coordinates.size, generator=generator), torch.full((32,), 250)
    with torch.no_grad():
        ours, theirs = (one.correction(noised, step) for one in (denoiser, loaded))
    assert torch.dist(ours, theirs) < 0.01 * ours.norm()


def test_a_checkpoint_of_version_4_is_read_as_one_of_heads_that_are_not_warped(model, trained, tmp_path):
    def as_version_4(description: dict) -> None:
        del description["warps"]
        description["version"] = 4

    loaded = Checkpoint.load(rewritten(trained, tmp_path / "old", as_version_4))
    assert loaded.space == model.space and torch.equal(sample(loaded, 2), sample(model, 2))
    assert loaded.head(sample(loaded, 1)[0]).warp is None


def test_the_shipped_checkpoint_is_complete():
    shipped = Checkpoint.shipped()
    assert shipped.space.field.size == 36_737 and shipped.space.size == shipped.coordinates.basis.shape[1]
    # The warps of 400 control points, and a neck.
    assert shipped.space.warps.size == 1201
    assert len(shipped.training.heads) == 1024 and "x Gaussian baseline" in shipped.training.summary()
    settings, present = shipped.training.settings, asdict(TrainingConfig())
    assert set(settings) == {*present, "attributes"}
    assert {"hair", "glasses", "smile", "age"} < set(shipped.require_conditioning().attributes.names)
    for group in ("latent_space", "transformer", "noise_schedule"):
        assert set(settings[group]) == set(present[group])


def test_an_installation_without_a_checkpoint_says_so(monkeypatch):
    monkeypatch.setattr(module, "SHIPPED_FILE", "missing.safetensors")
    with pytest.raises(BadInput, match="no checkpoint is installed"):
        Checkpoint.shipped()
    monkeypatch.setattr(module, "SHIPPED_PACKAGE", "hyperdiffusion.missing")
    with pytest.raises(BadInput, match="no checkpoint is installed"):
        Checkpoint.shipped()


def test_checkpoints_of_version_3_give_the_same_samples(model, trained, tmp_path):
    """Written under the old names, by the table read backwards."""

    def old(values, names):
        backwards = {new: name for name, new in names.items()}
        return {backwards.get(name, name): value for name, value in values.items()}

    with safe_open(trained, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        description = json.loads(file.metadata()[CHECKPOINT])
    settings = description["training"]["settings"]
    for part, names in (
        ("latent_space", checkpoint_v3.LATENT_SPACE),
        ("transformer", checkpoint_v3.TRANSFORMER),
        ("noise_schedule", checkpoint_v3.NOISE_SCHEDULE),
    ):
        settings[part] = old(settings[part], names)
    settings["coordinates"] = "weights"
    description["training"] = old(
        description["training"] | {"settings": old(settings, checkpoint_v3.SETTINGS)}, checkpoint_v3.TRAINING
    ) | {"kind": "hyperdiffusion training state"}
    description["transformer"] = old(description["transformer"], checkpoint_v3.TRANSFORMER)
    description["noise_schedule"] = old(description["noise_schedule"], checkpoint_v3.NOISE_SCHEDULE)
    description = old(description, checkpoint_v3.DESCRIPTION) | {"version": 3, "kind": CHECKPOINT}
    # Heads were not warped then.
    del description["warps"]
    assert {"shape", "schedule"} < set(description) and "axes" in settings["latent_space"]
    path = tmp_path / "old"
    save_file(old(tensors, checkpoint_v3.TENSORS), path, {"about": json.dumps(description)})
    loaded = Checkpoint.load(path)
    assert torch.equal(sample(loaded, 2), sample(model, 2)) and loaded.training == model.training


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"PK\x03\x04" + content,
    ],
)
def test_a_damaged_file_is_refused(trained, tmp_path, damage):
    path = tmp_path / "damaged"
    path.write_bytes(damage(trained.read_bytes()))
    with pytest.raises(BadInput, match="not a complete safetensors file"):
        Checkpoint.load(path)


def test_an_incomplete_description_is_refused(trained, tmp_path):
    path = rewritten(trained, tmp_path / "damaged", lambda description: description.pop("field"))
    with pytest.raises(BadInput, match="a damaged checkpoint"):
        Checkpoint.load(path)


def test_other_files_and_folders_are_refused(small_store, tmp_path):
    with pytest.raises(BadInput, match="a store, not a checkpoint; make a checkpoint with `hyperdiffusion train"):
        Checkpoint.load(small_store)
    with pytest.raises(BadInput, match="another kind of file, not a checkpoint"):
        Checkpoint.load(small_store / "shards" / "000000.safetensors")
    with pytest.raises(BadInput, match="a folder where a file is expected"):
        Checkpoint.load(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        Checkpoint.load(tmp_path / "missing")


def test_checkpoints_of_version_5_are_refused_if_their_warps_are_splines(trained, tmp_path):
    def with_splines(description: dict) -> None:
        description.update(version=5, warps={"control_points": [[0.0, 0.0, 0.0]], "cuts_neck": False})

    with pytest.raises(BadInput, match="an older version"):
        Checkpoint.load(rewritten(trained, tmp_path / "old", with_splines))


@pytest.mark.parametrize("version, words", [(VERSION + 1, "a newer version"), (2, "an older version")])
def test_checkpoints_of_other_versions_are_refused(trained, tmp_path, version, words):
    path = rewritten(trained, tmp_path / "other", lambda description: description.update(version=version))
    with pytest.raises(BadInput, match=words):
        Checkpoint.load(path)
