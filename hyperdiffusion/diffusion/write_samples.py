"""Samples on disk: a checkpoint and a seed in; mesh files and a picture of the first heads out.

Heads are sampled and decoded in chunks, so that memory does not grow with their number.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import trimesh

from hyperdiffusion.diffusion.attributes import Request
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.expression_plane import ExpressionPlane
from hyperdiffusion.diffusion.generate import SamplingConfig, sample_heads
from hyperdiffusion.rendering.contact_sheet import write_contact_sheet
from overfit.decode_folder import DecodedHead, MeshFormat, decode_to_folder
from overfit.decoder import DecodeConfig
from overfit.neural_head import NeuralHead
from overfit.runtime.errors import BadInput, require_at_least
from overfit.runtime.machine import RunContext

# Heads in the picture, and in each of its rows.
PICTURED = 16
PER_ROW = 4
PLANE_LABEL = "valence from left to right, arousal from bottom to top, each from -1 to 1"
# Heads that are sampled, decoded and released together.
CHUNK = 256
# Bytes of a head's PLY at 256^3, the median of the shipped model's; a surface grows with the square of the resolution.
BYTES_PER_HEAD = 4_500_000
BYTES_AT_RESOLUTION = 256


@dataclass(frozen=True)
class WrittenHeads:
    """Mesh files that were written."""

    written: int
    """Number of files."""
    failures: list[DecodedHead]
    """Heads without a surface, with the reason."""


def write_samples(
    checkpoint: Checkpoint,
    out: Path,
    *,
    count: int = 16,
    seed: int = 0,
    sampling: SamplingConfig = SamplingConfig(),
    decoding: DecodeConfig = DecodeConfig(),
    mesh_format: MeshFormat = "ply",
    repair: bool = True,
    attributes: Request | None = None,
    context: RunContext = RunContext(),
) -> WrittenHeads:
    """Write heads 0 to count - 1 of a seed as `sample_SEED_NUMBER` and a picture of the first, heads.png.

    `attributes` are values that all heads have, see `sample`.
    Raises BadInput if a setting makes no sense, the disk is too small, or no head has a surface.
    """
    require_at_least(1, count=count)
    require_at_least(0, seed=seed)
    _check_disk(out, count, decoding.resolution)

    chunks = (
        sample_heads(
            checkpoint, min(CHUNK, count - first), seed=seed, first=first, config=sampling, attributes=attributes
        )
        for first in range(0, count, CHUNK)
    )
    decode = partial(
        decode_to_folder, out=out, config=decoding, mesh_format=mesh_format, repair=repair, context=context
    )
    return _write(chunks, decode, out / "heads.png", "generated heads", PER_ROW)


def write_between(
    checkpoint: Checkpoint,
    parameters: torch.Tensor,
    out: Path,
    *,
    name: str,
    decoding: DecodeConfig = DecodeConfig(),
    mesh_format: MeshFormat = "ply",
    context: RunContext = RunContext(),
) -> WrittenHeads:
    """Write heads (heads, S), such as those between two heads, as `NAME_NUMBER` and a picture of them, NAME.png.

    Raises BadInput if none of them has a surface.
    """
    named = [(f"{name}_{index:03d}", checkpoint.head(row)) for index, row in enumerate(parameters)]
    decode = partial(decode_to_folder, out=out, config=decoding, mesh_format=mesh_format, context=context)
    return _write(iter([named]), decode, out / f"{name}.png", "", len(named))


def write_plane(
    checkpoint: Checkpoint,
    plane: ExpressionPlane,
    out: Path,
    *,
    decoding: DecodeConfig = DecodeConfig(),
    mesh_format: MeshFormat = "ply",
    context: RunContext = RunContext(),
) -> WrittenHeads:
    """Write the heads of a plane as `valence_V_arousal_A`, and a picture with arousal upwards, plane.png.

    Raises BadInput if none of them has a surface.
    """
    named = [
        (f"valence_{valence:+.2f}_arousal_{arousal:+.2f}", checkpoint.head(row))
        for (valence, arousal), row in zip(plane.positions.tolist(), plane.parameters)
    ]
    decode = partial(decode_to_folder, out=out, config=decoding, mesh_format=mesh_format, context=context)
    size = round(len(named) ** 0.5)
    return _write(iter([named]), decode, out / "plane.png", PLANE_LABEL, size, pictured_heads=len(named))


def _write(
    chunks: Iterator[list[tuple[str, NeuralHead]]],
    decode: Callable[[list[tuple[str, NeuralHead]]], list[DecodedHead]],
    picture: Path,
    title: str,
    per_row: int,
    pictured_heads: int = PICTURED,
) -> WrittenHeads:
    pictured: list[trimesh.Trimesh] = []
    failures: list[DecodedHead] = []
    written = 0
    for named in chunks:
        for head in decode(named):
            if head.mesh is None:
                failures.append(head)
                continue
            written += 1
            if len(pictured) < max(pictured_heads, per_row):
                pictured.append(head.mesh)
    if not written:
        raise BadInput(f"{picture.parent}: no head has a surface; the first: {failures[0].failure}")
    rows = [pictured[start : start + per_row] for start in range(0, len(pictured), per_row)]
    write_contact_sheet([(title if index == 0 else "", row) for index, row in enumerate(rows)], picture)
    return WrittenHeads(written, failures)


def _check_disk(out: Path, count: int, resolution: int) -> None:
    """Raise BadInput if the meshes would not fit on the disk: better now than after hours."""
    needed = count * BYTES_PER_HEAD * (resolution / BYTES_AT_RESOLUTION) ** 2
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(
            f"`count={count}`: the meshes would take about {needed / 1e9:,.1f} GB, and {folder} has "
            f"{free / 1e9:,.1f} GB free; take fewer heads, or a lower `resolution`"
        )
