"""Training and its checkpoint: what is learned, kept, taken up again, and refused."""

import dataclasses
import importlib
import os
import time
from pathlib import Path

import pytest
import torch
from conftest import ONE_THREAD, TINY, train_till_killed

from hyperdiffusion import Checkpoint, Sampling, Shape, Subspace, Training, places, sample, train
from hyperdiffusion.checkpoint import VERSION, read_tensors, write_tensors
from hyperdiffusion.learner import STAIR, STAIR_EPOCHS, Learner
from hyperdiffusion.presets import PRESETS
from hyperdiffusion.sample import write_meshes
from hyperdiffusion.seldom import SHARE, Seldom
from hyperdiffusion.tokens import Plain
from hyperdiffusion.train import verdict
from hyperdiffusion.transformer import denoiser_of
from overfit import BadInput, Cube, Field, Store
from overfit.fit import has_bf16
from overfit.store import Record

CUBE = Cube((0.0, 0.0, 0.0), 100.0)


@pytest.fixture
def checkpoint(store, tmp_path):
    train(store, tmp_path / "model.safetensors", TINY, ONE_THREAD)
    return tmp_path / "model.safetensors"


def parameters(model: Checkpoint | Learner) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.denoiser.parameters())


def test_a_checkpoint_alone_gives_the_same_samples(store, checkpoint):
    loaded = Checkpoint.load(checkpoint)
    fits = Store(store).read()
    assert loaded.field == fits.field and loaded.cube == fits.cube
    weights = sample(loaded, 3, seed=7)
    assert weights.shape == (3, fits.field.size)
    torch.testing.assert_close(sample(train(store, checkpoint, TINY, ONE_THREAD), 3, seed=7), weights)


def test_head_k_of_a_seed_is_the_same_whatever_the_batch(checkpoint):
    model = Checkpoint.load(checkpoint)
    many = sample(model, 5, seed=1)
    torch.testing.assert_close(sample(model, 5, seed=1, batch=2), many, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sample(model, 2, seed=1), many[:2], atol=1e-4, rtol=1e-4)
    assert (sample(model, 2, seed=2) - many[:2]).abs().max() > 1e-3


def test_a_compiled_training_gives_the_same_model(store, checkpoint, tmp_path, monkeypatch):
    """As traced and run without machine code, which would take a minute to make."""
    compiled, compile = [], torch.nn.Module.compile

    def traced(module: torch.nn.Module) -> None:
        compiled.append(module)
        compile(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    model = train(store, tmp_path / "model", TINY, ONE_THREAD, compile=True)
    assert len(compiled) == 1
    torch.testing.assert_close(parameters(model), parameters(Checkpoint.load(checkpoint)), atol=1e-4, rtol=1e-3)


def test_compiling_without_a_compiler_is_told(store, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="--compile: finds no C.. compiler; install g"):
        train(store, tmp_path / "model", TINY, ONE_THREAD, compile=True)


def test_another_seed_trains_another_model(store, checkpoint, tmp_path):
    other = train(store, tmp_path / "other", dataclasses.replace(TINY, seed=1), ONE_THREAD)
    assert not torch.equal(parameters(other), parameters(Checkpoint.load(checkpoint)))


def test_training_learns_two_far_heads(tmp_path):
    """Of two heads alone, samples must lie near one or the other."""
    store = Store.create(tmp_path / "store", Field(hidden=(4,)), CUBE, {})
    heads = torch.randn(2, store.field.size, generator=torch.Generator().manual_seed(0))
    store.add(0, heads, [_record("a"), _record("b")])
    longer = dataclasses.replace(TINY, steps=1000, batch=32, rate=3e-3, warmup=50)
    model = train(store.folder, tmp_path / "model", longer, ONE_THREAD)
    distance = torch.cdist(sample(model, 20), heads)
    assert (distance.min(1).values < 0.3 * torch.dist(*heads)).float().mean() > 0.8
    assert len(distance.argmin(1).unique()) == 2
    torch.testing.assert_close(sample(model, 20, batch=7), sample(model, 20), atol=1e-3, rtol=1e-3)


def _between(store: Path, training: Training) -> tuple[float, dict]:
    """The share of samples between two clusters of heads, and the record of the training."""
    random = torch.Generator().manual_seed(0)
    store = Store.create(store, Field(hidden=(4,)), CUBE, {})
    far = 5 * torch.randn(store.field.size, generator=random)
    heads = torch.randn(60, 3, generator=random) @ torch.randn(3, store.field.size, generator=random) / 3
    heads[::2] += far
    store.add(0, heads, [_record(f"{index:02d}") for index in range(60)])
    model = train(store.folder, store.folder.with_name("model"), training, ONE_THREAD)
    along = (sample(model, 100) - heads.mean(0)) @ far / far.square().sum()
    # Clusters lie at plus and minus one half; a Gaussian would put 0.38 of its samples between the quarters.
    return float((along.abs() < 0.25).float().mean()), model.training


def test_held_out_heads_judge_and_the_best_model_is_kept(tmp_path):
    """Of two clusters, a Gaussian is wrong between them, and held-out heads show it."""
    longer = dataclasses.replace(TINY, groups=1, steps=600, batch=32, rate=2e-3, warmup=50)
    between, training = _between(tmp_path / "store", longer)
    assert between < 0.25 and training["held_out_loss"] < 0.9
    assert 0 < training["kept_at"] <= training["steps"] <= 600


def test_training_starts_from_the_groups_that_held_out_heads_show(tmp_path):
    between, training = _between(tmp_path / "store", dataclasses.replace(TINY, steps=1))
    assert training["groups"] == 2
    assert between < 0.02 and training["held_out_loss"] < 0.9


def test_training_that_does_not_help_leaves_the_gaussian(tmp_path):
    random = torch.Generator().manual_seed(0)
    store = Store.create(tmp_path / "store", Field(hidden=(4,)), CUBE, {})
    store.add(0, torch.randn(30, store.field.size, generator=random), [_record(f"{index:02d}") for index in range(30)])
    model = train(store.folder, tmp_path / "model", dataclasses.replace(TINY, steps=5000, patience=100), ONE_THREAD)
    assert model.training["steps"] < 5000
    assert model.training["kept_at"] == 0 and model.training["held_out_loss"] == 1
    assert "the model is the Gaussian" in verdict(model.training)


def test_a_run_that_was_killed_ends_as_an_undisturbed_one(store, checkpoint, tmp_path):
    again = tmp_path / "again.safetensors"
    train_till_killed(store, again, TINY, ONE_THREAD)
    resumed = train(store, again, TINY, ONE_THREAD)
    assert torch.equal(parameters(resumed), parameters(Checkpoint.load(checkpoint)))
    assert not again.with_name("again.safetensors.state").exists()


def test_saving_takes_no_more_than_its_share_of_the_time(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    saving = Seldom()
    assert not saving.due(30)
    now += 31
    assert saving.due(30)
    with saving.done():
        now += 10
    now += 31
    assert not saving.due(30)
    now += 10 / SHARE
    assert saving.due(30)


def _raise(kind):
    raise kind


def test_a_finished_checkpoint_is_not_trained_again_nor_by_other_settings(store, checkpoint):
    before = checkpoint.read_bytes()
    train(store, checkpoint, TINY, ONE_THREAD)
    assert checkpoint.read_bytes() == before
    with pytest.raises(BadInput, match="was trained with steps 30, not 31"):
        train(store, checkpoint, dataclasses.replace(TINY, steps=31), ONE_THREAD)


@pytest.mark.parametrize("damage, words", [
    (lambda content: content[:-100], "not a whole safetensors file"),
    (lambda content: content[:20], "not a whole safetensors file"),
    (lambda content: b"", "not a whole safetensors file"),
    (lambda content: b"PK\x03\x04" + content, "not a whole safetensors file"),
])
def test_a_damaged_checkpoint_is_told(checkpoint, damage, words):
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(BadInput, match=words):
        Checkpoint.load(checkpoint)


def test_other_kinds_of_file_are_told(store, tmp_path):
    with pytest.raises(BadInput, match="another kind of file"):
        Checkpoint.load(store / "weights.safetensors")
    with pytest.raises(BadInput, match="no such checkpoint"):
        Checkpoint.load(tmp_path / "missing")


@pytest.mark.parametrize("change, words", [(1, "newer version"), (-1, "older version")])
def test_checkpoints_of_other_versions_are_told(checkpoint, change, words):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content.replace(b'\\"version\\": %d' % VERSION, b'\\"version\\": %d' % (VERSION + change)))
    with pytest.raises(BadInput, match=words):
        Checkpoint.load(checkpoint)


def test_a_store_of_one_head_or_with_broken_weights_is_told(tmp_path):
    store = Store.create(tmp_path / "store", Field(), CUBE, {})
    store.add(0, torch.zeros(1, store.field.size), [_record("a")])
    with pytest.raises(BadInput, match="holds one head"):
        train(store.folder, tmp_path / "model", TINY, ONE_THREAD)
    store.add(1, torch.full((1, store.field.size), torch.nan), [_record("b")])
    with pytest.raises(BadInput, match="weights of b are not finite"):
        train(store.folder, tmp_path / "model", TINY, ONE_THREAD)


@pytest.mark.parametrize("arguments, words", [
    (dict(count=0), "--count 0"), (dict(count=1, sampling=Sampling("ddim", steps=0)), "--steps 0"),
    (dict(count=1, sampling=Sampling("ddim", steps=501)), "--steps 501"),
    (dict(count=1, sampling=Sampling("dpm", steps=500)), "--steps 500"),
    (dict(count=1, sampling=Sampling(temperature=-1)), "--temperature -1"),
    (dict(count=1, sampling=Sampling(spread=-1)), "--spread -1"),
    (dict(count=1, sampling=Sampling(truncation=float("nan"))), "--truncation nan"),
    (dict(count=1, sampling=Sampling("ddim", eta=1.5)), "--eta 1.5")])
def test_counts_that_make_no_sense_are_told(checkpoint, arguments, words):
    with pytest.raises(BadInput, match=words):
        sample(Checkpoint.load(checkpoint), **arguments)


def test_the_paper_preset_is_the_published_one():
    """Erkoç et al. 2023, section 3.2 and configuration."""
    paper = PRESETS["paper"]
    shape, schedule = paper.shape, paper.schedule
    assert (shape.width, shape.depth, shape.heads, shape.dropout) == (2880, 12, 16, 0.0)
    assert (schedule.timesteps, schedule.noise, schedule.first_beta, schedule.last_beta) == (500, "linear", 1e-4, 2e-2)
    assert (paper.coordinates, paper.batch, paper.epochs, paper.rate) == ("raw", 32, 6000, 2e-4)
    assert (paper.fall, STAIR, STAIR_EPOCHS, paper.warmup) == ("stairs", 0.9, 200, 0)
    assert (paper.average, paper.held_out, paper.clip) == (0.0, 0.0, 0.0)
    with torch.device("meta"):
        whole = denoiser_of(shape, schedule, Plain.raw(Field().sizes))
    assert len(whole.transformer.embed) == 8
    # 12 layers of twelve width x width matrices, and every weight in and out of the width.
    expected = 12 * 12 * 2880**2 + 2 * 36737 * 2880
    assert sum(parameter.numel() for parameter in whole.parameters()) == pytest.approx(expected, rel=0.02)


@pytest.mark.skipif(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 16 * 2**30,
                    reason="the published model takes 11 GiB of memory for a step")
@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="a step in emulated bf16 takes ten minutes")
def test_the_whole_published_model_takes_a_step():
    """In half precision, in which weights, gradients and moments of 1.4 billion parameters fit into a desktop."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        plain = Plain.raw(Field().sizes)
        heads = 0.05 * torch.randn(4, Field().size, generator=torch.Generator().manual_seed(0))
        run = Learner(plain, heads, heads[:0], dataclasses.replace(PRESETS["paper"], batch=2), torch.device("cpu"))
        before = run.denoiser.transformer.project[0].bias.detach().clone()
        # It starts at zero, so that the loss is the heads' own size.
        assert float(run.step()) == pytest.approx(0.05**2, rel=0.1)
        # Adam's first step is as long as the rate, in whatever direction.
        moved = (run.denoiser.transformer.project[0].bias.detach() - before).abs()
        assert float(moved.mean()) == pytest.approx(2e-4, rel=0.1)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_published_way_trains_and_its_rate_falls_in_stairs(tmp_path):
    """One layer of the published width, in the raw weights of the default field."""
    store = Store.create(tmp_path / "store", Field(), CUBE, {})
    heads = Field().initial(torch.Generator().manual_seed(0)) + 0.01 * torch.randn(
        4, Field().size, generator=torch.Generator().manual_seed(1))
    store.add(0, heads, [_record(name) for name in "abcd"])
    paper = dataclasses.replace(PRESETS["paper"], shape=Shape(width=2880, depth=1, heads=16, dropout=0.0), epochs=1,
                                batch=2)
    model = train(store.folder, tmp_path / "model.safetensors", paper, ONE_THREAD)
    assert model.training["steps"] == 2 and model.training["held_out_loss"] is None
    assert sample(Checkpoint.load(tmp_path / "model.safetensors"), 1, sampling=Sampling("ddim", 2)).shape == (
        1, Field().size)
    plain = Plain.raw((6, 2))
    tiny = dataclasses.replace(paper, shape=Shape(width=8, depth=1, heads=2, dropout=0.0), epochs=1000)
    run = Learner(plain, torch.randn(4, 8), torch.zeros(0, 8), tiny, torch.device("cpu"))
    rates = {}
    for run.done in (0, 399, 400, 1999):
        rates[run.done] = run._rate()
    assert rates == pytest.approx({0: 2e-4, 399: 2e-4, 400: 1.8e-4, 1999: 2e-4 * 0.9**4})


def test_the_moving_average_is_that_of_the_weights_and_holds_no_graph():
    """A graph of every step filled the memory: 32 MB a step at one scale for all."""
    training = Training("raw", shape=Shape(width=8, depth=1, heads=2, dropout=0.0), held_out=0.0)
    run = Learner(Plain.raw((6, 2)), torch.randn(4, 8), torch.zeros(0, 8), training, torch.device("cpu"))
    average = parameters(run).detach()
    for done in (1, 2, 3):
        run.step()
        average = average.lerp(parameters(run).detach(), 1 - done / (done + 10))
    found = torch.nn.utils.parameters_to_vector(run.average.parameters())
    torch.testing.assert_close(found.detach(), average)
    assert not any(parameter.requires_grad for parameter in run.average.parameters())


def test_plain_coordinates_learn_two_clusters(tmp_path):
    """At one scale for all, the plain denoiser finds both of two far heads."""
    store = Store.create(tmp_path / "store", Field(hidden=(4,)), CUBE, {})
    heads = torch.randn(2, store.field.size, generator=torch.Generator().manual_seed(0))
    store.add(0, heads, [_record("a"), _record("b")])
    longer = dataclasses.replace(TINY, coordinates="scaled", steps=600, batch=32, rate=3e-3, warmup=50)
    model = train(store.folder, tmp_path / "model", longer, ONE_THREAD)
    distance = torch.cdist(sample(model, 20), heads)
    assert (distance.min(1).values < 0.4 * torch.dist(*heads)).float().mean() > 0.8
    assert len(distance.argmin(1).unique()) == 2


def test_a_subspace_is_learned_once_and_taken_up_by_a_run_that_was_killed(store, tmp_path, monkeypatch):
    quick = dataclasses.replace(TINY, coordinates="function", subspace=Subspace(axes=3, axes_steps=10, place_steps=5))
    undisturbed = train(store, tmp_path / "one", quick, ONE_THREAD)
    module = importlib.import_module("hyperdiffusion.train")
    monkeypatch.setattr(module, "Learner", lambda *_: _raise(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(store, tmp_path / "two", quick, ONE_THREAD)
    assert (tmp_path / "two.places").exists()
    monkeypatch.undo()
    monkeypatch.setattr(places, "learn", lambda *_: _raise(AssertionError))
    resumed = train(store, tmp_path / "two", quick, ONE_THREAD)
    assert torch.equal(parameters(resumed), parameters(undisturbed))
    assert not (tmp_path / "two.places").exists()
    assert resumed.tokens.size == 3 and len(resumed.tokens.axes[0]) == resumed.field.size


def test_heads_beyond_those_that_the_axes_come_from_are_placed(store, tmp_path):
    few = dataclasses.replace(TINY, coordinates="function",
                              subspace=Subspace(axes=2, axes_steps=10, place_steps=5, axes_from=4))
    model = train(store, tmp_path / "model", few, ONE_THREAD)
    assert model.tokens.size == 2 and torch.isfinite(sample(model, 2)).all()


@pytest.mark.parametrize("coordinates", ["function", "weights"])
def test_a_run_killed_while_it_places_heads_goes_on_with_the_others(store, tmp_path, monkeypatch, coordinates):
    few = dataclasses.replace(TINY, coordinates=coordinates, held_out=0.0,
                              subspace=Subspace(axes=2, axes_steps=10, place_steps=5, axes_from=4))
    monkeypatch.setattr(places, "CHUNK", 1)
    undisturbed = train(store, tmp_path / "one", few, ONE_THREAD)
    saved = []
    monkeypatch.setattr(places, "write_tensors", lambda *words: _count(saved, write_tensors, *words))
    with pytest.raises(KeyboardInterrupt):
        train(store, tmp_path / "two", few, ONE_THREAD)
    monkeypatch.setattr(places, "write_tensors", write_tensors)
    left = read_tensors(tmp_path / "two.places", places.KIND, "")[0]["places"].isnan().any(1).sum()
    assert 0 < left < len(Store(store).rows())
    monkeypatch.setattr(places, "_axes", lambda *_: _raise(AssertionError))
    resumed = train(store, tmp_path / "two", few, ONE_THREAD)
    assert torch.equal(parameters(resumed), parameters(undisturbed))


def test_a_head_without_a_surface_keeps_its_place(store, tmp_path):
    fits = Store(store).read()
    nothing = torch.zeros_like(fits.weights[0])
    meshes, failures = write_meshes([("a", fits.weights[0]), ("b", nothing), ("c", fits.weights[1])], fits.field,
                                    fits.cube, tmp_path, 32)
    assert [mesh is None for mesh in meshes] == [False, True, False] and list(failures) == ["b"]
    assert sorted(path.stem for path in tmp_path.glob("*.ply")) == ["a", "c"]


def _count(calls: list, function, *words) -> None:
    """The function, until it was called twice: then a kill."""
    function(*words)
    calls.append(words)
    if len(calls) == 2:
        raise KeyboardInterrupt


def _record(name: str) -> Record:
    return Record(name, name, 1.0, 0.1, 0.1, 1)

