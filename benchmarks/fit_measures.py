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
    Cube,
    DecodeConfig,
    HeadSpace,
    LabelBatch,
    NeuralHead,
    OverfitConfig,
    RunContext,
    Scan,
    ScanAlignment,
    WarpSpace,
    align,
    connected_components,
    decode,
    face_normal_error,
    fit_first,
    label_scan,
    read_prepared,
    run_tasks_in_order,
    surface_error,
)
from overfit.canonical.align import control_points
from overfit.fit_scans import NewScan


def align_scans(
    scans: Sequence[Scan], config: OverfitConfig, context: RunContext
) -> tuple[HeadSpace, list[AlignedScan]]:
    """Return the space that scans share and the scans aligned in it, as `overfit` makes them for a new store."""
    alignments = run_tasks_in_order(_align, [(scan, config.alignment) for scan in scans], context)
    cube = Cube.around(np.stack([alignment.bounds for alignment in alignments]), config.margin)
    in_planes = np.mean([alignment.ends_in_plane for alignment in alignments]) > 1 / 2
    warps = WarpSpace(control_points(config.alignment), bool(in_planes) and config.alignment.align != "none")
    space = HeadSpace(config.field, cube, warps)
    return space, [NewScan(scan, np.inf, found).in_space(space) for scan, found in zip(scans, alignments, strict=True)]


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
