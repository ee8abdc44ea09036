"""One worker's task: a batch of scans in, fitted weights and what is known of them out, and reasons for the failures.

Labels, one batched fit, a review that heals strays, and a measurement of every fit against its scan.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import trimesh

from .accuracy import iou, surface_error
from .cube import Cube
from .decode import bodies, decode
from .errors import BadInput
from .field import Field
from .fit import Fitting, autocast, fit
from .occupancy import Occupancy, Sampling, label
from .one_body import one_body
from .scans import Scan, Unit, read
from .store import Record

# Grid on which a fit's surface error is measured and its bodies are counted.
CHECK_RESOLUTION = 128
# What is added to the logits for the review: a surface grown by a fraction of a millimetre seals what nearly is sealed.
GROWN = 0.3
# Every so many-th labelled point is not fitted to but tells the fit's IoU.
HELD_OUT = 10


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
    # Grid nodes along a side for the review of unfinished fits; it must be fine to see pockets of a millimetre.
    review: int = 256
    # A fit with a larger mean surface error (mm) is done again from scratch, and set aside if that fails too.
    worst_mm: float = 2.0


@dataclass(frozen=True)
class Batch:
    """What came of a batch of scans."""

    # (fits, P) and their records.
    weights: torch.Tensor
    records: list[Record]
    # Reasons for the scans without a fit, by name.
    set_aside: dict[str, str]


@dataclass(frozen=True)
class Labelled:
    """A scan ready to be fitted."""

    scan: Scan
    mesh: trimesh.Trimesh
    # Labelled points to fit to, and those that judge the fit.
    fitted: Occupancy
    held_out: Occupancy


def fit_batch(scans: list[Scan], base: torch.Tensor, cube: Cube, settings: Settings, device: torch.device,
              progress: Callable[[int], None]) -> Batch:
    """Fit all scans from the weights `base` (P,) as one computation; `progress` is told every scan's every step."""
    heads, set_aside = [], {}
    for scan in scans:
        try:
            heads.append(label_scan(scan, cube, settings))
        except BadInput as error:
            set_aside[scan.name] = str(error)
    weights, records = [], []
    if heads:
        fitting, points = settings.fitting, tensors([head.fitted for head in heads], device)
        rows = fit(settings.field, base, *points, fitting, fitting.steps, fitting.rate, progress,
                   lambda unfinished: review(unfinished, heads, cube, settings))
        for head, row in zip(heads, rows):
            row, record = _checked(head, row, cube, settings)
            if record.error_mm > settings.worst_mm:
                set_aside[head.scan.name] = (f"{head.scan.name}: no fit within {settings.worst_mm} mm, the best is "
                                             f"{record.error_mm:.2f} mm off; repair the scan, or raise --worst-mm")
            else:
                weights.append(row.cpu())
                records.append(record)
    return Batch(torch.stack(weights) if weights else torch.empty(0, settings.field.size), records, set_aside)


def label_scan(scan: Scan, cube: Cube, settings: Settings) -> Labelled:
    """Read and label a scan, its points drawn from a generator of its own: no other scan has a say in them."""
    mesh = read(scan, settings.unit)
    try:
        occupancy = label(mesh, cube, settings.sampling, np.random.default_rng([*scan.name.encode()]))
    except BadInput as error:
        raise BadInput(f"{scan.name}: {error}") from error
    judges = np.arange(len(occupancy.points)) % HELD_OUT == 0
    fitted, held_out = (Occupancy(occupancy.points[part], occupancy.distance[part]) for part in (~judges, judges))
    return Labelled(scan, mesh, fitted, held_out)


def tensors(occupancies: list[Occupancy], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (scans, n, 3) and distances (scans, n) on the device."""
    return (torch.from_numpy(np.stack([one.points for one in occupancies])).to(device),
            torch.from_numpy(np.stack([one.distance for one in occupancies])).to(device))


def review(weights: torch.Tensor, heads: list[Labelled], cube: Cube, settings: Settings,
           ) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and distances by which the unfinished fits (scans, P) become heads of one body."""
    revised = []
    for one, head in zip(weights, heads):
        # The last entry of the weights is the logit's bias.
        grown = torch.cat([one[:-1], one[-1:] + GROWN])
        points, distance = head.fitted.points, head.fitted.distance
        try:
            with autocast(one.device):
                mesh = decode(settings.field, grown, cube, settings.review, keep_islands=True)
            points, distance = one_body(points, distance, mesh, cube, np.random.default_rng(0))
        except BadInput:
            pass  # No surface yet, so no strays.
        revised.append(Occupancy(points, distance))
    return tensors(revised, weights.device)


def _checked(head: Labelled, row: torch.Tensor, cube: Cube, settings: Settings) -> tuple[torch.Tensor, Record]:
    """The fit (P,) and its record; where it is not good enough, those of a second one, started from noise."""
    record = _measured(head, row, cube, settings.field)
    if record.error_mm <= settings.worst_mm:
        return row, record
    fitting = settings.fitting
    fresh = settings.field.initial(torch.Generator().manual_seed(fitting.seed + 1))
    again = fit(settings.field, fresh, *tensors([head.fitted], row.device), fitting, fitting.first_steps,
                fitting.rate)[0]
    return again, _measured(head, again, cube, settings.field)


def _measured(head: Labelled, row: torch.Tensor, cube: Cube, field: Field) -> Record:
    points, distance = tensors([head.held_out], row.device)
    overlap = iou(field, row, points[0], distance[0])
    try:
        decoded = bodies(decode(field, row, cube, CHECK_RESOLUTION, keep_islands=True))
    except BadInput:
        return Record(head.scan.name, head.scan.digest, overlap, float("inf"), float("inf"), 0)
    error = surface_error(decoded[0], head.mesh, np.random.default_rng(0))
    return Record(head.scan.name, head.scan.digest, overlap, error.mean_mm, error.p95_mm, len(decoded))
