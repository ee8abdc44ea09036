"""Stage 1 from end to end: a folder of prepared scans in, a store of fitted networks out.

Each scan's file is read once: the survey keeps the meshes in memory for the fits as long as there is room for them.
The same call resumes after an interruption, and adds new scans to a store.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from overfit.canonical.align import ScanAlignment, align, control_points
from overfit.fit_batch import (
    AlignedScan,
    BatchResult,
    BatchSetup,
    OverfitConfig,
    fit_first,
    fit_scan_batch,
    label_scan,
    shared_space,
)
from overfit.geometry.bounding_cube import Cube
from overfit.labels import LabelBatch
from overfit.prior import FitPrior
from overfit.runtime.errors import BadInput, Skipped, require_at_least
from overfit.runtime.machine import Machine, RunContext
from overfit.runtime.ray_workers import check_ray, run_tasks_on_ray
from overfit.runtime.settings import flatten_settings
from overfit.runtime.workers import OnProgress, run_tasks
from overfit.scans.formats import Scan, find_scans, read_digest, read_prepared
from overfit.store import FitRecord, Store, require_store_folder

# A scan this many times larger or smaller than the median scan is in another unit, or no head.
MAX_SIZE_RATIO = 2.0
# The folders inside a store for the heads that were prepared for it, and for those that were completed.
PREPARED_FOLDER, COMPLETED_FOLDER = "prepared", "completed"
# Scans fitted in one computation: on CPU their activations stay in the cache.
BATCH_SIZE = {"cpu": 8, "cuda": 32}
# Starting a worker takes as long as reading or aligning this many scans.
MIN_SCANS_PER_WORKER = {"none": 64, "similarity": 4, "warp": 4}
# Meshes that the survey keeps in memory, in bytes; the files of others are read again by the worker that fits them.
MAX_MESH_BYTES = 1 << 30
# tqdm's own bar with the count rounded: heads advance in fractions, step by step.
BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

# Runs a function on tasks: (function, tasks, on_progress=...) -> (index, result) as they finish.
RunTasks = Callable[..., Iterator[tuple[int, Any]]]


@dataclass(frozen=True)
class OverfitResult:
    """What a run did."""

    fitted: list[str]
    """Names of the scans that were fitted now."""
    kept: list[str]
    """Names of the scans that the store held already."""
    skipped: list[Skipped]
    """Scans without a fit, by name."""
    removed: list[str]
    """Names of the scans that are gone from their folder, and whose fits were removed."""
    records: list[FitRecord]
    """Records of all fits in the store."""


@dataclass(frozen=True)
class NewScan:
    """A readable scan that the store does not hold yet."""

    scan: Scan
    """The scan, its mesh in memory if there was room for it."""
    size: float
    """The mesh's largest extent in millimetres."""
    alignment: ScanAlignment
    """Its place in canonical space."""


@dataclass(frozen=True)
class KeptScan:
    """A scan that the store holds already, from a file of the same bytes."""

    name: str
    """The scan's name."""


@dataclass(frozen=True)
class Survey:
    """What the scans of a run are."""

    new: list[NewScan]
    """Scans to fit, in the order in which they were found."""
    kept: list[str]
    """Names of the scans that the store holds already."""
    skipped: list[Skipped]
    """Scans that cannot be read."""


@dataclass(frozen=True)
class Compute:
    """Where a run computes."""

    context: RunContext
    """This process and its workers: the survey and the first fit."""
    batch_device: torch.device
    """The device on which batches are fitted, here or on a cluster."""
    run_tasks: RunTasks
    """Runs the batches."""

    @classmethod
    def start(cls, machine: Machine, ray: str | None) -> "Compute":
        """Start this machine, or raises BadInput if no Ray cluster answers at the address `ray`."""
        if ray is None:
            context = machine.start()
            return cls(context, context.device, partial(run_tasks, context=context))
        check_ray(ray)
        device = torch.device("cuda" if machine.device == "cuda" else "cpu")

        def on_cluster(function: Callable, tasks: Sequence[tuple], *, on_progress: OnProgress) -> Iterator:
            # Steps are not reported across machines; the bar advances by batches.
            return run_tasks_on_ray(function, tasks, address=ray, gpu=device.type == "cuda")

        # The first fit is made here, on whatever this computer has.
        return cls(replace(machine, device="auto").start(), device, on_cluster)


def overfit(
    scans: Path | str | Sequence[Scan],
    store: Path | str,
    *,
    config: OverfitConfig = OverfitConfig(),
    prior: FitPrior | None = None,
    machine: Machine = Machine(),
    batch_size: int = 0,
    ray: str | None = None,
) -> OverfitResult:
    """Fit a network to every scan that the store does not hold yet.

    Fits of scans that are gone from the folder are removed: people withdraw their consent. Every core works on a batch
    of its own, so that some scans are labelled and measured while others are fitted.

    Args:
        scans: A folder of prepared scans, or such scans, as `prepare` returns them.
        store: The store's folder, made if it is missing.
        config: How networks are fitted.
        prior: A model of other heads: the fits lie in its space, and start from those of its heads that are nearest to
            the scans. They take half the steps then.
        machine: The compute resources of this computer.
        batch_size: Scans that are fitted and mixed with each other in one computation, and lost by a kill at most; 0
            chooses for the device.
        ray: Address of a Ray cluster on whose cores the batches are fitted, or on its GPUs if `machine` names cuda. All
            its machines must see the scans at the same path.

    Raises:
        BadInput: There is nothing to fit, the store has other settings, the prior is of other networks, scans and store
            are inside each other, another run uses the store, or no cluster answers.
    """
    require_at_least(0, batch_size=batch_size)
    config = _with_prior(config, prior)
    store = Path(store)
    found = _find(scans, store)
    compute = Compute.start(machine, ray)
    with Store.locked(store):
        existing = _open_for_fits(store, config, prior)
        removed = _remove_withdrawn(existing, found) if existing else []
        survey = _survey(found, existing.records() if existing else {}, config, compute.context)
        new, odd = (survey.new, []) if existing else _split_odd_sizes(survey)
        opened = existing or _create(store, new, config, prior)
        new, too_large = _split_too_large(new, opened.space.cube, prior)
        aligned = [AlignedScan.of(one.scan, one.alignment, space=opened.space) for one in new]
        batches = _batches(found, aligned, batch_size or BATCH_SIZE[compute.batch_device.type])
        if batches and opened.base is None:
            _fit_base(opened, aligned, config, prior, compute.context)
        failed = _fit_batches(opened, batches, config, prior, compute)
        opened.merge()
        skipped = sorted([*survey.skipped, *odd, *too_large, *failed], key=lambda one: one.name)
        opened.report(skipped)
        fitted = {one.scan.name for one in new} - {one.name for one in failed}
        return OverfitResult(sorted(fitted), sorted(survey.kept), skipped, removed, list(opened.records().values()))


def prepared_folder(store: Path | str, config: OverfitConfig, prior: FitPrior | None = None) -> Path:
    """Return the folder of the heads that are prepared for a store.

    Raises BadInput if no fits with these settings can be added to the store: better before its scans are prepared.
    """
    store = Path(store)
    _open_if_any(store, _with_prior(config, prior), prior)
    return store / PREPARED_FOLDER


def completed_folder(store: Path | str) -> Path:
    """Return the folder of the heads that are completed for a store."""
    return Path(store) / COMPLETED_FOLDER


def _with_prior(config: OverfitConfig, prior: FitPrior | None) -> OverfitConfig:
    """The config with a number of steps. Raises BadInput if the prior is of other networks or another alignment."""
    if prior is not None:
        if config.field != prior.space.field:
            raise BadInput("`prior`: is a model of other networks; give the settings of the store that it learned from")
        if control_points(config.alignment) != prior.space.warps.control_points:
            raise BadInput(
                "`prior`: is a model of another canonical space; give the settings of the store that it learned from"
            )
    return config.with_steps(prior=prior is not None)


def _find(scans: Path | str | Sequence[Scan], store: Path) -> list[Scan]:
    """The scans in the order of their paths. Raises BadInput if there is none, or they and the store overlap."""
    if isinstance(scans, (Path, str)):
        _require_apart(Path(scans), store)
        return find_scans(Path(scans))
    if not scans:
        raise BadInput("`scans`: none given; give at least one")
    return sorted(scans, key=lambda scan: PurePosixPath(scan.name))


def _require_apart(scans: Path, store: Path) -> None:
    inner, outer = store.resolve(), scans.resolve()
    if inner == outer or outer in inner.parents:
        raise BadInput(f"{store}: inside the folder of scans; give a store outside of {scans}")
    if inner in outer.parents and outer not in (inner / PREPARED_FOLDER, inner / COMPLETED_FOLDER):
        raise BadInput(f"{scans}: inside the store; give a folder of scans outside of {store}")


def _open_for_fits(folder: Path, config: OverfitConfig, prior: FitPrior | None) -> Store | None:
    """The store in a folder, ready for more fits, or None if the folder is empty."""
    store = _open_if_any(folder, config, prior)
    if store:
        store.upgrade()
        # Shards that a killed run left: this run's shards may get the same names.
        store.merge()
    return store


def _open_if_any(folder: Path, config: OverfitConfig, prior: FitPrior | None) -> Store | None:
    """The store in a folder, or None if there is nothing yet. Raises BadInput if it has other settings."""
    require_store_folder(folder)
    # Hidden files are the lock and what a killed run left unfinished.
    visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    if not visible - {PREPARED_FOLDER, COMPLETED_FOLDER}:
        return None
    if "store.json" not in visible:
        raise BadInput(f"{folder}: not a store, and not empty; give a new or empty folder")
    store = Store(folder)
    if store.prior != ("" if prior is None else prior.digest):
        made = "without a prior" if not store.prior else "with a prior" if prior is None else "with another prior"
        raise BadInput(f"`prior`: {folder} was made {made}; do as then, or fit into a new store")
    _require_same_settings(store, config)
    return store


def _remove_withdrawn(store: Store, found: Sequence[Scan]) -> list[str]:
    """Remove the fits of scans that are gone from the folders of the found ones, and return their names."""
    folders = {store.folder_name(scan.folder): scan.folder for scan in found}
    # Both folders of the store come from the same scans; one of them may have nothing left to find.
    own = {name: store.folder / name for name in (PREPARED_FOLDER, COMPLETED_FOLDER)}
    folders |= own if folders.keys() & own.keys() else {}
    names = {scan.name for scan in found}
    # The folder may hold more scans than were found: heads that were prepared from another folder.
    withdrawn = sorted(
        record.name
        for record in store.records().values()
        if record.folder in folders and record.name not in names and not (folders[record.folder] / record.name).exists()
    )
    if withdrawn:
        store.remove(withdrawn)
    return withdrawn


def _require_same_settings(store: Store, config: OverfitConfig) -> None:
    theirs, ours = flatten_settings(store.settings), flatten_settings(_as_json(config))
    for argument, value in ours.items():
        if theirs.get(argument) != value:
            raise BadInput(
                f"`{argument}={_as_text(value)}`: {store.folder} was made with {_as_text(theirs.get(argument))}; "
                "use its settings, or fit into a new store"
            )
    if store.space.warps.control_points != control_points(config.alignment):
        raise BadInput(f"{store.folder}: was made by an earlier version with another template; fit into a new store")


def _as_json(config: OverfitConfig) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config)))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _survey(found: Sequence[Scan], records: dict[str, FitRecord], config: OverfitConfig, context: RunContext) -> Survey:
    """Read and align every scan once, in workers if there are many."""
    tasks = [(scan, config, records[scan.name].digest if scan.name in records else None) for scan in found]
    results: dict[int, NewScan | KeptScan | Skipped] = {}
    mesh_bytes = 0
    kind = config.alignment.align
    with context.progress(len(tasks), "reading" if kind == "none" else "aligning", "scan") as bar:
        for index, result in run_tasks(_survey_scan, tasks, context, min_tasks_per_worker=MIN_SCANS_PER_WORKER[kind]):
            if isinstance(result, NewScan) and result.scan.prepared is not None and found[index].prepared is None:
                mesh_bytes += result.scan.prepared.nbytes
                if mesh_bytes > MAX_MESH_BYTES:
                    result = replace(result, scan=found[index])
            results[index] = result
            bar.update()
    ordered = [results[index] for index in range(len(tasks))]
    return Survey(
        [result for result in ordered if isinstance(result, NewScan)],
        [result.name for result in ordered if isinstance(result, KeptScan)],
        [result for result in ordered if isinstance(result, Skipped)],
    )


def _survey_scan(scan: Scan, config: OverfitConfig, kept_digest: str | None) -> NewScan | KeptScan | Skipped:
    """Read and align a scan whose digest in the store is `kept_digest`, if it is there."""
    try:
        if kept_digest is not None and read_digest(scan) == kept_digest:
            return KeptScan(scan.name)
        prepared = read_prepared(scan, config.unit)
    except BadInput as error:
        return Skipped(scan.name, str(error))
    except OSError as error:
        return Skipped(scan.name, f"{scan.name}: cannot be read ({error.strerror}); check the file and its permissions")
    size = float(np.ptp(prepared.mesh.bounds, axis=0).max())
    # What is computed about the mesh is cached with it; the scan's own copy stays small.
    alignment = align(prepared.mesh.copy(include_cache=True), config.alignment)
    return NewScan(replace(scan, prepared=prepared), size, alignment)


def _split_odd_sizes(survey: Survey) -> tuple[list[NewScan], list[Skipped]]:
    """The scans for a new store, and those whose size is far from the others'. Raises BadInput if there is no scan."""
    if not survey.new:
        raise BadInput(f"`scans`: none of them can be used; the first: {survey.skipped[0].reason}")
    sizes = {one.scan.name: one.size for one in survey.new}
    median = float(np.median(list(sizes.values())))
    odd = [
        Skipped(
            name, f"{name}: its size of {size:.0f} mm is far from the others' {median:.0f} mm; scale it, or give `unit`"
        )
        for name, size in sizes.items()
        if not median / MAX_SIZE_RATIO < size < median * MAX_SIZE_RATIO
    ]
    odd_names = {one.name for one in odd}
    return [one for one in survey.new if one.scan.name not in odd_names], odd


def _split_too_large(new: Sequence[NewScan], cube: Cube, prior: FitPrior | None) -> tuple[list[NewScan], list[Skipped]]:
    """The scans that the store's cube holds, and the others."""
    fitting = [one for one in new if cube.contains(one.alignment.bounds)]
    names = {one.scan.name for one in fitting}
    too_large = [one.scan.name for one in new if one.scan.name not in names]
    reason = (
        "larger than the store's cube; fit it into a new store"
        if prior is None
        else "larger than all heads of the prior; cut its neck and shoulders, or fit it without `prior`"
    )
    return fitting, [Skipped(name, f"{name}: {reason}") for name in too_large]


def _create(folder: Path, new: Sequence[NewScan], config: OverfitConfig, prior: FitPrior | None = None) -> Store:
    """A new store: in the space of the prior, or with a cube that holds all scans."""
    if prior is not None:
        return Store.create(folder, space=prior.space, settings=_as_json(config), prior=prior.digest)
    space = shared_space([one.alignment for one in new], config)
    return Store.create(folder, space=space, settings=_as_json(config))


def _batches(found: Sequence[Scan], new: Sequence[AlignedScan], size: int) -> dict[int, list[AlignedScan]]:
    """The new scans in batches, each by its number.

    Batches are cut from all scans, so that a run that resumes cuts them as the first one did.
    """
    by_name = {one.scan.name: one for one in new}
    batches = {
        start: [by_name[scan.name] for scan in found[start : start + size] if scan.name in by_name]
        for start in range(0, len(found), size)
    }
    return {start: scans for start, scans in batches.items() if scans}


def _fit_base(
    store: Store,
    scans: Sequence[AlignedScan],
    config: OverfitConfig,
    prior: FitPrior | None,
    context: RunContext,
) -> None:
    """Fit the network from which all others start, to the first scan that can be labelled."""
    name, labels = _first_labels(store, scans, config, context)
    with context.progress(config.fit.first_steps, f"first fit ({name})", "step") as bar:
        store.save_base(fit_first(labels, config, prior=prior, on_progress=bar.update), scan=name)


def _first_labels(
    store: Store, scans: Sequence[AlignedScan], config: OverfitConfig, context: RunContext
) -> tuple[str, LabelBatch]:
    for aligned in scans:
        try:
            labels = label_scan(aligned, store.space, config=config).training
        except BadInput:
            continue  # Its batch reports why.
        return aligned.scan.name, LabelBatch.stack([labels], context.device)
    raise BadInput(
        f"{store.folder}: not one scan encloses a volume; close their surfaces, or try `sign_method=mesh-to-sdf`"
    )


def _fit_batches(
    store: Store,
    batches: dict[int, list[AlignedScan]],
    config: OverfitConfig,
    prior: FitPrior | None,
    compute: Compute,
) -> list[Skipped]:
    """Fit the batches, save each as it is done, and return the scans that could not be fitted."""
    base = store.base
    if not batches or base is None:
        return []
    starts = list(batches)
    setup = BatchSetup(base, store.space, config, compute.batch_device, prior)
    tasks = [(batches[start], setup) for start in starts]
    total = sum(len(scans) for scans in batches.values())
    skipped: list[Skipped] = []
    done = 0
    with compute.context.progress(total, "fitting", "head", bar_format=BAR_FORMAT) as bar:

        def on_progress(steps: float) -> None:
            bar.update(min(steps / config.fit.steps, total - bar.n))

        result: BatchResult
        for index, result in compute.run_tasks(fit_scan_batch, tasks, on_progress=on_progress):
            skipped += result.skipped
            if result.records:
                folders = {one.scan.name: store.folder_name(one.scan.folder) for one in batches[starts[index]]}
                records = [replace(record, folder=folders[record.name]) for record in result.records]
                store.add(starts[index], result.parameters, records)
                bar.set_postfix_str(f"{np.mean([record.error_mm for record in result.records]):.3f} mm")
            done += len(batches[starts[index]])
            bar.update(max(0, done - bar.n))
    return skipped
