"""What the benchmarks of stage 1 measure: fits and their scans in, errors and midpoints out."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from overfit import (
    Cube,
    DecodeConfig,
    LabelBatch,
    NeuralHead,
    OverfitConfig,
    Scan,
    connected_components,
    decode,
    face_normal_error,
    fit_first,
    label_scan,
    surface_error,
)


def first_fit(scan: Scan, cube: Cube, *, config: OverfitConfig, device: torch.device) -> Float[torch.Tensor, " P"]:
    """Return the network from which the other fits start, as `overfit` makes it."""
    labels = LabelBatch.stack([label_scan(scan, cube, config=config).training], device)
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
