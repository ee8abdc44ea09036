"""A model of heads whose attributes are known: what it samples, measures, completes, edits and keeps in its file."""

import dataclasses

import pytest
import torch
from support import ONE_THREAD, TINY, train_until_killed

from hyperdiffusion import Attributes, SamplingConfig, edit, edit_head, expression_plane, read_attributes, sample, train
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.encode_store import train_val_split
from overfit import BadInput, Store
from overfit.runtime.tensor_file import open_tensor_file, write_tensor_file

FAST = SamplingConfig("dpm", 20)
AGE, VALENCE, AROUSAL, GLASSES, NOISE = 0, 1, 2, slice(3, 5), slice(5, 8)


@pytest.fixture(scope="module")
def table(attributed_store):
    return read_attributes(attributed_store.parent / "heads.csv", attributed_store)


def test_samples_have_the_wanted_attributes_and_the_rest_varies(attributed_model, known_heads):
    rows = sample(attributed_model, 64, config=FAST, attributes={"age": 0.8, "glasses": "thin"})
    place = known_heads.place(rows)
    assert place[:, AGE].mean() == pytest.approx(0.8, abs=0.1) and place[:, AGE].std() < 0.15
    torch.testing.assert_close(place[:, GLASSES].mean(0), torch.tensor([0.0, 1.0]), atol=0.1, rtol=0)
    # Valence and arousal are uniform from -1 to 1.
    assert (place[:, [VALENCE, AROUSAL]].std(0) > 0.4).all()


def test_a_sample_is_the_same_whatever_the_batch(attributed_model):
    request = {"age": -0.5}
    rows = sample(attributed_model, 5, config=FAST, attributes=request)
    alone = sample(attributed_model, 1, first=3, config=FAST, attributes=request)
    torch.testing.assert_close(rows[3:4], alone, atol=1e-4, rtol=0)


def test_without_a_request_samples_are_as_diverse_as_the_population(attributed_model, known_heads):
    place = known_heads.place(sample(attributed_model, 64, config=FAST))
    assert (place[:, [AGE, VALENCE, AROUSAL]].std(0) > 0.4).all()
    # Each has one kind of glasses or none, and nothing in between.
    levels = known_heads.offsets(torch.arange(3))
    assert torch.cdist(place[:, GLASSES], levels).min(1).values.max() < 0.3


@pytest.mark.parametrize("by, scale", [("classifier-free", 2.0), ("classifier", 1.0)])
def test_guidance_brings_samples_to_the_wanted_side(attributed_model, known_heads, by, scale):
    config = dataclasses.replace(FAST, guidance=scale, guidance_by=by)
    low, high = (
        known_heads.place(sample(attributed_model, 32, config=config, attributes={"age": age}))[:, AGE]
        for age in (-0.8, 0.8)
    )
    assert low.mean() < -0.5 and high.mean() > 0.5


def test_attributes_are_measured_on_codes(attributed_model, known_heads):
    conditioning = attributed_model.require_conditioning()
    found = conditioning.measure(attributed_model.coordinates.encode(known_heads.parameters))
    torch.testing.assert_close(found[:, :3], known_heads.numbers, atol=0.2, rtol=0)
    assert (found[:, 3] == known_heads.glasses).float().mean() > 0.95


def test_the_rest_comes_from_training_heads_that_are_close(attributed_model, known_heads):
    conditioning = attributed_model.require_conditioning()
    wanted = conditioning.attributes.parse({"glasses": "thick", "age": 0.9})
    values = conditioning.complete(wanted, [(0, index) for index in range(50)])
    assert (values[:, 0] == 0.9).all() and (values[:, 3] == 1).all() and not values.isnan().any()
    thick = conditioning.values[known_heads.glasses == 1]
    assert all((thick[:, 1] == value).any() for value in values[:, 1])
    assert len(values[:, 1].unique()) > 5


@pytest.mark.parametrize("head", ["4", "017.ply"])
def test_an_edit_changes_one_attribute_and_leaves_the_rest(attributed_model, attributed_store, known_heads, head):
    """A sample, and a fit; in coordinates of principal components fits need no encoding of their own."""
    if head == "4":
        parameters = sample(attributed_model, 1, first=4)
    else:
        parameters = attributed_model.coordinates.decode(
            attributed_model.coordinates.encode(known_heads.parameters[17:18])
        )
    edited = edit(attributed_model, parameters, {"age": 0.9}, steps=20)
    before, after = known_heads.place(edited.parameters)
    shift = 0.9 - edited.values[0, 0]
    assert after[AGE] - before[AGE] == pytest.approx(float(shift), abs=0.15)
    rest = torch.cat([(after - before)[1:5], (after - before)[NOISE]])
    assert rest.abs().max() < 0.1 * abs(shift)
    assert edited.values[1, 0] == pytest.approx(0.9, abs=0.15)
    assert "age: " in edited.describe({"age": 0.9})[0]


def test_edits_of_samples_are_found_by_number(attributed_model):
    edited = edit_head(attributed_model, "2", {"glasses": "thin"}, steps=20)
    torch.testing.assert_close(edited.parameters[0], sample(attributed_model, 1, first=2)[0], atol=1e-3, rtol=0)
    assert edited.describe({"glasses": "thin"})[0].endswith("thin after")


def test_an_edit_of_a_sample_with_attributes_starts_from_that_sample(attributed_model, known_heads):
    given = {"glasses": "thick", "age": -0.5}
    edited = edit_head(attributed_model, "1", {"age": 0.5}, given=given, steps=20)
    drawn = sample(attributed_model, 2, attributes=given)[1]
    torch.testing.assert_close(edited.parameters[0], drawn, atol=1e-3, rtol=0)
    change = known_heads.place(edited.parameters)[1] - known_heads.place(edited.parameters)[0]
    assert change[AGE] == pytest.approx(1.0, abs=0.1) and change[1:].abs().max() < 0.1


def test_an_edit_to_what_a_head_is_changes_nothing(attributed_model):
    parameters = sample(attributed_model, 1)
    code = attributed_model.coordinates.encode(parameters)
    same = {"age": float(attributed_model.require_conditioning().measure(code)[0, 0])}
    edited = edit(attributed_model, parameters, same, steps=20)
    torch.testing.assert_close(edited.parameters[1], edited.parameters[0], atol=5e-3, rtol=0)


def test_the_plane_is_one_person_with_all_expressions(attributed_model, known_heads):
    plane = expression_plane(attributed_model, size=3, seed=1)
    assert plane.positions[0].tolist() == [-1, 1] and plane.positions[-1].tolist() == [1, -1]
    place = known_heads.place(plane.parameters)
    torch.testing.assert_close(place[:, [VALENCE, AROUSAL]], plane.positions, atol=0.2, rtol=0)
    others = torch.cat([place[:, :1], place[:, GLASSES], place[:, NOISE]], dim=1)
    assert (others - others.mean(0)).abs().max() < 0.1
    other = known_heads.place(expression_plane(attributed_model, size=2, seed=2).parameters)
    assert (other[0, NOISE] - place[0, NOISE]).norm() > 0.1


def test_a_step_between_two_expressions_is_small(attributed_model):
    """The plane is continuous: a hundredth of it moves the head by about a hundredth."""
    fixed: dict[str, float | str] = {"arousal": 0.0, "age": 0.0, "glasses": "none"}
    start, near, far = (
        sample(attributed_model, 1, config=FAST, attributes=fixed | {"valence": valence})
        for valence in (0.0, 0.02, 0.8)
    )
    assert (near - start).norm() < 0.05 * (far - start).norm()


def test_a_checkpoint_keeps_its_attributes(attributed_model, tmp_path):
    attributed_model.save(tmp_path / "model")
    again = Checkpoint.load(tmp_path / "model")
    request = {"age": 0.5, "glasses": "none"}
    assert again.conditioning.attributes == attributed_model.conditioning.attributes
    for config in (FAST, dataclasses.replace(FAST, guidance_by="classifier")):
        found, expected = (sample(one, 2, config=config, attributes=request) for one in (again, attributed_model))
        torch.testing.assert_close(found, expected)


def test_a_model_that_training_did_not_improve_says_what_it_is(attributed_model):
    record = dataclasses.replace(attributed_model.training, val_loss=0.8, best_step=0)
    assert "Gaussian about the mean that the attributes of a head give" in record.summary()


def test_a_state_that_starts_otherwise_is_refused(attributed_store, table, tmp_path):
    path = tmp_path / "model"
    train_until_killed(attributed_store, path, TINY, ONE_THREAD, attributes=table)
    saved = tmp_path / "model.state"
    with open_tensor_file(saved, remedy="") as file:
        tensors, metadata = dict(file.tensors()), dict(file.metadata)
    name = next(name for name in tensors if name.endswith("marginal.means"))
    write_tensor_file(saved, tensors | {name: tensors[name][:0]}, metadata)
    with pytest.raises(BadInput, match="model.state: of a training that starts otherwise"):
        train(attributed_store, path, config=TINY, attributes=table, machine=ONE_THREAD)


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_training_writes_a_card_and_resumes_and_refuses_other_attributes(
    attributed_store, table, tmp_path, monkeypatch
):
    monkeypatch.setattr("hyperdiffusion.diffusion.attribute_classifier.STEPS", 20)
    undisturbed = train(
        attributed_store, tmp_path / "one.safetensors", config=TINY, attributes=table, machine=ONE_THREAD
    )
    assert "| glasses | category | one of none, thick, thin |" in (tmp_path / "one.md").read_text()
    # The card comes first: a finished checkpoint would not be trained again to write it.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", interrupt)
        train(attributed_store, tmp_path / "cut.safetensors", config=TINY, attributes=table, machine=ONE_THREAD)
    assert (tmp_path / "cut.md").exists()
    train_until_killed(attributed_store, tmp_path / "two", TINY, ONE_THREAD, attributes=table)
    resumed = train(attributed_store, tmp_path / "two", config=TINY, attributes=table, machine=ONE_THREAD)
    assert torch.equal(sample(resumed, 1, config=FAST), sample(undisturbed, 1, config=FAST))
    with pytest.raises(BadInput, match="one.safetensors: was trained with attributes"):
        train(attributed_store, tmp_path / "one.safetensors", config=TINY, machine=ONE_THREAD)
    fewer = read_attributes(attributed_store.parent / "heads.csv", attributed_store, columns=["age"])
    with pytest.raises(BadInput, match="was trained with other attributes"):
        train(attributed_store, tmp_path / "one.safetensors", config=TINY, attributes=fewer, machine=ONE_THREAD)


def test_attributes_of_another_store_and_of_plain_weights_are_refused(small_store, attributed_store, table, tmp_path):
    with pytest.raises(BadInput, match="of 400 heads, and the store has 8"):
        train(small_store, tmp_path / "model", config=TINY, attributes=table, machine=ONE_THREAD)
    raw = dataclasses.replace(TINY, coordinates="raw")
    with pytest.raises(BadInput, match="`coordinates=raw`: has no attributes"):
        train(attributed_store, tmp_path / "model", config=raw, attributes=table, machine=ONE_THREAD)


def test_attributes_that_are_known_of_no_training_head_are_refused(attributed_store, tmp_path):
    _, validation = train_val_split(400, TINY)
    lines = [f"{head:03d},{number}" for number, head in enumerate(validation)]
    (tmp_path / "heads.csv").write_text("\n".join(["file,size", *lines]))
    table = read_attributes(tmp_path / "heads.csv", attributed_store)
    with pytest.raises(BadInput, match="`attributes`: size is known of no training head; know more heads"):
        train(attributed_store, tmp_path / "model", config=TINY, attributes=table, machine=ONE_THREAD)


def test_checkpoints_with_the_name_of_their_card_are_refused(attributed_store, table, tmp_path):
    with pytest.raises(BadInput, match=r"model.md: a name for what is written beside .*such as .*model.safetensors"):
        train(attributed_store, tmp_path / "model.md", config=TINY, attributes=table, machine=ONE_THREAD)


def test_more_steps_than_timesteps_are_refused(attributed_model):
    with pytest.raises(BadInput, match="`steps=100`: give 1 to 99"):
        edit_head(attributed_model, "0", {"age": 0.5}, steps=100)
    with pytest.raises(BadInput, match="`steps=100`: give 1 to 99"):
        expression_plane(attributed_model, config=SamplingConfig("dpm", 100))


def test_a_plane_needs_numbers_of_valence_and_arousal(attributed_model):
    conditioning = attributed_model.require_conditioning()
    age, valence, _, glasses = conditioning.attributes.columns
    for columns, words in [
        ((age, glasses), "`valence`: the model has no such attribute, nor the expression smile; train one with"),
        ((valence, dataclasses.replace(glasses, name="arousal")), "arousal: has levels in this model, not numbers"),
    ]:
        others = dataclasses.replace(conditioning, attributes=Attributes(columns))
        with pytest.raises(BadInput, match=words):
            expression_plane(dataclasses.replace(attributed_model, conditioning=others))


def test_what_a_sample_was_given_is_refused_for_a_fit(attributed_model, attributed_store):
    fits = Store(attributed_store).read()
    with pytest.raises(BadInput, match="`given`: is for samples, and 017 is a scan; leave it out"):
        edit_head(attributed_model, "017", {"age": 0.9}, fits=fits, given={"age": 0.5})


def test_a_model_without_attributes_cannot_be_asked(model):
    for ask in (
        lambda: sample(model, 1, attributes={"age": 0.5}),
        lambda: edit_head(model, "0", {"age": 0.5}),
        lambda: expression_plane(model),
    ):
        with pytest.raises(BadInput, match="has no attributes; train one with"):
            ask()


def test_an_edit_knows_the_attributes_of_training_heads(attributed_model, attributed_store, known_heads, coarse_labels):
    fits = Store(attributed_store).read()
    edited = edit_head(attributed_model, "017", {"age": 0.9}, fits=fits, steps=20)
    # The head is found again in the latent space; its code is not exactly that of the projection.
    assert edited.parameters.isfinite().all() and edited.values[1, 0] > edited.values[0, 0]
