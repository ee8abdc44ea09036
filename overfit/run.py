"""Stage 1 from end to end: a folder of scans in, a store of fitted networks out. Run again, it goes on."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import cluster, workers
from .batch import Settings, fit_batch, label_scan
from .cube import Cube
from .errors import BadInput
from .fit import fit
from .occupancy import tensors
from .scans import Scan, Unit, find, read
from .store import Record, Store
from .workers import Machine

# A scan whose size is this many times the median scan's, or less than its inverse, is in another unit or no head.
ODD_SIZE = 2.0
# A store's folder for the heads that were prepared for it.
PREPARED = "prepared"
# Scans fitted as one computation: on CPU their activations stay in the cache.
BATCH = {"cpu": 8, "cuda": 32}


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    # Names of the scans fitted now, and of those that the store held already.
    fitted: list[str]
    kept: list[str]
    # Scans without a fit, by name, with the reason.
    set_aside: dict[str, str]
    # Records of all fits in the store.
    records: list[Record]


def overfit(folder: Path | str, store: Path | str, settings: Settings = Settings(), machine: Machine = Machine(),
            batch: int = 0, ray: str | None = None) -> Outcome:
    """Fit a network to every scan below a folder that the store does not hold yet.

    `batch` scans are fitted as one computation, and a kill costs at most the batches in hand; 0 picks for the machine.
    Every core works on a batch of its own, so that labels are made and fits are measured while others are fitted.
    With the address `ray`, the batches go to the cores of a Ray cluster, or to its GPUs where `machine` names cuda;
    the scans must lie where all its machines see them.

    Raises BadInput where there is nothing to fit, where the store was made with other settings, or while another run
    fits into it.
    """
    folder, store = Path(folder), Path(store)
    if batch < 0:
        raise BadInput(f"--batch {batch}: give the number of scans to fit at once, or 0 to leave it to the machine")
    if ray is None:
        here = there = machine.use()
        spread = partial(workers.run, workers=machine.cores)
    else:
        cluster.reach(ray)
        # The first fit is made here, on whatever this computer has.
        here, there = replace(machine, device="auto").use(), torch.device("cuda" if machine.device == "cuda" else "cpu")
        spread = partial(cluster.run, address=ray, gpu=there.type == "cuda")
    batch = batch or BATCH[there.type]
    found = find(folder)
    with Store.locked(store):
        existing = _existing(store, settings)
        records = existing.records() if existing else {}
        new = [scan for scan in found if scan.name not in records or records[scan.name].digest != scan.digest]
        boxes, set_aside = _survey(new, settings.unit, machine.cores)
        opened = existing or _created(store, folder, boxes, set_aside, settings)
        _misfits(boxes, set_aside, opened.cube)
        pending = boxes.keys() - set_aside.keys()
        batches = _batches(found, pending, batch)
        if batches and opened.base is None:
            _fit_base(opened, [scan for scans in batches.values() for scan in scans], settings, here)
        _fit(opened, batches, settings, there, spread, set_aside)
        opened.merge()
        opened.report(set_aside)
        kept = {scan.name for scan in found} - {scan.name for scan in new}
        return Outcome(sorted(pending - set_aside.keys()), sorted(kept), set_aside, list(opened.records().values()))


def prepared_heads(store: Path | str, settings: Settings) -> Path:
    """Where a store keeps the heads that are prepared for it.

    Raises BadInput where no fits with these settings can go into that store: better before its scans are prepared.
    """
    store = Path(store)
    if store.is_dir():
        _opened(store, settings)
    return store / PREPARED


def _existing(folder: Path, settings: Settings) -> Store | None:
    """The store in a folder, ready to go on with, or None where it is empty."""
    store = _opened(folder, settings)
    if store:
        # What a killed run left in shards: this run's shards may get the same names.
        store.merge()
    return store


def _opened(folder: Path, settings: Settings) -> Store | None:
    """The store in a folder, or None where it is empty. Raises BadInput where it is of other settings."""
    if not {path.name for path in folder.iterdir()} - {PREPARED}:
        return None
    if not (folder / "store.json").exists():
        raise BadInput(f"{folder}: holds other things than a store; give a new or empty folder")
    store = Store(folder)
    theirs, ours = _flat(store.settings), _flat(_plain(settings))
    for flag, value in ours.items():
        if theirs.get(flag) != value:
            raise BadInput(f"{folder}: was made with {flag} {theirs.get(flag)}, not {value}; "
                           "use its settings, or fit into a new store")
    return store


def _created(store: Path, folder: Path, boxes: dict[str, np.ndarray], set_aside: dict[str, str],
             settings: Settings) -> Store:
    """A new store whose cube holds all scans but those of odd size, which are set aside."""
    if not boxes:
        raise BadInput(f"{folder}: none of its files is a usable scan; the first: {next(iter(set_aside.values()))}")
    sizes = {name: float(np.ptp(box, axis=0).max()) for name, box in boxes.items()}
    median = float(np.median(list(sizes.values())))
    for name, size in sizes.items():
        if not median / ODD_SIZE < size < median * ODD_SIZE:
            set_aside[name] = (f"{name}: its size of {size:.0f} mm is far from the others' {median:.0f} mm; "
                               "tell its unit by --unit")
    cube = Cube.around(np.stack([box for name, box in boxes.items() if name not in set_aside]), settings.margin)
    return Store.create(store, settings.field, cube, _plain(settings))


def _misfits(boxes: dict[str, np.ndarray], set_aside: dict[str, str], cube: Cube) -> None:
    """Set the scans aside that the store's cube does not hold."""
    for name, box in boxes.items():
        if name not in set_aside and not cube.contains(box):
            set_aside[name] = f"{name}: larger than the store's cube; fit it into a new store"


def _plain(settings: Settings) -> dict:
    """Settings as JSON has them."""
    return json.loads(json.dumps(asdict(settings)))


def _flat(settings: dict) -> dict:
    """Nested settings by the flags that set them."""
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {"--" + key.replace("_", "-"): value}
    return flat


def _survey(scans: list[Scan], unit: Unit, pool: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read every scan once: boxes (2, 3) in millimetres by name, and the reasons for those that cannot be read."""
    boxes, set_aside = {}, {}
    # Starting workers takes longer than reading some tens of scans.
    pool = min(pool, max(1, len(scans) // 64))
    with tqdm(total=len(scans), desc="reading", unit="scan", disable=len(scans) < 2) as bar:
        for index, found in workers.run(_box, [(scan, unit) for scan in scans], workers=pool):
            (set_aside if isinstance(found, str) else boxes)[scans[index].name] = found
            bar.update()
    return {scan.name: boxes[scan.name] for scan in scans if scan.name in boxes}, set_aside


def _box(scan: Scan, unit: Unit, progress: Callable[[int], None]) -> np.ndarray | str:
    """A scan's bounds (2, 3) in millimetres, or the reason why it has none."""
    try:
        return np.asarray(read(scan, unit).bounds)
    except BadInput as error:
        return str(error)


def _batches(found: list[Scan], pending: set[str], size: int) -> dict[int, list[Scan]]:
    """The pending scans by batch.

    Batches are cut from the whole folder, so that a run that goes on cuts them as the first one did.
    """
    batches = {start: [scan for scan in found[start:start + size] if scan.name in pending]
               for start in range(0, len(found), size)}
    return {start: scans for start, scans in batches.items() if scans}


def _fit(store: Store, batches: dict[int, list[Scan]], settings: Settings, device: torch.device, spread: Callable,
         set_aside: dict[str, str]) -> None:
    """Fit the batches, keep each as it is done, and set the failures aside."""
    starts, base, done = list(batches), store.base, 0
    tasks = [(batches[start], base, store.cube, settings, device) for start in starts]
    total = sum(len(scans) for scans in batches.values())
    with tqdm(total=total, desc="fitting", unit="head", bar_format=BAR, disable=not total) as bar:

        def progress(steps: int) -> None:
            bar.update(min(steps / settings.fitting.steps, total - bar.n))

        for index, batch in spread(fit_batch, tasks, progress=progress):
            set_aside |= batch.set_aside
            if batch.records:
                store.add(starts[index], batch.weights, batch.records)
                bar.set_postfix_str(f"{np.mean([record.error_mm for record in batch.records]):.3f} mm")
            done += len(batches[starts[index]])
            bar.update(max(0, done - bar.n))


def _fit_base(store: Store, scans: list[Scan], settings: Settings, device: torch.device) -> None:
    """Fit the network from which all others start: to the first scan that can be labelled."""
    for scan in scans:
        try:
            points = tensors([label_scan(scan, store.cube, settings).fitted], device)
            break
        except BadInput:
            continue  # Its batch will say why.
    else:
        raise BadInput(f"{store.folder}: not one scan encloses a volume; close their surfaces, or try "
                       "--labels mesh-to-sdf")
    fitting = settings.fitting
    start = settings.field.initial(torch.Generator().manual_seed(fitting.seed))
    with tqdm(total=fitting.first_steps, desc=f"first fit ({scan.name})", unit="step") as bar:
        store.save_base(fit(settings.field, start, *points, fitting, fitting.first_steps, fitting.rate, bar.update)[0])


# tqdm's own bar with the count rounded: heads arrive in fractions, step by step.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
