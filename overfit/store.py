"""The store between the stages: a folder of fitted weights and of what is known about each scan.

    store.json            what all fits share: field, cube, settings; written once
    base.safetensors      the first fit, from which all others start
    weights.safetensors   weights (scans, P) and, in its header, one record a scan; of many scans only the first, the
                          others lie in weights-00001.safetensors and on
    shards/               batches not yet merged into it, of the same form
    scans.csv             the records as a table, and the scans that were set aside with the reason

Every safetensors file carries its own records and appears by a rename, so that a kill leaves whole files only.
"""

import csv
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .cube import Cube
from .errors import BadInput
from .field import Field
from .files import replacing, save_tensors

VERSION = 1
# Scans in a file of weights, or a batch more: what gathering shards holds in memory, 150 MB.
PART = 1024


@dataclass(frozen=True)
class Record:
    """What the store knows of one fitted scan."""

    # The scan's name, see scans.Scan.
    name: str
    # SHA-256 of the scan file.
    digest: str
    # Intersection over union on held-out labelled points.
    iou: float
    # Mean two-way surface error and its 95th percentile in millimetres.
    error_mm: float
    p95_mm: float
    # Closed bodies that the network decodes to, islands counted.
    bodies: int


@dataclass(frozen=True)
class Fits:
    """A store's content in memory."""

    field: Field
    cube: Cube
    # (scans, P) float32.
    weights: torch.Tensor
    records: list[Record]


class Rows:
    """A store's weights, left on disk: `rows[indices]` reads those (B, P) that are asked for, in `records`' order."""

    def __init__(self, field: Field, cube: Cube, places: list[tuple[Path, int, Record]]):
        self.field, self.cube, self.records = field, cube, [record for _, _, record in places]
        self._places = [(path, row) for path, row, _ in places]
        self._open: dict[Path, Any] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Weights (B, P). Raises BadInput where they are not finite, or their file is damaged."""
        made = torch.empty(len(indices), self.field.size)
        for place, index in enumerate(map(int, indices)):
            path, row = self._places[index]
            if path not in self._open:
                # As NumPy, whose maps are read-only: those of torch count as memory.
                with _opened(path, "np") as file:
                    self._open[path] = file.get_slice("weights")
                if self._open[path].get_shape()[1:] != [self.field.size]:
                    raise BadInput(f"{path}: holds networks of another kind than the store's; delete it and run "
                                   "`hyperdiffusion overfit` again")
            made[place] = torch.from_numpy(self._open[path][row])
        finite = torch.isfinite(made).all(1)
        if not finite.all():
            index = int(indices[int((~finite).nonzero()[0])])
            raise BadInput(f"{self._places[index][0]}: the weights of {self.records[index].name} are not finite; "
                           "delete the file and run `hyperdiffusion overfit` again")
        return made


class Store:
    """A store folder. `Store.create` makes one, `Store(folder)` opens one."""

    def __init__(self, folder: Path):
        """Raises BadInput where the folder is no store."""
        self.folder = folder
        try:
            self.about = json.loads((folder / "store.json").read_text())
            if self.about["version"] > VERSION:
                raise BadInput(f"{folder}: made by a newer version; update hyperdiffusion")
            self.field, self.cube = Field.of(self.about["field"]), Cube.of(self.about["cube"])
            self.settings = self.about["settings"]
        except FileNotFoundError as error:
            raise BadInput(f"{folder}: no store; make one with `hyperdiffusion overfit SCANS {folder}`") from error
        except (json.JSONDecodeError, KeyError, TypeError, NotADirectoryError) as error:
            raise BadInput(f"{folder}/store.json: damaged ({error}); restore it, or fit into a new folder") from error

    @classmethod
    def create(cls, folder: Path, field: Field, cube: Cube, settings: dict) -> "Store":
        """Make an empty store."""
        about = {"version": VERSION, "field": asdict(field), "cube": asdict(cube), "settings": settings}
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "store.json") as path:
            path.write_text(json.dumps(about, indent=1))
        return cls(folder)

    @property
    def base(self) -> torch.Tensor | None:
        """Weights (P,) of the first fit, or None before it."""
        path = self.folder / "base.safetensors"
        return _read(path)[0][0] if path.exists() else None

    def save_base(self, weights: torch.Tensor) -> None:
        """Keep the weights (P,) of the first fit."""
        _write(self.folder / "base.safetensors", weights[None], [])

    def add(self, batch: int, weights: torch.Tensor, records: list[Record]) -> None:
        """Keep a batch of fits (scans, P), until `merge` as a shard of its own."""
        _write(self.folder / "shards" / f"{batch:06d}.safetensors", weights, records)

    def records(self) -> dict[str, Record]:
        """All records by name; a shard's wins over an older one."""
        return {record.name: record for path in self._files() for record in _records(path)}

    def rows(self) -> Rows:
        """All fits by name, their weights left on disk. Raises BadInput where a file is damaged or there is none."""
        places = {record.name: (path, row, record) for path in self._files()
                  for row, record in enumerate(_records(path))}
        if not places:
            raise BadInput(f"{self.folder}: no fits in it; run `hyperdiffusion overfit` to the end")
        return Rows(self.field, self.cube, [places[name] for name in sorted(places)])

    def read(self) -> Fits:
        """All fits, by name, in memory. Raises BadInput as `rows` does."""
        rows = self.rows()
        return Fits(self.field, self.cube, rows[range(len(rows))], rows.records)

    def merge(self) -> None:
        """Gather the shards into files of weights. A kill between its steps costs nothing: names decide."""
        shards = sorted((self.folder / "shards").glob("*.safetensors"))
        if not shards:
            return
        parts = self._parts()
        number, rows = len(parts), {}
        if parts and len(_records(parts[-1])) < PART:
            number, rows = number - 1, _named(parts[-1])
        for shard in shards:
            rows |= _named(shard)
            if len(rows) >= PART or shard == shards[-1]:
                weights, records = zip(*rows.values())
                _write(self._part(number), torch.stack(weights), list(records))
                number, rows = number + 1, {}
        for shard in shards:
            shard.unlink()

    def report(self, set_aside: dict[str, str]) -> None:
        """Write scans.csv: the records, then the scans set aside by name with the reason."""
        with replacing(self.folder / "scans.csv") as path, open(path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow([field.name for field in fields(Record)] + ["set_aside"])
            table.writerows([*asdict(record).values(), ""] for _, record in sorted(self.records().items()))
            blanks = [""] * (len(fields(Record)) - 1)
            table.writerows([name, *blanks, reason] for name, reason in sorted(set_aside.items()))

    def _files(self) -> list[Path]:
        """All files of weights; where two hold a scan, the later one's is valid."""
        return [*self._parts(), *sorted((self.folder / "shards").glob("*.safetensors"))]

    def _parts(self) -> list[Path]:
        paths = [self._part(number) for number in range(1 + len(list(self.folder.glob("weights-*.safetensors"))))]
        return [path for path in paths if path.exists()]

    def _part(self, number: int) -> Path:
        return self.folder / (f"weights-{number:05d}.safetensors" if number else "weights.safetensors")

    @staticmethod
    @contextmanager
    def locked(folder: Path) -> Iterator[None]:
        """Hold a store's folder, made where there is none, against other runs; a killed run holds nothing.

        Raises BadInput where another run holds it. A folder that is still empty in the end is removed.
        """
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"{folder}: a file, where the store's folder should be; give another name")
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for unfinished in folder.rglob(".*.part"):
                unfinished.unlink()
            yield
        except BlockingIOError as error:
            raise BadInput(f"{folder}: another run fits into it; wait, or take another store") from error
        finally:
            os.close(held)
            if not any(folder.iterdir()):
                folder.rmdir()


def _write(path: Path, weights: torch.Tensor, records: list[Record]) -> None:
    header = {"records": json.dumps([asdict(record) for record in records])}
    path.parent.mkdir(exist_ok=True)
    save_tensors(path, {"weights": weights}, header)


def _read(path: Path) -> tuple[torch.Tensor, list[Record]]:
    with _opened(path) as file:
        return file.get_tensor("weights"), _parse(file)


def _named(path: Path) -> dict[str, tuple[torch.Tensor, Record]]:
    return {record.name: (row, record) for row, record in zip(*_read(path))}


def _records(path: Path) -> list[Record]:
    with _opened(path, "np") as file:
        return _parse(file)


def _parse(file) -> list[Record]:
    return [Record(**record) for record in json.loads(file.metadata()["records"])]


@contextmanager
def _opened(path: Path, framework: str = "pt") -> Iterator:
    try:
        with safe_open(path, framework) as file:
            yield file
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: damaged ({error}); delete it and run `hyperdiffusion overfit` again") from error
