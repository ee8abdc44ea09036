"""Decodes a store: its fits in; a folder of meshes, one a scan under the scan's name, out.

    OUT/<name>.<format>   the mesh, in millimetres
    OUT/decoded.csv       which mesh is which scan's, of which store

Run again, it also removes the meshes of scans whose fits are gone from the store.
"""

import csv
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from overfit.decode_folder import DecodedHead, MeshFormat, decode_to_folder
from overfit.decoder import DecodeConfig
from overfit.runtime.atomic_io import atomic_write
from overfit.runtime.machine import Machine
from overfit.scans.formats import output_names
from overfit.store import Store

TABLE = "decoded.csv"


@dataclass(frozen=True)
class DecodeResult:
    """What a run did."""

    heads: list[DecodedHead]
    """What became of each fit, by name."""
    removed: list[str]
    """Names of scans that are gone from the store, and whose meshes were removed."""


@dataclass(frozen=True)
class _Mesh:
    """A row of the table."""

    file: str
    """Path of the mesh below the folder."""
    scan: str
    """Name of its scan."""
    store: str
    """Absolute path of the store that has its fit."""


def decode_store(
    store: Path | str,
    out: Path | str,
    *,
    config: DecodeConfig = DecodeConfig(),
    mesh_format: MeshFormat = "ply",
    machine: Machine = Machine(),
) -> DecodeResult:
    """Decode every fit of a store into `out`. Raises BadInput if there is no fit, or the store is damaged.

    Args:
        store: The store's folder.
        out: Folder for the meshes. Meshes of other stores in it are left alone.
        config: The grid and which components are kept.
        mesh_format: The format of the files.
        machine: Compute resources.
    """
    store, out = Path(store), Path(out)
    context = machine.start()
    fits = Store(store).read()
    scans = [record.name for record in fits.records]
    named = [(name, fits.head(index)) for index, name in enumerate(output_names(scans))]
    earlier = _read_table(out / TABLE)
    heads = decode_to_folder(named, out, config=config, mesh_format=mesh_format, context=context)
    home = str(store.resolve())
    meshes = [
        _Mesh(head.path.relative_to(out).as_posix(), scan, home)
        for head, scan in zip(heads, scans)
        if head.mesh is not None
    ]
    files = {mesh.file for mesh in meshes}
    others = [mesh for mesh in earlier if mesh.file not in files]
    withdrawn = [mesh for mesh in others if mesh.store == home and mesh.scan not in scans]
    _remove(withdrawn, out)
    _write_table([*meshes, *(mesh for mesh in others if mesh not in withdrawn)], out / TABLE)
    return DecodeResult(heads, sorted({mesh.scan for mesh in withdrawn}))


def _remove(meshes: Collection[_Mesh], out: Path) -> None:
    for mesh in meshes:
        path = out / mesh.file
        # The table may have been edited: nothing outside of the folder is touched.
        if out.resolve() in path.resolve().parents:
            path.unlink(missing_ok=True)


def _read_table(path: Path) -> list[_Mesh]:
    """Return the meshes of an earlier run; none if there is no table, or another program's."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_Mesh(**row) for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def _write_table(meshes: Collection[_Mesh], path: Path) -> None:
    with atomic_write(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(_Mesh)])
        table.writeheader()
        table.writerows(asdict(mesh) for mesh in meshes)
