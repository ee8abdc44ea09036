"""Prepares one raw scan: a file in any pose and unit in, a closed head in the canonical frame and a report out.

read -> clean -> register on the template -> cut to the head -> close. A scan that shows no head, or cannot be aligned,
gives no mesh but a reason.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import trimesh

from overfit.geometry.mesh import largest_component, sample_surface
from overfit.geometry.point_cloud import PointCloud
from overfit.geometry.rays import seen_from_outside
from overfit.geometry.similarity import Similarity
from overfit.runtime.errors import BadInput
from overfit.scans.clean import CleanedSurface, clean
from overfit.scans.formats import RawScan, Scan, digest_if_readable, load_raw, read_prepared
from overfit.scans.preparation_report import PreparationReport
from overfit.scans.raw_surface import Surface
from overfit.scans.scan_alignment import Alignment, align_scan, misalignment, shows_another_head
from overfit.scans.seen_share import seen_share
from overfit.scans.surface_match import SurfaceMatch, match_surfaces
from overfit.scans.surface_reconstruction import reconstruct_surface
from overfit.scans.template import Template
from overfit.scans.units import Unit

# Points of a scan that registration draws from.
SAMPLE_POINTS = 20_000
# Fewer points have no volume.
MIN_SAMPLE_POINTS = 4
# Smallest variance of a scan's coordinates, in any unit squared; below it, all points coincide.
MIN_VARIANCE = 1e-12
# Largest such variance; above it, coordinates are damaged, and their squares may overflow.
MAX_VARIANCE = 1e18
# Smallest ratio of a scan's thickness to its length; below it, the scan is flat.
MIN_THICKNESS = 0.01

# Collars are what is below this share of the template's height ...
COLLAR_HEIGHT = 0.3
# ... and farther than this (mm) from its surface.
COLLAR_DISTANCE_MM = 25.0
# Largest mean distance in mm of the scan to the closed head, ...
MAX_SCAN_MM = 1.0
# ... and largest 95th percentile.
MAX_SCAN_P95_MM = 4.0
# A smaller share of a scan that lies apart from its head is not worth a remark.
MIN_SHARE_TOLD = 0.01
# Smallest volume of a closed face mask or head, in litres.
MIN_HEAD_LITRES = 0.2
MM3_PER_LITRE = 1e6
# Longest part of an unexpected error that is repeated: the reason stays one line.
MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class PreparationConfig:
    """How raw scans become heads."""

    unit: Unit = "auto"
    """Unit of the files; auto finds it from the size of a human head, and any other scale from the template."""
    keep_scale: bool = False
    """Trust the unit: never change a scan's size."""
    template: Path | None = None
    """Mesh of a head in the canonical frame on which scans are registered; by default the mean of the plain heads."""


@dataclass(frozen=True)
class Preparation:
    """What preparing a scan gave."""

    report: PreparationReport
    """What was found and done."""
    raw: Surface | None
    """The scan as it was read, or None if it could not be."""
    head: trimesh.Trimesh | None
    """The closed head in millimetres in the canonical frame, or None if the scan was skipped."""


@dataclass
class Steps:
    """The steps that a scan came through, as far as it came."""

    raw: RawScan | None = None
    """What was read."""
    cleaned: CleanedSurface | None = None
    """The same without noise."""
    alignment: Alignment | None = None
    """How it is brought to the canonical frame."""
    other_head: bool = False
    """Whether it shows another head too."""
    aligned: Surface | None = None
    """What it shows of the head, in the canonical frame in millimetres."""
    seen_share: float | None = None
    """Share of a head's surface that it shows."""
    match: SurfaceMatch | None = None
    """How the closed head lies to it."""
    skipped: str = ""
    """Why it came no further; empty if it came through all steps."""


def prepare(scan: Scan, config: PreparationConfig = PreparationConfig()) -> Preparation:
    """Return a scan's closed head in the canonical frame, or the reason why there is none.

    Raises nothing for a scan that cannot be prepared, whatever happens: it must not end hours of work on others.
    """
    steps = Steps()
    head: trimesh.Trimesh | None = None
    with reported(scan, steps):
        aligned = align_raw(scan, config, steps)
        box = load_template(config.template).head_box
        closed = reconstruct_surface(aligned, box)
        largest = _extract_head(closed)
        steps.match = match_surfaces(aligned, largest, closed=closed, box=box)
        if reason := _mismatch(steps.match):
            raise BadInput(reason)
        head = largest
    return Preparation(_report(scan, steps), None if steps.raw is None else steps.raw.surface, head)


@contextmanager
def reported(scan: Scan, steps: Steps) -> Iterator[None]:
    """Turn whatever ends the work on a scan into the reason why it is skipped."""
    # Damaged coordinates may overflow before they are found to be damaged.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        try:
            yield
        except BadInput as error:
            # A capture's reader knows its folder alone, not the path below the scans.
            reason = str(error).removeprefix(f"{scan.name}: ").removeprefix(f"{scan.path.name}: ")
            steps.skipped = f"{scan.name}: {reason}"
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_LENGTH]
            steps.skipped = f"{scan.name}: cannot be prepared ({reason}); repair or export it again"


def align_raw(scan: Scan, config: PreparationConfig, steps: Steps) -> Surface:
    """Return what a scan shows of a head, in the canonical frame with all its holes, and note the steps.

    Raises BadInput if it shows no head, or cannot be aligned.
    """
    steps.raw = load_raw(scan)
    steps.cleaned = clean(steps.raw.surface)
    sample = sample_seen(steps.cleaned.surface)
    template = load_template(config.template)
    unit = steps.raw.content.unit if config.unit == "auto" else config.unit
    steps.alignment = align_scan(sample, template, unit=unit or "auto", keep_scale=config.keep_scale)
    if reason := misalignment(steps.alignment.registration):
        raise BadInput(reason)
    steps.other_head = shows_another_head(sample, steps.alignment, template)
    steps.aligned = _without_collar(_transformed(steps.cleaned.surface, steps.alignment.similarity), template)
    steps.seen_share = round(seen_share(steps.aligned, template), 3)
    return steps.aligned


@cache
def load_template(path: Path | None) -> Template:
    """Return the template in a file, or the mean of the plain heads. Raises BadInput if the file holds no head."""
    return Template.standard() if path is None else Template(read_prepared(Scan(str(path), path)).mesh)


def _report(scan: Scan, steps: Steps) -> PreparationReport:
    """Return the report on a scan from the steps that it came through."""
    raw, cleaned, alignment, match = steps.raw, steps.cleaned, steps.alignment, steps.match
    surface = None if raw is None else raw.surface
    statistics = None if cleaned is None else cleaned.statistics
    registration = None if alignment is None else alignment.registration
    return PreparationReport(
        name=scan.name,
        digest=digest_if_readable(scan) if raw is None else raw.digest,
        kind=None if surface is None else "points" if isinstance(surface, PointCloud) else "mesh",
        count=None if surface is None else _count(surface),
        components=None if statistics is None else statistics.components,
        holes=None if statistics is None else statistics.holes,
        noise_share=None if statistics is None else statistics.noise_share,
        scale=None if alignment is None else alignment.similarity.scale,
        rotation_degrees=None if alignment is None else alignment.rotation_degrees,
        residual_mm=None if registration is None else registration.residual_mm,
        face_mm=None if registration is None else registration.face_mm,
        relief=None if registration is None else registration.relief,
        width_mm=None if registration is None else registration.width_mm,
        size="doubtful" if alignment is not None and alignment.size_is_doubtful else "",
        seen_share=steps.seen_share,
        other_head=steps.other_head,
        scan_mm=None if match is None else match.scan_mm,
        scan_p95_mm=None if match is None else match.scan_p95_mm,
        head_mm=None if match is None else match.head_mm,
        remarks="; ".join(
            (
                *(() if raw is None else raw.content.remarks),
                *(() if statistics is None else statistics.remarks),
                *(() if match is None else _remarks(match)),
            )
        ),
        skipped=steps.skipped,
    )


def _count(surface: Surface) -> int:
    return len(surface.points) if isinstance(surface, PointCloud) else len(surface.faces)


def sample_seen(surface: Surface, count: int = SAMPLE_POINTS) -> PointCloud:
    """Return random points of what is seen of a surface, with normals. Raises BadInput if they have no volume."""
    rng = np.random.default_rng(0)
    if isinstance(surface, PointCloud):
        sample = surface[rng.permutation(len(surface.points))[:count]]
    else:
        sample = PointCloud(*sample_surface(surface, count, rng=rng))
        # What cannot be seen, such as a mouth's inside, has no counterpart on the template.
        seen = seen_from_outside(surface, sample.points, sample.known_normals)
        sample = sample[seen] if seen.any() else sample
    _check_volume(sample.points)
    return sample


def _check_volume(points: np.ndarray) -> None:
    """Raise BadInput if points (n, 3) coincide, lie on a line or in a plane, or are too large to be squared."""
    if len(points) < MIN_SAMPLE_POINTS:
        raise BadInput("nothing is left of it without noise; export the scan again")
    with np.errstate(over="ignore", invalid="ignore"):
        variances = np.linalg.eigvalsh(np.nan_to_num(np.cov(points.T)))
    if not MIN_VARIANCE < variances[-1] < MAX_VARIANCE or variances[0] < MIN_THICKNESS**2 * variances[-1]:
        raise BadInput("its points lie in one place or in a plane; export the scan again")


def _remarks(match: SurfaceMatch) -> tuple[str, ...]:
    if match.share_apart < MIN_SHARE_TOLD:
        return ()
    return (f"{match.share_apart:.0%} of it lies apart from the head and is left out",)


def _mismatch(match: SurfaceMatch) -> str:
    """Return why a closed head is not the scan's, or an empty string if it is."""
    if match.scan_mm > MAX_SCAN_MM or match.scan_p95_mm > MAX_SCAN_P95_MM:
        return (
            f"cannot be closed: the head lies {match.scan_mm:.1f} mm off the scan, {match.scan_p95_mm:.1f} mm at the "
            "95th percentile; make its triangles face outwards, once each"
        )
    return ""


def _transformed(surface: Surface, similarity: Similarity) -> Surface:
    if isinstance(surface, PointCloud):
        return similarity.transform_cloud(surface)
    return trimesh.Trimesh(similarity(surface.vertices), surface.faces, process=False)


def _extract_head(closed: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return the head in a closed surface. Raises BadInput if it encloses less than a head."""
    head = largest_component(closed)
    if head.volume < MIN_HEAD_LITRES * MM3_PER_LITRE:
        raise BadInput(f"encloses {head.volume / MM3_PER_LITRE:.2f} litres, no head; scan more of it")
    return head


def _without_collar(surface: Surface, template: Template) -> Surface:
    """Return an aligned surface without what is low and far off the template."""
    if isinstance(surface, PointCloud):
        return surface[_near_head(surface.points, template)]
    part = surface.copy()
    part.update_faces(_near_head(part.triangles_center, template))
    if not len(part.faces):
        raise BadInput("nothing of it lies where a head should be; scan the head too")
    return part


def _near_head(points: np.ndarray, template: Template) -> np.ndarray:
    """Return whether each point (n, 3) is too high or too close to the template for a collar."""
    low, high = template.mesh.bounds[:, 1]
    return (points[:, 1] > low + COLLAR_HEIGHT * (high - low)) | (template.tree.query(points)[0] < COLLAR_DISTANCE_MM)
