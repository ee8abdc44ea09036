"""Stage 1 from end to end: a folder of scans in, a store of fitted networks out. Run again, it goes on."""

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from tqdm import tqdm

from . import workers
from .accuracy import iou, surface_error
from .cube import Cube
from .decode import bodies, decode
from .errors import BadInput
from .field import Field
from .fit import Fitting, autocast, fit
from .occupancy import Occupancy, Sampling, label
from .one_body import one_body
from .scans import Scan, Unit, find, read
from .store import Record, Store
from .workers import Machine

# Grids on which a fit's surface error is measured and its bodies are counted (pockets of a millimetre want the finer
# one), and the labelled points that its IoU is measured on.
CHECK_RESOLUTION = 128
REVIEW_RESOLUTION = 256
# What is added to the logits when bodies are counted.
GROWN = 0.3
HELD_OUT = Sampling(near=10_000, wide=0, uniform=10_000, face=0.0)
# A scan whose size is this many times the median scan's, or less than its inverse, is in another unit or no head.
ODD_SIZE = 2.0


@dataclass(frozen=True)
class Settings:
    """All that decides what a fit comes out as. A store keeps to the settings that it was made with."""

    # Unit of the scan files; auto finds it from the size of a human head.
    unit: Unit = "auto"
    # Room between the largest head and the cube's sides, as a share of the cube.
    margin: float = 0.05
    # The network.
    field: Field = Field()
    # Where its labelled points lie.
    sampling: Sampling = Sampling()
    # How it is fitted to them.
    fitting: Fitting = Fitting()
    # A fit with a larger mean surface error (mm) is done again from scratch, and set aside if that fails too.
    worst_mm: float = 2.0


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
            batch: int = 0) -> Outcome:
    """Fit a network to every scan below a folder that the store does not hold yet.

    `batch` scans are fitted as one computation, and a kill costs at most the batches in hand; 0 picks for the machine.
    On CPU every core works on a batch of its own. Raises BadInput where there is nothing to fit, where the store was
    made with other settings, or while another run fits into it.
    """
    folder, store = Path(folder), Path(store)
    device = machine.use()
    pool = 1 if device.type == "cuda" else machine.cores
    batch = batch or (64 if device.type == "cuda" else 8)
    found = find(folder)
    _same_settings(store, settings)
    digests = {scan.name: scan.digest() for scan in found}
    records = Store(store).records() if _exists(store) else {}
    new = [scan for scan in found
           if scan.name not in records or records[scan.name].digest != digests[scan.name]]
    bounds, set_aside = _survey(new, settings.unit, pool)
    if not _exists(store):
        if not bounds:
            name, reason = next(iter(set_aside.items()))
            raise BadInput(f"{folder}: none of its {len(found)} files is a usable scan; the first: {reason}")
        set_aside |= _odd_sizes(bounds)
        cube = Cube.around(np.stack([box for name, box in bounds.items() if name not in set_aside]), settings.margin)
        Store.create(store, settings.field, cube, _plain(settings))
    opened = Store(store)
    with opened.lock():
        set_aside |= {name: f"{name}: larger than the store's cube; fit it into a new store"
                      for name, box in bounds.items() if name not in set_aside and not opened.cube.contains(box)}
        pending = {scan.name for scan in new} - set(set_aside)
        # Batches are cut from the whole folder, so that a run that goes on cuts them as the first one did.
        batches = {start: [scan for scan in found[start:start + batch] if scan.name in pending]
                   for start in range(0, len(found), batch)}
        batches = {start: scans for start, scans in batches.items() if scans}
        if batches:
            if opened.base is None:
                _fit_base(opened, next(iter(batches.values()))[0], settings, device)
            set_aside |= _fit_batches(opened, batches, digests, settings, device, pool)
        opened.merge()
        opened.report(set_aside)
    fitted = sorted(pending - set(set_aside))
    return Outcome(fitted, sorted(set(digests) - {scan.name for scan in new}), set_aside,
                   list(opened.records().values()))


def _exists(store: Path) -> bool:
    return (store / "store.json").exists()


def _plain(settings: Settings) -> dict:
    """Settings as JSON has them."""
    plain = asdict(settings)
    plain["field"]["hidden"] = list(plain["field"]["hidden"])
    return plain


def _same_settings(store: Path, settings: Settings) -> None:
    """Raises BadInput, naming the first difference, where the store was made with other settings."""
    if not _exists(store):
        if store.exists() and (not store.is_dir() or any(store.iterdir())):
            raise BadInput(f"{store}: holds other things than a store; give a new or empty folder")
        return
    theirs, ours = _flat(Store(store).settings), _flat(_plain(settings))
    for key in ours:
        if theirs.get(key) != ours[key]:
            raise BadInput(f"{store}: was made with {key} {theirs.get(key)}, not {ours[key]}; "
                           "use its settings, or fit into a new store")


def _flat(settings: dict) -> dict:
    """Nested settings by the flags that set them."""
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {"--" + key.replace("_", "-"): value}
    return flat


def _survey(found: list[Scan], unit: Unit, pool: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read every scan once: boxes (2, 3) in millimetres by name, and the reasons for those that cannot be read."""
    bounds, set_aside = {}, {}
    # Starting workers takes longer than reading some tens of scans.
    pool = min(pool, max(1, len(found) // 64))
    with tqdm(total=len(found), desc="reading", unit="scan", disable=len(found) < 2) as bar:
        for index, (box, reason) in workers.run(_bounds, [(scan, unit) for scan in found], pool):
            name = found[index].name
            (bounds if reason is None else set_aside)[name] = box if reason is None else reason
            bar.update()
    return {scan.name: bounds[scan.name] for scan in found if scan.name in bounds}, set_aside


def _bounds(scan: Scan, unit: Unit, progress: Callable[[int], None]) -> tuple[np.ndarray | None, str | None]:
    try:
        return np.asarray(read(scan, unit).bounds), None
    except BadInput as error:
        return None, str(error)


def _odd_sizes(bounds: dict[str, np.ndarray]) -> dict[str, str]:
    """Reasons for the scans whose size is far from the median's, so that one of them cannot shrink all others."""
    sizes = {name: float(np.ptp(box, axis=0).max()) for name, box in bounds.items()}
    median = float(np.median(list(sizes.values())))
    return {name: f"{name}: its size of {size:.0f} mm is far from the others' {median:.0f} mm; tell its unit by --unit"
            for name, size in sizes.items() if not median / ODD_SIZE < size < median * ODD_SIZE}


def _fit_base(store: Store, scan: Scan, settings: Settings, device: torch.device) -> None:
    """Fit the network from which all others start."""
    fitting = settings.fitting
    with tqdm(total=fitting.first_steps, desc=f"first fit ({scan.name})", unit="step") as bar:
        occupancy = _label(scan, read(scan, settings.unit), store.cube, settings.sampling)
        start = settings.field.initial(torch.Generator().manual_seed(fitting.seed))
        store.save_base(fit(settings.field, start, *_tensors([occupancy], device), fitting, fitting.first_steps,
                            fitting.rate, bar.update)[0])


def _fit_batches(store: Store, batches: dict[int, list[Scan]], digests: dict[str, str], settings: Settings,
                 device: torch.device, pool: int) -> dict[str, str]:
    """Fit all batches and keep each as it is done; returns the reasons for the scans without a fit."""
    set_aside = {}
    steps = settings.fitting.steps
    tasks = [(scans, [digests[scan.name] for scan in scans], store.cube, store.base, settings, device)
             for scans in batches.values()]
    keys = list(batches)
    with tqdm(total=sum(map(len, batches.values())), desc="fitting", unit="head", bar_format=BAR) as bar:
        done = 0

        def progress(scan_steps: int) -> None:
            bar.update(min(scan_steps / steps, bar.total - bar.n))

        for index, (weights, records, reasons) in workers.run(_fit_batch, tasks, min(pool, len(tasks)), progress):
            if records:
                store.add(keys[index], weights, records)
            set_aside |= reasons
            done += len(tasks[index][0])
            if records:
                bar.set_postfix_str(f"{np.mean([record.error_mm for record in records]):.3f} mm")
        bar.update(done - bar.n)
    return set_aside


# tqdm's own bar with the count rounded: heads arrive in fractions, step by step.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def _fit_batch(scans: list[Scan], digests: list[str], cube: Cube, base: torch.Tensor, settings: Settings,
               device: torch.device, progress: Callable[[int], None],
               ) -> tuple[torch.Tensor, list[Record], dict[str, str]]:
    """Weights (fits, P) and records of a batch of scans, and the reasons for those that came to nothing."""
    meshes, occupancies, reasons = {}, {}, {}
    for scan in scans:
        try:
            meshes[scan.name] = read(scan, settings.unit)
            occupancies[scan.name] = _label(scan, meshes[scan.name], cube, settings.sampling)
        except BadInput as error:
            message = str(error)
            reasons[scan.name] = message if message.startswith(scan.name) else f"{scan.name}: {message}"
    left = [scan for scan in scans if scan.name not in reasons]
    if not left:
        return torch.empty(0, settings.field.size), [], reasons
    points, distance = _tensors([occupancies[scan.name] for scan in left], device)

    def review(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _review(weights, [occupancies[scan.name] for scan in left], cube, settings.field)

    fitting = settings.fitting
    fitted = fit(settings.field, base, points, distance, fitting, fitting.steps, fitting.rate, progress, review)
    weights, records = [], []
    for row, (scan, digest) in enumerate((s, d) for s, d in zip(scans, digests) if s.name not in reasons):
        check = _Check(scan, digest, meshes[scan.name], cube, settings, device)
        one, record = fitted[row], check(fitted[row])
        if record.error_mm > settings.worst_mm:
            fresh = settings.field.initial(torch.Generator().manual_seed(settings.fitting.seed + 1)).to(device)
            one = fit(settings.field, fresh, points[row:row + 1], distance[row:row + 1], fitting,
                      fitting.first_steps, fitting.rate)[0]
            record = check(one)
        if record.error_mm > settings.worst_mm:
            reasons[scan.name] = (f"{scan.name}: no fit within {settings.worst_mm} mm (got {record.error_mm:.2f}); "
                                  "repair the scan, or raise --worst-mm")
        else:
            weights.append(one.cpu())
            records.append(record)
    return torch.stack(weights) if weights else torch.empty(0, settings.field.size), records, reasons


def _review(weights: torch.Tensor, occupancies: list[Occupancy], cube: Cube, field: Field,
            ) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and distances by which the unfinished fits (scans, P) become heads of one body."""
    revised = []
    for one, occupancy in zip(weights, occupancies):
        # The last entry is the logit's bias: a surface grown by a fraction of a millimetre seals what nearly is sealed.
        grown = torch.cat([one[:-1], one[-1:] + GROWN])
        try:
            with autocast(one.device):
                mesh = decode(field, grown, cube, REVIEW_RESOLUTION, keep_islands=True)
        except BadInput:
            # No surface yet: there is nothing to revise.
            revised.append(occupancy)
            continue
        revised.append(Occupancy(*one_body(occupancy.points, occupancy.distance, mesh, cube,
                                           np.random.default_rng(0))))
    return _tensors(revised, weights.device)


@dataclass(frozen=True)
class _Check:
    """Measures fits of one scan against its mesh."""

    scan: Scan
    digest: str
    mesh: trimesh.Trimesh
    cube: Cube
    settings: Settings
    device: torch.device

    def __call__(self, weights: torch.Tensor) -> Record:
        field = self.settings.field
        held_out = dataclasses.replace(HELD_OUT, labels=self.settings.sampling.labels)
        points, distance = _tensors([_label(self.scan, self.mesh, self.cube, held_out, stream=1)], self.device)
        overlap = iou(field, weights, points[0], distance[0])
        try:
            decoded = bodies(decode(field, weights, self.cube, CHECK_RESOLUTION, keep_islands=True))
        except BadInput:
            return Record(self.scan.name, self.digest, overlap, float("inf"), float("inf"), 0)
        error = surface_error(decoded[0], self.mesh, np.random.default_rng(0))
        return Record(self.scan.name, self.digest, overlap, error.mean_mm, error.p95_mm, len(decoded))


def _label(scan: Scan, mesh: trimesh.Trimesh, cube: Cube, sampling: Sampling, stream: int = 0) -> Occupancy:
    """Labels of a scan, their points drawn from a generator of its own, so that no other scan has a say in them."""
    seed = [stream, *scan.name.encode()]
    return label(mesh, cube, sampling, np.random.default_rng(seed))


def _tensors(occupancies: list[Occupancy], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (scans, n, 3) and distances (scans, n) on the device."""
    return (torch.from_numpy(np.stack([one.points for one in occupancies])).to(device),
            torch.from_numpy(np.stack([one.distance for one in occupancies])).to(device))
