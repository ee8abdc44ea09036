"""One worker's task: a batch of scans in, fitted weights and their records out, and the scans that could not be fitted.

The scans are labelled, fitted in one computation, repaired if they have several components, and measured each against
its scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from overfit.canonical.align import AlignmentConfig, ScanAlignment, control_points
from overfit.canonical.warp import Warp, WarpSpace
from overfit.decoder import MAX_RESOLUTION, MIN_RESOLUTION, DecodeConfig, to_head_space, try_decode
from overfit.field import Field
from overfit.fit import FitConfig, OnProgress, fit
from overfit.fit_metrics import iou, surface_error
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.mesh import connected_components, seen_share
from overfit.labels import LabelBatch, LabelConfig, Labels, label_mesh
from overfit.neural_head import HeadSpace, NeuralHead
from overfit.prior import FitPrior
from overfit.repair import STRAY_POINTS, FittedHead, repair_fits, revise_labels
from overfit.runtime.errors import BadInput, Skipped, require_at_least, require_between
from overfit.scans.formats import Scan, read_prepared
from overfit.scans.units import Unit
from overfit.store import FitRecord

# Steps of a fit if none are given: with eyes, nose, lips and ears in one place, a fit has less to learn.
WARPED_STEPS = 1000
UNWARPED_STEPS = 2000
# Steps of a fit that starts from a prior's head.
PRIOR_STEPS = 500
# Of this many labelled points, one is not fitted to but measures the fit's IoU.
TEST_EVERY = 10
# Share of `check_resolution` at which unfinished fits are checked: what closes then is large.
REVISION_RESOLUTION_SHARE = 3 / 4
# Dimensions of a scan.
SCAN_COORDINATES = 3


@dataclass(frozen=True)
class OverfitConfig:
    """All settings that affect a fit. A store keeps the settings that it was made with."""

    unit: Unit = "auto"
    """Unit of the scan files; auto finds it from the size of a human head."""
    margin: float = 0.05
    """Space between the largest head and the sides of the cube, as a share of the cube."""
    alignment: AlignmentConfig = AlignmentConfig()
    """How scans are aligned with each other before they are fitted."""
    field: Field = Field()
    """The network."""
    labels: LabelConfig = LabelConfig()
    """Where labelled points are."""
    fit: FitConfig = FitConfig()
    """How the network is fitted to them."""
    repair: bool = True
    """Close pockets and remove islands while fitting, so that a head is one connected component."""
    check_resolution: int = 256
    """Grid nodes along a side of the cube on which fits are repaired and measured. It must be fine to show pockets of a
    millimetre."""
    max_error_mm: float = 2.0
    """Largest mean surface error of a fit in millimetres. Above it, the fit is done again from scratch, and the scan is
    skipped if that fails too."""

    def __post_init__(self) -> None:
        require_at_least(0, margin=self.margin, max_error_mm=self.max_error_mm)
        least = round(MIN_RESOLUTION / REVISION_RESOLUTION_SHARE)
        require_between(least, MAX_RESOLUTION, check_resolution=self.check_resolution)
        if self.field.coordinates != SCAN_COORDINATES:
            raise BadInput(
                f"`coordinates={self.field.coordinates}`: scans have {SCAN_COORDINATES}; "
                f"give `coordinates={SCAN_COORDINATES}`"
            )
        points = self.labels.near_points + self.labels.band_points + self.labels.uniform_points
        if self.repair and points <= STRAY_POINTS:
            raise BadInput(
                f"`near_points`, `band_points`, `uniform_points`: {points} in all, and repair places {STRAY_POINTS} "
                "points itself; give more, or turn `repair` off"
            )

    def with_steps(self, *, prior: bool = False) -> "OverfitConfig":
        """Return the config with a number of steps: where it is open, prior and alignment decide."""
        if self.fit.steps:
            return self
        steps = PRIOR_STEPS if prior else WARPED_STEPS if self.alignment.align == "warp" else UNWARPED_STEPS
        return replace(self, fit=replace(self.fit, steps=steps))


@dataclass(frozen=True)
class BatchResult:
    """What a batch of scans gave."""

    parameters: Float[torch.Tensor, "fits S"]
    """The parameters of the fits: of their warps and their networks."""
    records: list[FitRecord]
    """What is known about each fit."""
    skipped: list[Skipped]
    """The scans without a fit."""


@dataclass(frozen=True)
class AlignedScan:
    """A scan and its place in canonical space."""

    scan: Scan
    """The scan."""
    warp: Float[torch.Tensor, " W"]
    """The parameters of its warp."""

    @classmethod
    def of(cls, scan: Scan, alignment: ScanAlignment, *, space: HeadSpace) -> "AlignedScan":
        """Return a scan with the parameters of its warp; a warp that folds is smoothed until it does not."""
        displacements, neck_height = alignment.displacements, alignment.neck_height
        warp = space.warps.warp(space.warps.parameters(displacements, neck_height))
        if warp is not None:
            displacements = warp.unfolded(space.cube).displacements
        return cls(scan, space.warps.parameters(displacements, neck_height))


@dataclass(frozen=True)
class LabelledScan:
    """A scan ready to be fitted."""

    name: str
    """The scan's name."""
    digest: str
    """SHA-256 of the scan file."""
    mesh: trimesh.Trimesh
    """The scan in millimetres."""
    warp: Warp | None
    """From canonical space to the scan."""
    warp_parameters: Float[torch.Tensor, " W"]
    """The parameters of that warp."""
    training: Labels
    """Labelled points to fit to."""
    test: Labels
    """Labelled points that measure the fit."""


@dataclass(frozen=True)
class BatchSetup:
    """What all batches of a store share."""

    base: Float[torch.Tensor, " P"]
    """The weights that fits start from."""
    space: HeadSpace
    """The store's field, cube and warps."""
    config: OverfitConfig
    """How networks are fitted."""
    device: torch.device
    """Where they are fitted."""
    prior: FitPrior | None = None
    """A model of other heads, along whose directions fits start from what is nearest to their scans."""


def shared_space(alignments: Sequence[ScanAlignment], config: OverfitConfig) -> HeadSpace:
    """Return the space of a new store of aligned scans: its cube holds them all, and most decide how necks end."""
    cube = Cube.around(np.stack([alignment.bounds for alignment in alignments]), config.margin)
    ends_in_plane = sum(alignment.ends_in_plane for alignment in alignments) > len(alignments) / 2
    warps = WarpSpace(control_points(config.alignment), cuts_neck=config.alignment.align != "none" and ends_in_plane)
    return HeadSpace(config.field, cube, warps)


def fit_scan_batch(
    scans: Sequence[AlignedScan], setup: BatchSetup, *, progress: OnProgress = lambda steps: None
) -> BatchResult:
    """Fit networks to all scans in one computation.

    `progress` is called with the number of steps done since the last call, summed over the scans.
    """
    config = setup.config.with_steps(prior=setup.prior is not None)
    setup = replace(setup, config=config)
    labelled, skipped = [], []
    for scan in scans:
        try:
            labelled.append(label_scan(scan, setup.space, config=config))
        except BadInput as error:
            skipped.append(Skipped(scan.scan.name, str(error)))
    rows, records = [], []
    fits = _fit_and_repair(labelled, setup, progress) if labelled else []
    for labelled_scan, fitted in zip(labelled, fits):
        weights, record = _measured_or_refitted(labelled_scan, fitted, setup)
        if record.error_mm > config.max_error_mm:
            skipped.append(_not_fitted(record, config))
        else:
            rows.append(torch.cat([labelled_scan.warp_parameters, weights.cpu()]))
            records.append(record)
    return BatchResult(torch.stack(rows) if rows else torch.empty(0, setup.space.size), records, skipped)


def fit_first(
    labels: LabelBatch,
    config: OverfitConfig,
    *,
    prior: FitPrior | None = None,
    on_progress: OnProgress = lambda steps: None,
) -> Float[torch.Tensor, " P"]:
    """Return the network that all other fits start from: one scan's, fitted from random weights or from a prior."""
    if prior is None:
        start = config.field.initial(torch.Generator().manual_seed(config.fit.seed))
    else:
        start = prior.nearest(labels, mean=prior.mean)
    first_fit = replace(config.fit, steps=config.fit.first_steps)
    return fit(config.field, start, labels, config=first_fit, on_progress=on_progress)[0]


def label_scan(aligned: AlignedScan, space: HeadSpace, *, config: OverfitConfig) -> LabelledScan:
    """Return a scan with labels, their points drawn from a generator of its own: they do not depend on other scans.

    Raises BadInput if the scan cannot be read or encloses no volume.
    """
    scan, warp = aligned.scan, space.warps.warp(aligned.warp)
    prepared = read_prepared(scan, config.unit)
    # What is computed about the mesh is cached with it; the scan's own copy stays small.
    mesh = prepared.mesh.copy(include_cache=True)
    try:
        rng = np.random.default_rng([*scan.name.encode()])
        labels = label_mesh(mesh, space.cube, config=_with_test_points(config.labels), rng=rng, warp=warp)
    except BadInput as error:
        raise BadInput(f"{scan.name}: {error}") from error
    is_test = np.arange(len(labels)) % TEST_EVERY == 0
    return LabelledScan(
        scan.name, prepared.digest, mesh, warp, aligned.warp, training=labels[~is_test], test=labels[is_test]
    )


def _with_test_points(config: LabelConfig) -> LabelConfig:
    """The config with more points, so that the numbers it had are left for training."""
    factor = TEST_EVERY / (TEST_EVERY - 1)
    return replace(
        config,
        near_points=round(config.near_points * factor),
        band_points=round(config.band_points * factor),
        uniform_points=round(config.uniform_points * factor),
    )


def _fit_and_repair(scans: Sequence[LabelledScan], setup: BatchSetup, progress: OnProgress) -> list[FittedHead]:
    """Fits in the order of the scans, repaired."""
    config, cube, device = setup.config, setup.space.cube, setup.device
    field = config.field
    labels = [scan.training for scan in scans]

    def revise(unfinished: torch.Tensor) -> LabelBatch:
        nonlocal labels
        resolution = int(config.check_resolution * REVISION_RESOLUTION_SHARE)
        labels = revise_labels(unfinished, labels, field=field, cube=cube, resolution=resolution)
        return LabelBatch.stack(labels, device)

    stacked = LabelBatch.stack(labels, device)
    rows = fit(
        field,
        setup.base if setup.prior is None else setup.prior.nearest(stacked, mean=setup.base),
        stacked,
        config=config.fit,
        on_progress=progress,
        revise_labels=revise if config.repair else None,
    )
    heads = [NeuralHead(field, cube, row) for row in rows]
    decode_config = DecodeConfig(config.check_resolution, keep_all_components=True)
    fits = [FittedHead(head, label, try_decode(head, decode_config)) for head, label in zip(heads, labels)]
    return repair_fits(fits, resolution=config.check_resolution, config=config.fit) if config.repair else fits


def _measured_or_refitted(scan: LabelledScan, fitted: FittedHead, setup: BatchSetup) -> tuple[torch.Tensor, FitRecord]:
    """The fit's weights (P,) and record; if its error is too large, those of a fit that starts from random weights."""
    config, record = setup.config, _measure(scan, fitted)
    if record.error_mm <= config.max_error_mm:
        return fitted.head.weights, record
    fresh = config.field.initial(torch.Generator().manual_seed(config.fit.seed + 1))
    long = replace(config, fit=replace(config.fit, steps=config.fit.first_steps))
    alone = replace(setup, base=fresh, config=long, prior=None)
    (refitted,) = _fit_and_repair([scan], alone, lambda steps: None)
    return refitted.head.weights, _measure(scan, refitted)


def _measure(scan: LabelledScan, fitted: FittedHead) -> FitRecord:
    test = LabelBatch.stack([scan.test], fitted.head.weights.device)
    overlap = iou(fitted.head, test.points[0], test.distance[0])
    mesh = None if fitted.mesh is None else to_head_space(fitted.mesh, scan.warp)
    seen = seen_share(scan.mesh)
    if mesh is None:
        return FitRecord(scan.name, scan.digest, overlap, float("inf"), float("inf"), 0, seen_share=seen)
    components = connected_components(mesh)
    error = surface_error(components[0], scan.mesh, rng=np.random.default_rng(0))
    return FitRecord(scan.name, scan.digest, overlap, error.mean_mm, error.p95_mm, len(components), seen_share=seen)


def _not_fitted(record: FitRecord, config: OverfitConfig) -> Skipped:
    reason = (
        f"{record.name}: no fit within {config.max_error_mm} mm, the best has an error of {record.error_mm:.2f} mm; "
        "repair the scan, or raise `max_error_mm`"
    )
    return Skipped(record.name, reason)
