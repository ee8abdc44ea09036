"""Decodes many heads into a folder: named neural heads in, one mesh file each and a result each out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trimesh

from overfit.decoder import NO_SURFACE, DecodeConfig, decode_canonical, to_head_space
from overfit.geometry.mesh import largest_component
from overfit.neural_head import NeuralHead
from overfit.repair import repair_sample
from overfit.runtime.atomic_io import atomic_write
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks_in_order

MeshFormat = Literal["ply", "obj", "stl", "glb"]
# Starting a worker takes as long as decoding a few heads.
MIN_HEADS_PER_WORKER = 3


@dataclass(frozen=True)
class DecodedHead:
    """What became of one head."""

    name: str
    """The head's name."""
    path: Path
    """Where its mesh is, or would be."""
    mesh: trimesh.Trimesh | None
    """The mesh in millimetres; None if the head has no surface."""
    failure: str = ""
    """Why there is no mesh; empty if there is one."""


def decode_to_folder(
    heads: Iterable[tuple[str, NeuralHead]],
    out: Path,
    *,
    config: DecodeConfig,
    mesh_format: MeshFormat = "ply",
    repair: bool = False,
    context: RunContext,
) -> list[DecodedHead]:
    """Decode each head into `out`, in the file of its name. The results come in the order of the heads.

    Heads are decoded on CPU by all cores, with a GPU too: the network is the smallest part of the work.

    Args:
        heads: Names and heads; a name may contain folders.
        out: The folder, made if it is missing.
        config: The grid and which components are kept.
        mesh_format: The format of the files.
        repair: Bring heads of several components to one before the others are dropped.
        context: The cores to use and whether to show progress.
    """
    tasks = [(name, head.cpu(), out / f"{name}.{mesh_format}", config, repair) for name, head in heads]
    with context.progress(len(tasks), "decoding", "head") as bar:
        return run_tasks_in_order(_decode_to_file, tasks, context, min_tasks_per_worker=MIN_HEADS_PER_WORKER, bar=bar)


def _decode_to_file(name: str, head: NeuralHead, path: Path, config: DecodeConfig, repair: bool) -> DecodedHead:
    canonical = decode_canonical(head, config.resolution)
    if canonical is not None and repair:
        canonical = repair_sample(head, canonical, resolution=config.resolution)
    mesh = None if canonical is None else to_head_space(canonical, head.warp)
    if mesh is None:
        return DecodedHead(name, path, None, NO_SURFACE)
    if not config.keep_all_components:
        mesh = largest_component(mesh)
    with atomic_write(path) as unfinished:
        mesh.export(unfinished, file_type=path.suffix[1:])
    return DecodedHead(name, path, mesh)
