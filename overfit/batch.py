"""One worker's task: a batch of scans in, fitted weights and what is known of them out, and reasons for the failures.

Labels, one batched fit that is healed where it falls into several bodies, and a measurement of each against its scan.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import trimesh

from .accuracy import iou, surface_error
from .cube import Cube
from .decode import bodies
from .errors import BadInput
from .field import Field
from .fit import Fitting, fit
from .healing import heal, review, whole_mesh
from .occupancy import Occupancy, Sampling, label, tensors
from .scans import Scan, Unit, read
from .store import Record

# Of so many labelled points, one is not fitted to but tells the fit's IoU.
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
    # Close pockets and drop islands while fitting, so that a head is one body.
    healing: bool = True
    # Grid nodes along a side on which fits are healed and measured; it must be fine to see pockets of a millimetre.
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
        rows, meshes = _fitted(heads, base, settings.fitting.steps, cube, settings, device, progress)
        for head, row, mesh in zip(heads, rows, meshes):
            row, record = _checked(head, row, mesh, cube, settings)
            if record.error_mm > settings.worst_mm:
                set_aside[head.scan.name] = (f"{head.scan.name}: no fit within {settings.worst_mm} mm, the best is "
                                             f"{record.error_mm:.2f} mm off; repair the scan, or raise --worst-mm")
            else:
                weights.append(row.cpu())
                records.append(record)
    return Batch(torch.stack(weights) if weights else torch.empty(0, settings.field.size), records, set_aside)


def label_scan(scan: Scan, cube: Cube, settings: Settings) -> Labelled:
    """Read and label a scan, its points drawn from a generator of its own: no other scan has a say in them."""
    mesh, sampling = read(scan, settings.unit), settings.sampling
    share = HELD_OUT / (HELD_OUT - 1)
    drawn = replace(sampling, near=round(sampling.near * share), wide=round(sampling.wide * share),
                    uniform=round(sampling.uniform * share))
    try:
        occupancy = label(mesh, cube, drawn, np.random.default_rng([*scan.name.encode()]))
    except BadInput as error:
        raise BadInput(f"{scan.name}: {error}") from error
    judges = np.arange(len(occupancy.points)) % HELD_OUT == 0
    fitted, held_out = (Occupancy(occupancy.points[part], occupancy.distance[part]) for part in (~judges, judges))
    return Labelled(scan, mesh, fitted, held_out)


def _fitted(heads: list[Labelled], start: torch.Tensor, steps: int, cube: Cube, settings: Settings,
            device: torch.device, progress: Callable[[int], None] = lambda scans: None,
            ) -> tuple[torch.Tensor, list[trimesh.Trimesh | None]]:
    """Weights (scans, P), fitted from `start` (P,) and healed, and the meshes that they decode to."""
    field, labels = settings.field, [head.fitted for head in heads]

    def revise(unfinished: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A little coarser: what closes here is large, and slivers are left to the end.
        labels[:] = review(unfinished, labels, field, cube, settings.review * 3 // 4)
        return tensors(labels, device)

    rows = fit(field, start, *tensors(labels, device), settings.fitting, steps, settings.fitting.rate, progress,
               revise if settings.healing else None)
    meshes = [whole_mesh(field, row, cube, settings.review) for row in rows]
    if settings.healing:
        return heal(rows, meshes, labels, field, cube, settings.review, settings.fitting)
    return rows, meshes


def _checked(head: Labelled, row: torch.Tensor, mesh: trimesh.Trimesh | None, cube: Cube, settings: Settings,
             ) -> tuple[torch.Tensor, Record]:
    """The fit (P,) and its record; where it is not good enough, those of a second one, started from noise."""
    record = _measured(head, row, mesh, settings.field)
    if record.error_mm <= settings.worst_mm:
        return row, record
    fresh = settings.field.initial(torch.Generator().manual_seed(settings.fitting.seed + 1))
    rows, meshes = _fitted([head], fresh, settings.fitting.first_steps, cube, settings, row.device)
    return rows[0], _measured(head, rows[0], meshes[0], settings.field)


def _measured(head: Labelled, row: torch.Tensor, mesh: trimesh.Trimesh | None, field: Field) -> Record:
    points, distance = tensors([head.held_out], row.device)
    overlap = iou(field, row, points[0], distance[0])
    if mesh is None:
        return Record(head.scan.name, head.scan.digest, overlap, float("inf"), float("inf"), 0)
    pieces = bodies(mesh)
    error = surface_error(pieces[0], head.mesh, np.random.default_rng(0))
    return Record(head.scan.name, head.scan.digest, overlap, error.mean_mm, error.p95_mm, len(pieces))
