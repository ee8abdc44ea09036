"""The included model as a prior: it comes close to heads of its own, and fits of others lie in its space."""

import dataclasses

import numpy as np
import pytest
import torch
from support import ONE_THREAD, SMALL, random_head, run_cli

from hyperdiffusion import Checkpoint, HeadPrior, LatentSpaceConfig, TrainingConfig, sample, train
from overfit import (
    AlignmentConfig,
    BadInput,
    DecodeConfig,
    Field,
    FieldLabels,
    FitConfig,
    Store,
    decode,
    find_scans,
    losses,
    overfit,
)
from overfit.fit_batch import fit_first
from overfit.labels import LabelBatch

QUICK = dataclasses.replace(
    SMALL,
    alignment=AlignmentConfig(),
    max_error_mm=1e6,
    check_resolution=64,
    fit=dataclasses.replace(SMALL.fit, steps=4, first_steps=4),
)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.shipped(torch.device("cpu"))


@pytest.fixture(scope="module")
def prior(checkpoint) -> HeadPrior:
    return HeadPrior.of(checkpoint)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(2):
        random_head(seed).export(folder / f"{seed}.ply")
    return folder


@pytest.fixture(scope="module")
def store(scans, prior, tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("work") / "store"
    overfit(scans, folder, config=QUICK, prior=prior, machine=ONE_THREAD)
    return Store(folder)


@pytest.fixture(scope="module")
def labels(checkpoint) -> LabelBatch:
    """What three of the model's samples say about their surfaces."""
    weights = checkpoint.space.weights(sample(checkpoint, 3, seed=1))
    return FieldLabels.of(checkpoint.space.field, checkpoint.space.cube, weights=weights)


def loss(checkpoint: Checkpoint, weights: torch.Tensor, labels: LabelBatch) -> torch.Tensor:
    return losses(checkpoint.space.field(weights, labels.points), labels.distance, FitConfig())


def test_the_nearest_heads_agree_with_their_labels(checkpoint, prior, labels):
    nearest = prior.nearest(labels, mean=prior.mean)
    assert (loss(checkpoint, nearest, labels) < 0.6 * loss(checkpoint, prior.mean.expand(3, -1), labels)).all()


def test_directions_have_unit_variance_among_the_models_heads(checkpoint, prior):
    codes = torch.randn(4, checkpoint.coordinates.size, generator=torch.Generator().manual_seed(0))
    weights = checkpoint.space.weights(checkpoint.coordinates.decode(codes))
    along = (weights - prior.mean) @ torch.linalg.pinv(prior.directions)
    # A rotation of the codes, without those entries that move the warps alone.
    assert torch.allclose(prior.mean + along @ prior.directions, weights, atol=1e-3)
    assert (along.norm(dim=1) <= codes.norm(dim=1) * 1.001).all()


def test_fits_lie_in_the_priors_space(store, prior):
    fits = store.read()
    assert fits.space == prior.space and store.prior == prior.digest
    # Few steps from the prior's heads, not from random weights.
    offset = (fits.weights - prior.mean).norm(dim=1)
    fresh = prior.space.field.initial(torch.Generator().manual_seed(0))
    assert (offset < 0.5 * (fresh - prior.mean).norm()).all()


def test_a_first_fit_starts_from_the_prior(prior, labels):
    one = LabelBatch(labels.points[:1], labels.distance[:1])
    config = dataclasses.replace(QUICK, fit=dataclasses.replace(QUICK.fit, lr=0.0))
    first = fit_first(one, config, prior=prior)
    assert torch.allclose(first, prior.nearest(one, mean=prior.mean)[0], atol=1e-5)


def test_a_store_keeps_to_its_prior(store, scans, prior, tmp_path):
    with pytest.raises(BadInput, match="`prior`: .* was made with a prior; do as then"):
        overfit(scans, store.folder, config=QUICK, machine=ONE_THREAD)
    other = dataclasses.replace(prior, digest="another")
    with pytest.raises(BadInput, match="`prior`: .* was made with another prior"):
        overfit(scans, store.folder, config=QUICK, prior=other, machine=ONE_THREAD)
    assert len(overfit(scans, store.folder, config=QUICK, prior=prior, machine=ONE_THREAD).kept) == 2


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"field": Field(hidden=(32, 32, 32))}, "`prior`: is a model of other networks"),
        ({"alignment": AlignmentConfig(control_points=50)}, "`prior`: is a model of another canonical space"),
    ],
)
def test_a_prior_of_another_kind_is_refused(changed, words, scans, prior, tmp_path):
    with pytest.raises(BadInput, match=words):
        overfit(scans, tmp_path / "store", config=dataclasses.replace(QUICK, **changed), prior=prior)
    assert not (tmp_path / "store").exists()


def test_a_head_that_the_priors_cube_does_not_hold_is_skipped(scans, prior, tmp_path):
    mesh = random_head(0)
    mesh.vertices[:, 1] -= 150 * (mesh.vertices[:, 1] < np.median(mesh.vertices[:, 1]))
    mesh.export(tmp_path / "tall.ply")
    mixed = [*find_scans(scans), *find_scans(tmp_path)]
    result = overfit(mixed, tmp_path / "store", config=QUICK, prior=prior, machine=ONE_THREAD)
    (skipped,) = result.skipped
    assert skipped.name == "tall.ply" and "cut its neck and shoulders" in skipped.reason


def test_the_command_line_takes_the_included_model_or_a_file(scans, tmp_path):
    quick = ["--prepared", "--steps", 3, "--first-steps", 3, "--check-resolution", 48, "--max-error-mm", 99]
    done = run_cli("overfit", scans, tmp_path / "store", *quick, "--prior", "--no-repair")
    assert done.returncode == 0, done.stderr
    assert "2 fitted" in done.stdout and Store(tmp_path / "store").prior
    missing = tmp_path / "missing.safetensors"
    assert str(missing) in run_cli("overfit", scans, tmp_path / "other", "--prepared", "--prior", missing).error


def test_training_starts_from_the_prior(store, checkpoint, tmp_path):
    config = TrainingConfig(latent_space=LatentSpaceConfig(encode_steps=20, prior_steps=2))
    path = tmp_path / "model.safetensors"
    model = train(store.folder, path, config=config, prior=checkpoint, machine=ONE_THREAD)
    # Two heads cannot tell when a transformer memorises them: none is trained.
    assert model.training.steps == 0 and model.training.settings["prior"] == checkpoint.digest
    assert model.coordinates.size > checkpoint.coordinates.size
    assert decode(model.head(sample(model, 1)[0]), DecodeConfig(48)).volume > 1e6
    with pytest.raises(BadInput, match="was trained with a prior"):
        train(store.folder, path, config=config, machine=ONE_THREAD)


def test_a_training_from_a_prior_that_its_fits_do_not_know_is_refused(store, checkpoint, tmp_path):
    other = dataclasses.replace(checkpoint, training=dataclasses.replace(checkpoint.training, steps=1))
    with pytest.raises(BadInput, match="`prior`: the fits of .* did not start from it"):
        train(store.folder, tmp_path / "model.safetensors", prior=other)
    with pytest.raises(BadInput, match="`coordinates=pca`: have no prior"):
        train(store.folder, tmp_path / "model.safetensors", config=TrainingConfig("pca"), prior=checkpoint)
