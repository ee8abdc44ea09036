"""The command line: arguments in; calls of the public API, and what people want to read, out."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import docstring_parser
import torch
import tyro
from tqdm import tqdm

import hyperdiffusion as stage2
import overfit as stage1
from overfit import BadInput, DecodeConfig, Machine, MeshFormat, Skipped

Folder = Annotated[Path, tyro.conf.Positional]
Head = Annotated[str, tyro.conf.Positional]
# What stands for the model that comes with the package where a checkpoint is expected.
INCLUDED = "included"
Prior = Annotated[str | None, tyro.conf.arg(metavar="[CHECKPOINT]")]
# A flag that may be given several times.
Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
# Grid for evaluation: finer ones change no metric.
EVALUATION = DecodeConfig(resolution=128, keep_all_components=True)
DESCRIPTION = "Learns a generator of 3D heads from a folder of scans."
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRONG_KIND = {
    errno.ENOTDIR: "a file where a folder is expected; give another path",
    errno.EEXIST: "a file where a folder is expected; give another path",
    errno.EISDIR: "a folder where a file is expected; give another path",
}


def heads(
    out: Folder,
    count: int = 64,
    seed: int = 0,
    expressions: int = 2,
    plain: bool = False,
    without: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    format: MeshFormat = "ply",
    machine: Machine = Machine(),
) -> None:
    """Write random heads as scanners see them, from a parametric head model: closed meshes, the default data.

    People of all ages with hair, beards, glasses, headwear and expressions, and with traces of the scanner.
    OUT/heads.csv lists the factors and the parameters of each head. Millimetres, +y up, +z out of the face. Needs the
    extra `demo`.

    Args:
        out: Folder for the meshes.
        count: Number of heads.
        seed: Random seed; head k of a seed is the same whatever the count.
        expressions: Maximum number of expressions that a head shows at once; of plain heads, faint facial actions.
        plain: Write bald heads with faint expressions and nothing else.
        without: A combination of factors or levels that no head has, such as `cap+beard`; can be repeated.
        format: File format of the meshes.
        machine: Compute resources.
    """
    stage2.write_heads(
        out,
        count,
        seed=seed,
        mesh_format=format,
        expressions=expressions,
        plain=plain,
        without=without,
        machine=machine,
    )


def prepare(
    scans: Folder,
    out: Folder,
    preparation: stage1.PreparationConfig = stage1.PreparationConfig(),
    machine: Machine = Machine(),
) -> None:
    """Turn raw scans into closed heads in the canonical frame: millimetres, +y up, +z out of the face.

    Reads meshes (PLY, OBJ, STL, OFF, GLB, glTF), point clouds (PLY, XYZ, ASC, TXT, CSV, PTS, PCD, LAS, LAZ, E57) and
    folders of depth frames, in any pose and unit. Removes noise, collars and shoulders and closes holes. Scans that
    show no head are skipped. OUT/prepared.csv reports on each scan, OUT/prepared.html shows each beside its head. Run
    the same command again to resume.

    Args:
        scans: Folder of raw scans.
        out: Folder for the heads; `hyperdiffusion overfit --prepared` reads it.
        preparation: How scans are prepared.
        machine: Compute resources.
    """
    _prepare(scans, out, preparation, machine)


def _prepare(scans: Path, out: Path, preparation: stage1.PreparationConfig, machine: Machine) -> stage1.PrepareResult:
    result = stage1.prepare(scans, out, config=preparation, machine=machine, draw=stage2.draw_preparation)
    stage2.write_preparation_sheets(result.reports, out)
    page = stage2.write_preparation_page(result.reports, out)
    kept = len(result.kept)
    counts = f"{len(result.heads) - kept} prepared, {kept} kept from before, {len(result.skipped)} skipped"
    print(f"{counts}; look at {page} in a browser, or at {out / 'prepared.png'}")
    for name in result.removed:
        print(f"removed {name}: it is no longer in {scans}")
    for report in result.reports.values():
        if report.is_doubtful and not report.skipped:
            print(f"doubtful: {report.name}: {report.in_words()}")
    _print_skipped(result.skipped)
    if not result.heads:
        raise BadInput(f"{scans}: no scan could be prepared; the first: {result.skipped[0].reason}")
    return result


def overfit(
    scans: Folder,
    store: Folder,
    config: stage1.OverfitConfig = stage1.OverfitConfig(),
    machine: Machine = Machine(),
    preset: stage1.Preset = "default",
    prepared: bool = False,
    keep_scale: bool = False,
    template: Path | None = None,
    complete: bool = True,
    prior: Prior = None,
    batch_size: int = 0,
    ray: str | None = None,
) -> None:
    """Overfit a small occupancy network to every scan in a folder (stage 1).

    Raw scans are prepared first, into STORE/prepared, as `hyperdiffusion prepare` does. Scans that cannot be fitted are
    skipped, with the reason in STORE/scans.csv. Run the same command again to resume, or to add new scans.

    Args:
        scans: Folder of scans.
        store: Folder for the fitted networks.
        config: How networks are fitted. A store keeps the settings that it was made with.
        machine: Compute resources.
        preset: Settings to start from: our default, or those of the paper for comparison.
        prepared: Fit the meshes as they are: closed heads in the canonical frame (+y up, +z out of the face).
        keep_scale: Never change the size of a scan when preparing: trust its unit.
        template: Mesh of a head in the canonical frame on which scans are registered when preparing; by default the
            mean of the plain synthetic heads.
        complete: Complete raw scans that show less than 60 % of a head, at random, into STORE/completed, by the prior
            or the included model. What they do not show is invented.
        prior: Start from the heads of a model: of a checkpoint, or, without a value, of the one that comes with the
            package. Fits take half the steps and lie in the model's space, so that `hyperdiffusion train --prior` can
            learn from few scans.
        batch_size: Scans that are fitted and mixed with each other in one computation, and lost by a kill at most; 0
            chooses for the device.
        ray: Address of a Ray cluster on which the batches are fitted, or auto for the one that this computer belongs
            to; with `--device cuda` on its GPUs. Needs the extra `cluster`.
    """
    del preset  # main() has made it the default of `config`.
    source: Path | list[stage1.Scan] = scans
    start = None if prior is None else stage2.HeadPrior.of(_load_prior(prior), "`prior`")
    skipped: list[Skipped] = []
    if not prepared:
        preparation = stage1.PreparationConfig(config.unit, keep_scale, template)
        # The heads are in millimetres, whatever the scans are in.
        config = replace(config, unit="auto")
        found = _prepare(scans, stage1.prepared_folder(store, config, start), preparation, machine)
        whole = _completed(found, scans, store, preparation, machine, model=(prior or INCLUDED) if complete else None)
        source, skipped = whole.heads, whole.skipped
    result = stage1.overfit(source, store, config=config, prior=start, machine=machine, batch_size=batch_size, ray=ray)
    errors = sorted(record.error_mm for record in result.records)
    skipped += result.skipped
    print(f"{len(result.fitted)} fitted, {len(result.kept)} kept from before, {len(skipped)} skipped")
    for name in result.removed:
        print(f"removed the fit of {name}: its scan is gone")
    if errors:
        print(f"surface error: mean {sum(errors) / len(errors):.3f} mm, worst {errors[-1]:.3f} mm")
    _print_skipped(skipped)
    if not errors:
        raise BadInput(f"{store}: no scan could be fitted; see the reasons above")


def _completed(
    found: stage1.PrepareResult,
    scans: Path,
    store: Path,
    preparation: stage1.PreparationConfig,
    machine: Machine,
    *,
    model: str | None,
) -> stage2.CompletedHeads:
    """The prepared heads, those that their scans show little of completed by a model, if one is given."""
    out, partial = stage1.completed_folder(store), stage2.partial_heads(found) if model else []
    # What an earlier run completed of other scans goes.
    if not partial and not out.exists():
        return stage2.CompletedHeads(found.heads, [], [])
    if partial:
        print(
            f"{len(partial)} of the scans show less than {stage2.WHOLE_SHARE:.0%} of a head, and the rest is invented: "
            f"look at {out / 'completed.png'}; --no-complete takes them as they are"
        )
    whole = stage2.complete_partial(
        scans, found, out, _load_prior(model or INCLUDED), partial=partial, preparation=preparation, machine=machine
    )
    if not whole.heads:
        raise BadInput(f"{scans}: no scan could be completed; the first: {whole.skipped[0].reason}")
    return whole


def _print_skipped(skipped: Sequence[Skipped]) -> None:
    for scan in skipped:
        print(f"skipped: {scan.reason}")


def decode(
    store: Folder,
    out: Folder,
    decoding: DecodeConfig = DecodeConfig(),
    format: MeshFormat = "ply",
    machine: Machine = Machine(),
) -> None:
    """Decode the fitted networks of a store back to meshes, one a scan, under the scans' names.

    OUT/decoded.csv lists them. Meshes of scans that are gone from the store are removed.

    Args:
        store: Store made by `hyperdiffusion overfit`.
        out: Folder for the meshes, in millimetres.
        decoding: How networks become meshes.
        format: File format of the meshes.
        machine: Compute resources.
    """
    result = stage1.decode_store(store, out, config=decoding, mesh_format=format, machine=machine)
    for name in result.removed:
        print(f"removed the mesh of {name}: it is no longer in {store}")
    _print_failures([head for head in result.heads if head.mesh is None])
    if all(head.mesh is None for head in result.heads):
        raise BadInput(f"{out}: no fit has a surface; see the reasons above")


def train(
    store: Folder,
    checkpoint: Folder,
    training: stage2.TrainingConfig = stage2.TrainingConfig(),
    attributes: Path | None = None,
    columns: Repeated = (),
    prior: Prior = None,
    wandb: stage2.Wandb = "disabled",
    machine: Machine = Machine(),
    preset: stage1.Preset = "default",
    shard: bool = False,
    compile: bool = False,
) -> None:
    """Train a diffusion model of the fitted networks' weights (stage 2).

    Run the same command again to resume; a model of heads that have been removed from the store since is trained anew.
    Several processes train one model under torchrun:
    `torchrun --nproc-per-node 8 -m hyperdiffusion train STORE CHECKPOINT`.

    Args:
        store: Store made by `hyperdiffusion overfit`.
        checkpoint: File for the trained model; it has all that sampling needs.
        training: How the model is trained.
        attributes: CSV file of what is known of the scans, such as age or glasses, in numeric and categorical columns;
            its first column, or the one named file, names the scan. `hyperdiffusion sample --set` asks for values.
        columns: Columns of that file to use, separated by commas; may be repeated. By default all, if they are few.
        prior: Start from the model that the fits started from (`hyperdiffusion overfit --prior`): a checkpoint, or,
            without a value, from the one that comes with the package. For few scans.
        wandb: Log to Weights & Biases; offline writes to ./wandb and needs no account.
        machine: Compute resources.
        preset: Settings to start from: our default, or those of the paper for comparison.
        shard: Under torchrun, shard the model too (FSDP), for one that does not fit on a GPU.
        compile: Compile the denoiser (torch.compile), which takes a minute before the first step.
    """
    del preset  # main() has made it the default of `training`.
    withdrawn = stage2.withdrawn_heads(store, checkpoint)
    if withdrawn and stage2.is_main_process():
        print(f"{checkpoint}: {withdrawn} of its training heads removed from {store}; training it anew")
    if columns and attributes is None:
        raise BadInput("`columns`: of which file? give `attributes` too")
    table = None if attributes is None else _read_attributes(attributes, store, columns)
    model = stage2.train(
        store,
        checkpoint,
        config=training,
        attributes=table,
        prior=None if prior is None else _load_prior(prior),
        machine=machine,
        wandb=wandb,
        shard=shard,
        compile=compile,
    )
    if stage2.is_main_process():
        print(model.training.summary())
        _print_attributes(model)


def _read_attributes(path: Path, store: Path, columns: Sequence[str]) -> stage2.AttributeTable:
    names = [name.strip() for group in columns for name in group.split(",") if name.strip()]
    if columns and not names:
        raise BadInput("`columns`: names no column; name some, separated by commas, or leave it out")
    table = stage2.read_attributes(path, store, columns=names)
    for remark in table.remarks if stage2.is_main_process() else ():
        print(remark)
    return table


def _print_attributes(model: stage2.Checkpoint) -> None:
    if model.conditioning is not None:
        print("Attributes:")
        for line in model.conditioning.attributes.describe():
            print(f"  {line}")


def sample(
    out: Folder,
    checkpoint: Path | None = None,
    count: int = 16,
    seed: int = 0,
    sampling: stage2.SamplingConfig = stage2.SamplingConfig(),
    set: Repeated = (),
    valence: float | None = None,
    arousal: float | None = None,
    decoding: DecodeConfig = DecodeConfig(),
    format: MeshFormat = "ply",
    repair: bool = True,
    machine: Machine = Machine(),
) -> None:
    """Generate new heads: meshes in millimetres, and a picture of the first 16, heads.png.

    A model that was trained with attributes can be asked for some: `--set age=0.8 --set glasses=thin`. All others are
    those of a random training head.

    Args:
        out: Folder for the meshes.
        checkpoint: Model trained by `hyperdiffusion train`; by default the one that comes with the package.
        count: Number of heads.
        seed: Random seed; head k of a seed is the same whatever the count.
        sampling: How heads are sampled.
        set: An attribute and its value, as name=value; may be repeated.
        valence: How pleasant the expression is; the same as --set valence=...
        arousal: How intense the expression is; the same as --set arousal=...
        decoding: How networks become meshes.
        format: File format of the meshes.
        repair: Fit networks of several connected components on until they have one, about a second a head.
        machine: Compute resources.
    """
    context = machine.start()
    model = _load(checkpoint, context)
    request = _request(set)
    if request or valence is not None or arousal is not None:
        request = _with_affect(request, _require_attributes(model, checkpoint), valence, arousal)
    elif _guides(sampling):
        _require_attributes(model, checkpoint)
    written = stage2.write_samples(
        model,
        out,
        count=count,
        seed=seed,
        sampling=sampling,
        decoding=decoding,
        mesh_format=format,
        repair=repair,
        attributes=request,
        context=context,
    )
    _print_failures(written.failures)


def plane(
    out: Folder,
    checkpoint: Path | None = None,
    seed: int = 0,
    size: int = 5,
    sampling: stage2.SamplingConfig = stage2.PLANE_SAMPLING,
    decoding: DecodeConfig = DecodeConfig(),
    format: MeshFormat = "ply",
    machine: Machine = Machine(),
) -> None:
    """Show one person's expressions over valence and arousal: meshes, and a picture of them, plane.png.

    All heads come from the same noise; their other attributes are those of one training head. Needs a model that was
    trained with the attributes valence and arousal.

    Args:
        out: Folder for the meshes.
        checkpoint: Model trained by `hyperdiffusion train`; by default the one that comes with the package.
        seed: Random seed; another seed is another person.
        size: Heads along each axis, from the smallest to the largest value of the training heads.
        sampling: How heads are sampled.
        decoding: How networks become meshes.
        format: File format of the meshes.
        machine: Compute resources.
    """
    context = machine.start()
    model = _load(checkpoint, context)
    _require_attributes(model, checkpoint)
    heads = stage2.expression_plane(model, size=size, seed=seed, config=sampling)
    written = stage2.write_plane(model, heads, out, decoding=decoding, mesh_format=format, context=context)
    _print_failures(written.failures)


def edit(
    out: Folder,
    head: Head,
    checkpoint: Path | None = None,
    store: Path | None = None,
    set: Repeated = (),
    valence: float | None = None,
    arousal: float | None = None,
    given: Repeated = (),
    seed: int = 0,
    steps: int = stage2.EDIT_STEPS,
    decoding: DecodeConfig = DecodeConfig(),
    format: MeshFormat = "ply",
    machine: Machine = Machine(),
) -> None:
    """Change attributes of a head and leave the rest: meshes before and after, and a picture of them, edit.png.

    The head is given by the number that `hyperdiffusion sample` gives it, or by the name of its scan in a store. Needs
    a model that was trained with attributes. The attributes are measured before and after on the latent code.

    Args:
        out: Folder for the meshes.
        head: Number or name of the head.
        checkpoint: Model trained by `hyperdiffusion train`; by default the one that comes with the package.
        store: Store of fitted heads in which the name is looked up.
        set: An attribute and its new value, as name=value; may be repeated.
        valence: How pleasant the expression is; the same as --set valence=...
        arousal: How intense the expression is; the same as --set arousal=...
        given: What `hyperdiffusion sample --set` was given when it drew the head, as name=value; may be repeated.
        seed: Random seed of a head given by number.
        steps: Steps of the probability flow from the head to its noise, and of the flow back.
        decoding: How networks become meshes.
        format: File format of the meshes.
        machine: Compute resources.
    """
    context = machine.start()
    model = _load(checkpoint, context)
    attributes = _require_attributes(model, checkpoint)
    request = _with_affect(_request(set), attributes, valence, arousal)
    fits = None if store is None else stage1.Store(store).read()
    edited = stage2.edit_head(
        model, head, request, fits=fits, seed=seed, given=_request(given, "given"), steps=steps, context=context
    )
    written = stage2.write_between(
        model, edited.parameters, out, name="edit", decoding=decoding, mesh_format=format, context=context
    )
    for line in edited.describe(request):
        print(line)
    _print_failures(written.failures)


def complete(
    scans: Folder,
    out: Folder,
    checkpoint: Path | None = None,
    completion: stage2.CompletionConfig = stage2.CompletionConfig(),
    preparation: stage1.PreparationConfig = stage1.PreparationConfig(),
    decoding: DecodeConfig = DecodeConfig(),
    machine: Machine = Machine(),
) -> None:
    """Complete partial scans: whole heads that keep what a scan shows and take the rest from a model.

    Reads what `hyperdiffusion prepare` reads. Each scan gives the most likely head, NAME.ply, and random ones,
    NAME_draw_0.ply and so on, which differ where nothing is seen. Completed parts are inventions: their vertices have
    `seen` = 0 and are blue. OUT/completed.csv and OUT/completed.png list and show them. Run the same command again to
    resume.

    Args:
        scans: Folder of raw scans.
        out: Folder for the heads.
        checkpoint: Model that unseen parts are taken from; by default the one that comes with the package.
        completion: How scans are completed.
        preparation: How scans are brought to the canonical frame.
        decoding: How networks become meshes.
        machine: Compute resources.
    """
    model = _load(checkpoint, machine.start())
    result = stage2.complete_folder(
        scans, out, model, config=completion, preparation=preparation, decoding=decoding, machine=machine
    )
    completed = len(result.reports) - len(result.skipped)
    counts = f"{completed - result.kept} completed, {result.kept} kept from before, {len(result.skipped)} skipped"
    print(f"{counts}; look at {out / 'completed.png'}")
    for name in result.removed:
        print(f"removed {name}: it is no longer in {scans}")
    _print_skipped(result.skipped)
    if not completed:
        raise BadInput(f"{scans}: no scan could be completed; the first: {result.skipped[0].reason}")


def interpolate(
    out: Folder,
    first: Head,
    second: Head,
    checkpoint: Path | None = None,
    store: Path | None = None,
    frames: int = 9,
    space: Literal["weights", "noise"] = "weights",
    seed: int = 0,
    decoding: DecodeConfig = DecodeConfig(),
    format: MeshFormat = "ply",
    machine: Machine = Machine(),
) -> None:
    """Interpolate between two heads: meshes, and a picture of them, frame.png.

    A head is given by the number that `hyperdiffusion sample` gives it, or by the name of its scan in a store.

    Args:
        out: Folder for the meshes.
        first: Number or name of the first head.
        second: Number or name of the last head.
        checkpoint: Model trained by `hyperdiffusion train`; by default the one that comes with the package.
        store: Store of fitted heads in which names are looked up.
        frames: Number of heads, including both ends.
        space: Interpolate the weights linearly, or the noise that the model generates the heads from on a great circle.
        seed: Random seed of heads given by number.
        decoding: How networks become meshes.
        format: File format of the meshes.
        machine: Compute resources.
    """
    context = machine.start()
    model = _load(checkpoint, context)
    ends = _find_heads(first, second, model, store, seed)
    heads = stage2.interpolate_heads(model, **ends, frames=frames, space=space, context=context)
    written = stage2.write_between(
        model, heads, out, name="frame", decoding=decoding, mesh_format=format, context=context
    )
    _print_failures(written.failures)


def mix(
    out: Folder,
    first: Head,
    second: Head,
    checkpoint: Path | None = None,
    store: Path | None = None,
    seed: int = 0,
    decoding: DecodeConfig = DecodeConfig(),
    format: MeshFormat = "ply",
    machine: Machine = Machine(),
) -> None:
    """Combine the layers of two heads' networks: meshes, and a picture of them, layers.png.

    A head is given by the number that `hyperdiffusion sample` gives it, or by the name of its scan in a store. Mesh k
    has the first k layers of the second head and the other layers of the first.

    Args:
        out: Folder for the meshes.
        first: Number or name of the head that gives the last layers.
        second: Number or name of the head that gives the first layers.
        checkpoint: Model trained by `hyperdiffusion train`; by default the one that comes with the package.
        store: Store of fitted heads in which names are looked up.
        seed: Random seed of heads given by number.
        decoding: How networks become meshes.
        format: File format of the meshes.
        machine: Compute resources.
    """
    context = machine.start()
    model = _load(checkpoint, context)
    ends = _find_heads(first, second, model, store, seed)
    heads = stage2.mix_layers(**ends, sizes=model.space.token_sizes)
    written = stage2.write_between(
        model, heads, out, name="layers", decoding=decoding, mesh_format=format, context=context
    )
    _print_failures(written.failures)


def evaluate(
    generated: Folder,
    out: Folder,
    reference: Path,
    train: Path | None = None,
    count: int = 0,
    seed: int = 0,
    evaluation: stage2.EvaluationConfig = stage2.EvaluationConfig(),
    decoding: DecodeConfig = EVALUATION,
    repair: bool = True,
    machine: Machine = Machine(),
) -> None:
    """Compare generated heads with test heads and training heads: report.html, report.md, report.json.

    Quality without novelty is copying: give the training heads too. All meshes are read as they are, in the canonical
    frame; their unit is found from their size.

    Args:
        generated: Folder of meshes, or a checkpoint to sample.
        out: Folder for the report.
        reference: Folder of test heads: real heads that no model was trained on.
        train: Folder of the training heads.
        count: Number of heads to sample, or to take from the folder; 0 takes as many as there are test heads.
        seed: Random seed of the samples.
        evaluation: How thoroughly heads are compared.
        decoding: How sampled networks become meshes.
        repair: Repair samples of several connected components first, as `hyperdiffusion sample` does.
        machine: Compute resources.
    """
    report = stage2.evaluate(
        generated,
        out,
        reference=reference,
        train=train,
        count=count,
        seed=seed,
        config=evaluation,
        decoding=decoding,
        repair=repair,
        machine=machine,
    )
    print(report.table())
    if report.compared_share < 1:
        print(f"\nParts of the test heads are invented: only {report.compared_share:.0%} of a head is compared.")
    print(f"\nThe report is {out / 'report.html'}.")


def demo(out: Folder, machine: Machine = Machine()) -> None:
    """Run everything once, small: synthetic heads, stage 1, stage 2, new heads, a picture and a table of metrics.

    Takes about 15 minutes on two CPU cores. Run the same command again to resume.

    Args:
        out: Folder for all results.
        machine: Compute resources.
    """
    print(stage2.run_demo(out, machine=machine))
    print(f"\nThe new heads are in {out / 'heads'}, the picture is {out / 'heads.png'}.")


def _load(checkpoint: Path | None, context: stage1.RunContext) -> stage2.Checkpoint:
    if checkpoint is None:
        return stage2.Checkpoint.shipped(context.device)
    return stage2.Checkpoint.load(checkpoint, context.device)


def _load_prior(prior: str) -> stage2.Checkpoint:
    return _load(None if prior == INCLUDED else Path(prior), stage1.RunContext())


def _request(words: Sequence[str], flag: str = "set") -> dict[str, float | str]:
    """The attributes of `name=value` words."""
    request: dict[str, float | str] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not (name and equals and value):
            raise BadInput(f"`{flag}`: {word} is no attribute with a value; give name=value, such as age=0.8")
        if name in request:
            raise BadInput(f"`{flag}`: {name} is given twice; give one value")
        request[name] = value
    return request


def _with_affect(
    request: dict[str, float | str], attributes: stage2.Attributes, valence: float | None, arousal: float | None
) -> dict[str, float | str]:
    """The request with the expression of this valence and arousal."""
    expression = stage2.affect_request(attributes, valence=valence, arousal=arousal)
    if twice := [name for name in expression if name in request]:
        raise BadInput(f"`set`: {twice[0]} is given by valence and arousal too; give one of them")
    return {**request, **expression}


def _require_attributes(model: stage2.Checkpoint, checkpoint: Path | None) -> stage2.Attributes:
    name = "the included model" if checkpoint is None else str(checkpoint)
    return model.require_conditioning(name).attributes


def _guides(sampling: stage2.SamplingConfig) -> bool:
    """Whether guidance is asked for."""
    default = stage2.SamplingConfig()
    return (sampling.guidance, sampling.guidance_by) != (default.guidance, default.guidance_by)


def _find_heads(
    first: str, second: str, model: stage2.Checkpoint, store: Path | None, seed: int
) -> dict[str, torch.Tensor]:
    """The weights of two heads, each given by its number or its name in a store."""
    fits = None if store is None else stage1.Store(store).read()
    heads = {"first": first, "second": second}
    return {end: stage2.find_head(head, model, fits=fits, seed=seed) for end, head in heads.items()}


def _print_failures(failures: Sequence[stage1.DecodedHead]) -> None:
    for head in failures:
        print(f"{head.name}: {head.failure}", file=sys.stderr)


COMMANDS = (heads, prepare, overfit, decode, train, sample, complete, plane, edit, interpolate, mix, evaluate, demo)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Bad input and system errors end in one line and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments == ["--version"]:
            print(version("hyperdiffusion-heads"))
        elif arguments in (["-h"], ["--help"]):
            print(_overview())
        else:
            _run(arguments)
        sys.stdout.flush()
    except BadInput as error:
        _end(_with_flags(str(error)))
    except KeyboardInterrupt:
        _end("stopped; run the same command again to resume", 130)
    except BrokenPipeError:
        _leave_closed_pipe()
    except OSError as error:
        _end(_explain(error))


def _overview() -> str:
    """All commands, each with the first sentence of its help."""
    lines = ["usage: hyperdiffusion [-h] [--version] COMMAND ...", "", DESCRIPTION, "", "commands:"]
    for command in COMMANDS:
        lines.append(f"  {command.__name__:<12} {(command.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "`hyperdiffusion COMMAND --help` explains a command and its flags."])


def _run(arguments: list[str]) -> None:
    commands = {function.__name__: function for function in COMMANDS}
    preset = _preset(arguments)
    if preset in stage2.PRESETS:
        commands["overfit"] = partial(overfit, config=stage1.PRESETS[preset], preset=preset)
        commands["train"] = partial(train, training=stage2.PRESETS[preset], preset=preset)
    try:
        with _unwrapped_docstrings():
            tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="hyperdiffusion",
                description=DESCRIPTION,
                args=_with_included_prior(arguments),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.PositionalMetavarFromFieldName),
            )
    except SystemExit:
        # --help was printed; what is left in the buffer must go out here, where a closed pipe is no error.
        sys.stdout.flush()
        raise


@contextmanager
def _unwrapped_docstrings() -> Iterator[None]:
    """Give tyro the docstring of each argument as one line: it keeps most line breaks in the help."""
    parsers = {name: getattr(docstring_parser, name) for name in ("parse", "parse_from_object")}
    for name, parse in parsers.items():
        setattr(docstring_parser, name, partial(_parse_unwrapped, parse))
    try:
        yield
    finally:
        for name, parse in parsers.items():
            setattr(docstring_parser, name, parse)


def _parse_unwrapped(parse: Callable[[Any], docstring_parser.Docstring], source: Any) -> docstring_parser.Docstring:
    docstring = parse(source)
    for argument in docstring.params:
        argument.description = " ".join((argument.description or "").split())
    return docstring


def _preset(arguments: list[str]) -> str | None:
    """The preset that the command line names: it sets the defaults of all other flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    return parser.parse_known_args(arguments)[0].preset


def _with_included_prior(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the included model for a `--prior` that has no value: tyro knows no optional values."""
    following = [*arguments[1:], "--"]
    return [
        word
        for argument, next_one in zip(arguments, following)
        for word in ([argument, INCLUDED] if argument == "--prior" and next_one.startswith("-") else [argument])
    ]


def _with_flags(message: str) -> str:
    """A message of the library with its arguments, `name` or `name=value`, as flags."""
    return re.sub(
        r"`(\w+)(?:=([^`\s]*))?`",
        lambda match: "--" + match[1].replace("_", "-") + ("" if match[2] is None else f" {match[2]}"),
        message,
    )


def _explain(error: OSError) -> str:
    """One line on a system error: the file, what is wrong and what to do."""
    reason = error.strerror or str(error)
    if error.errno in WRONG_KIND:
        return f"{error.filename}: {WRONG_KIND[error.errno]}"
    remedy = "free some disk space" if error.errno in DISK_FULL else "check the path and its permissions"
    return f"{error.filename or 'file system'}: {reason}; {remedy}, then run the same command again"


def _leave_closed_pipe() -> NoReturn:
    """End quietly after the reader of a pipe has, as in `hyperdiffusion --help | head`."""
    # Python flushes once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _end(message: str, code: int = 2) -> NoReturn:
    tqdm.write(f"hyperdiffusion: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
