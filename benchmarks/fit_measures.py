"""What the benchmarks of stage 1 measure: fits and their scans in, errors and midpoints out."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from overfit import (
    AlignedScan,
    AlignmentConfig,
    DecodeConfig,
    Fits,
    HeadSpace,
    LabelBatch,
    NeuralHead,
    OverfitConfig,
    RunContext,
    Scan,
    ScanAlignment,
    align,
    connected_components,
    decode,
    face_normal_error,
    fit_first,
    label_scan,
    read_prepared,
    run_tasks_in_order,
    shared_space,
    surface_error,
)


def align_scans(
    scans: Sequence[Scan], config: OverfitConfig, context: RunContext
) -> tuple[HeadSpace, list[AlignedScan]]:
    """Return the space that scans share and the scans aligned in it, as `overfit` makes them for a new store."""
    alignments = run_tasks_in_order(_align, [(scan, config.alignment) for scan in scans], context)
    space = shared_space(alignments, config)
    return space, [AlignedScan.of(scan, found, space=space) for scan, found in zip(scans, alignments, strict=True)]


def _align(scan: Scan, config: AlignmentConfig) -> ScanAlignment:
    return align(read_prepared(scan).mesh, config)


def first_fit(
    scan: AlignedScan, space: HeadSpace, *, config: OverfitConfig, device: torch.device
) -> Float[torch.Tensor, " P"]:
    """Return the network from which the other fits start, as `overfit` makes it."""
    labels = LabelBatch.stack([label_scan(scan, space, config=config).training], device)
    return fit_first(labels, config).cpu()


def fit_errors(head: NeuralHead, scan: trimesh.Trimesh, *, resolution: int) -> dict[str, float]:
    """Return the errors of a fit's largest component against its scan, and whether there is only one component."""
    components = connected_components(decode(head, DecodeConfig(resolution, keep_all_components=True)))
    error = asdict(surface_error(components[0], scan, rng=np.random.default_rng(0)))
    return {
        **error,
        "face_angle_deg": face_normal_error(components[0], scan),
        "one_component": float(len(components) == 1),
    }


def measure_fit(head: NeuralHead, scan: Scan, resolution: int) -> dict[str, float]:
    """Return the errors of a fit against its scan, as a task for workers."""
    return fit_errors(head, read_prepared(scan).mesh, resolution=resolution)


def midpoint(fits: Fits, a: int, b: int) -> NeuralHead:
    """Return the head of the mean parameters of two fits."""
    return fits.space.head((fits.parameters[a] + fits.parameters[b]) / 2)


def midpoint_errors(
    head: NeuralHead, scans: tuple[trimesh.Trimesh, trimesh.Trimesh], *, resolution: int
) -> dict[str, float] | None:
    """Return the errors of a midpoint of two fits against that of their scans; None without correspondence."""
    one, other = scans
    if one.faces.shape != other.faces.shape or (one.faces != other.faces).any():
        return None
    middle = trimesh.Trimesh((one.vertices + other.vertices) / 2, one.faces, process=False)
    return fit_errors(head, middle, resolution=resolution)


def mean_of(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return the mean of each value over rows."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
