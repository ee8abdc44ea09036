"""The store between the stages: a folder of fitted weights and of what is known about each scan.

    store.json            what all fits share: field, cube, warps, settings, and which prior they start from, if any
    base.safetensors      the first fit, from which all others start
    weights.safetensors   parameters (scans, S), of the warps and the networks, and, in its header, one record per scan;
                          of many scans only the first, the others follow in weights-00001.safetensors and so on
    shards/               batches that are not merged yet, in the same form
    withdrawn.json        SHA-256 of the scans whose fits were removed: models trained on them are trained anew
    scans.csv             the records as a table, and the scans that were skipped with the reason
    prepared/             the heads that `hyperdiffusion overfit` prepared for this store, if it did
    completed/            those that it completed: their scans show little of a head

Every safetensors file carries its own records and appears by a rename, so that a kill leaves only whole files.
"""

import csv
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import filelock
import torch
from jaxtyping import Float

from overfit.canonical.align import AlignmentConfig
from overfit.neural_head import HeadSpace, NeuralHead
from overfit.runtime.atomic_io import atomic_write, remove_unfinished, write_json
from overfit.runtime.errors import BadInput, Skipped
from overfit.runtime.tensor_file import TensorFile, open_tensor_file, write_tensor_file
from overfit.store_v1 import rename_record, rename_settings

# 1: settings and records had other names, see store_v1.py. 2: heads were not warped. 3: networks were ReLU, and warps
# splines, which are no longer read. 4: today's.
VERSION = 4
# Scans in a file of weights, or a batch more. Merging shards holds this many in memory, 150 MB.
SCANS_PER_FILE = 1024
# What one run holds against others. The system releases it when the run ends, however it ends.
LOCK_FILE = ".lock"
# Name of the parameters in a file; those of version 2 were all weights.
TENSOR = "weights"
# The last version whose heads were not warped, and what its settings say about that today.
UNALIGNED_VERSION = 2
UNALIGNED = asdict(AlignmentConfig(align="none"))
# The last version whose networks were all ReLU, and fitted without mixtures.
RELU_VERSION = 3
# What to do about a damaged file of weights.
REFIT = "delete it and run `hyperdiffusion overfit` again"


@dataclass(frozen=True)
class FitRecord:
    """What the store knows about one fitted scan."""

    name: str
    """The scan's name, see `overfit.scans.formats.Scan`."""
    digest: str
    """SHA-256 of the scan file."""
    iou: float
    """Intersection over union on labelled points that were not fitted to."""
    error_mm: float
    """Mean distance between the fit's surface and the scan in millimetres, over both directions."""
    p95_mm: float
    """95th percentile of these distances."""
    components: int
    """Connected components of the fit's surface."""
    folder: str = ""
    """Folder below which the scan's file lies under that name; relative if it is in the store. Empty if unknown."""
    seen_share: float = 1.0
    """Share of the head's area that its scan shows. The rest is invented, and errors do not count there."""


@dataclass(frozen=True)
class Fits:
    """A store's content in memory."""

    space: HeadSpace
    """How a row of parameters is read."""
    parameters: Float[torch.Tensor, "scans S"]
    """The parameters of the fits, float32."""
    records: list[FitRecord]
    """What is known about each fit, in the order of the parameters."""

    @property
    def weights(self) -> Float[torch.Tensor, "scans P"]:
        """The weights of the fits' networks."""
        return self.space.weights(self.parameters)

    def head(self, index: int) -> NeuralHead:
        """Return one fit."""
        return self.space.head(self.parameters[index])


@dataclass(frozen=True)
class _Row:
    """Where a scan's parameters are."""

    path: Path
    """The file of parameters."""
    index: int
    """The row in it."""
    record: FitRecord
    """What is known about the fit."""


class ParameterRows:
    """A store's parameters, left on disk: `rows[indices]` reads those that are asked for, in the order of `records`."""

    def __init__(self, space: HeadSpace, rows: Sequence[_Row]):
        self.space = space
        self.records = [row.record for row in rows]
        self._rows = rows
        self._open: dict[Path, Any] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, indices: torch.Tensor | Sequence[int]) -> Float[torch.Tensor, "B S"]:
        """Return the parameters of some fits. Raises BadInput if they are not finite or their file is damaged."""
        chosen = [self._rows[int(index)] for index in indices]
        parameters = torch.empty(len(chosen), self.space.size)
        for target, row in zip(parameters, chosen):
            target.copy_(torch.from_numpy(self._slice(row.path)[row.index]))
        for row, is_finite in zip(chosen, torch.isfinite(parameters).all(1).tolist()):
            if not is_finite:
                raise BadInput(f"{row.path}: the weights of {row.record.name} are not finite; {REFIT}")
        return parameters

    def _slice(self, path: Path) -> Any:
        """The file's parameters, of which single rows are read."""
        if path not in self._open:
            # As NumPy: its maps are read-only, while those of torch count as memory.
            with open_tensor_file(path, remedy=REFIT, framework="np") as file:
                parameters = file.file.get_slice(TENSOR)
            if parameters.get_shape()[1:] != [self.space.size]:
                raise BadInput(f"{path}: holds other networks than the store's; {REFIT}")
            self._open[path] = parameters
        return self._open[path]


class Store:
    """A store folder. `Store.create` makes one, `Store(folder)` opens one."""

    def __init__(self, folder: Path | str):
        """Open a store of this version or an older one. Raises BadInput if the folder is no store."""
        self.folder = Path(folder)
        content = _read_description(self.folder)
        try:
            self.version: int = content["version"]
            if self.version > VERSION:
                raise BadInput(f"{self.folder}: made by a newer version; update hyperdiffusion")
            self.space = HeadSpace.of(content)
            self.settings: dict[str, Any] = content["settings"]
            self.prior: str = content.get("prior", "")
            if self.version == 1:
                self.settings = rename_settings(self.settings)
            if self.version <= UNALIGNED_VERSION:
                self.settings["alignment"] = UNALIGNED
            if self.version <= RELU_VERSION:
                self.settings["field"]["activation"] = "relu"
                self.settings["fit"]["mixture_weight"] = 0.0
                if self.space.warps.size:
                    raise BadInput(
                        f"{self.folder}: its warps are splines, which are no longer read; "
                        "fit the scans into a new folder"
                    )
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(self.folder, error) from error

    @classmethod
    def create(cls, folder: Path, *, space: HeadSpace, settings: dict[str, Any], prior: str = "") -> "Store":
        """Make an empty store; `prior` tells the model that its fits start from, if there is one, from others."""
        _write_description(folder, space, settings, prior)
        return cls(folder)

    def upgrade(self) -> None:
        """Write the description of an older store in the form of this version, before new fits are added."""
        if self.version < VERSION:
            _write_description(self.folder, self.space, self.settings, self.prior)
            self.version = VERSION

    @property
    def base(self) -> Float[torch.Tensor, " P"] | None:
        """The weights of the first fit, or None if it is not done yet."""
        return _read(self._base_path)[0][0] if self._base_path.exists() else None

    def save_base(self, weights: Float[torch.Tensor, " P"], *, scan: str) -> None:
        """Save the weights of the first fit, and the name of the scan that it was fitted to."""
        metadata: dict[str, Any] = {"records": [], "scan": scan}
        write_tensor_file(self._base_path, {TENSOR: weights[None]}, metadata)

    def add(self, batch: int, parameters: Float[torch.Tensor, "scans S"], records: Sequence[FitRecord]) -> None:
        """Save a batch of fits, as a shard of its own until `merge`."""
        _write(self.folder / "shards" / f"{batch:06d}.safetensors", parameters, records)

    def records(self) -> dict[str, FitRecord]:
        """Return all records by name; a shard's record replaces an older one."""
        return {record.name: record for path in self._files() for record in _read_records(path)}

    def rows(self) -> ParameterRows:
        """Return all fits by name, left on disk. Raises BadInput if there is none, or one is damaged."""
        rows = {
            record.name: _Row(path, index, record)
            for path in self._files()
            for index, record in enumerate(_read_records(path))
        }
        if not rows:
            raise BadInput(f"{self.folder}: no fits in it; run `hyperdiffusion overfit` to the end")
        return ParameterRows(self.space, [rows[name] for name in sorted(rows)])

    def read(self) -> Fits:
        """Return all fits by name, in memory. Raises BadInput as `rows` does."""
        rows = self.rows()
        return Fits(self.space, rows[range(len(rows))], rows.records)

    def merge(self) -> None:
        """Merge the shards into files of weights. A kill between its steps loses nothing: names decide."""
        shards = self._shards()
        if not shards:
            return
        parts = self._parts()
        number, rows = len(parts), {}
        if parts and len(_read_records(parts[-1])) < SCANS_PER_FILE:
            number, rows = number - 1, _read_by_name(parts[-1])
        for shard in shards:
            rows |= _read_by_name(shard)
            if len(rows) >= SCANS_PER_FILE or shard == shards[-1]:
                parameters, records = zip(*rows.values())
                _write(self._part(number), torch.stack(parameters), list(records))
                number, rows = number + 1, {}
        for shard in shards:
            shard.unlink()

    def folder_name(self, folder: Path) -> str:
        """Return how records name a folder of scans."""
        inner, outer = folder.resolve(), self.folder.resolve()
        return inner.relative_to(outer).as_posix() if outer in inner.parents else str(inner)

    def remove(self, names: Collection[str]) -> None:
        """Remove fits. If the first fit is of one of them, the mean of the others takes its place.

        A kill between its steps leaves fits that the next call removes.
        """
        self.merge()
        digests = {record.digest for record in self.records().values() if record.name in names}
        write_json(self._withdrawn_path, sorted(self._all_withdrawn() | digests))
        if self._base_path.exists() and self._base_scan in names:
            self._replace_base([record for record in self.records() if record not in names])
        for path in self._parts():
            parameters, records = _read(path)
            kept = [index for index, record in enumerate(records) if record.name not in names]
            # A file without fits stays: the others keep their numbers.
            if len(kept) < len(records):
                _write(path, parameters[kept], [records[index] for index in kept])

    def withdrawn(self) -> frozenset[str]:
        """Return the SHA-256 of the scans whose fits were removed, and which have not come back."""
        return frozenset(self._all_withdrawn() - {record.digest for record in self.records().values()})

    def _all_withdrawn(self) -> set[str]:
        try:
            return set(json.loads(self._withdrawn_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return set()
        except (ValueError, TypeError) as error:
            raise BadInput(f"{self._withdrawn_path}: damaged ({error}); restore it, or delete it") from error

    def _replace_base(self, names: Sequence[str]) -> None:
        """Make the mean of some fits the first fit: all lie in one basin, so that it is a head as they are."""
        if not names:
            self._base_path.unlink()
            return
        rows = self.rows()
        chosen = set(names)
        total = torch.zeros(self.space.size, dtype=torch.float64)
        for index, record in enumerate(rows.records):
            if record.name in chosen:
                total += rows[[index]][0]
        self.save_base(self.space.weights((total / len(names)).float()), scan="")

    def report(self, skipped: Sequence[Skipped]) -> None:
        """Write scans.csv: the records, then the skipped scans with the reason."""
        with atomic_write(self.folder / "scans.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow([field.name for field in fields(FitRecord)] + ["skipped"])
            table.writerows([*asdict(record).values(), ""] for _, record in sorted(self.records().items()))
            blanks = [""] * (len(fields(FitRecord)) - 1)
            table.writerows([one.name, *blanks, one.reason] for one in sorted(skipped, key=lambda one: one.name))

    @property
    def _withdrawn_path(self) -> Path:
        return self.folder / "withdrawn.json"

    @property
    def _base_path(self) -> Path:
        return self.folder / "base.safetensors"

    @property
    def _base_scan(self) -> str:
        """Name of the scan of the first fit; empty if it is not known."""
        with open_tensor_file(self._base_path, remedy=REFIT, framework="np") as file:
            return str(file.metadata.get("scan", ""))

    def _files(self) -> list[Path]:
        """All files of weights; if two hold the same scan, the later one is valid."""
        return [*self._parts(), *self._shards()]

    def _shards(self) -> list[Path]:
        return sorted((self.folder / "shards").glob("*.safetensors"))

    def _parts(self) -> list[Path]:
        paths = [self._part(number) for number in range(1 + len(list(self.folder.glob("weights-*.safetensors"))))]
        return [path for path in paths if path.exists()]

    def _part(self, number: int) -> Path:
        return self.folder / (f"weights-{number:05d}.safetensors" if number else "weights.safetensors")

    @staticmethod
    @contextmanager
    def locked(folder: Path) -> Iterator[None]:
        """Hold a store's folder against other runs, and make it if it is missing.

        Raises BadInput if another run holds it. A folder that is still empty at the end is removed.
        """
        require_store_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK_FILE, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise BadInput(f"{folder}: in use by another run; wait until it ends, or give another store") from error
        try:
            remove_unfinished(folder)
            yield
        finally:
            lock.release()
            if {path.name for path in folder.iterdir()} <= {LOCK_FILE}:
                (folder / LOCK_FILE).unlink(missing_ok=True)
                folder.rmdir()


def require_store_folder(folder: Path) -> None:
    """Raise BadInput if a store's folder is a file."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: a file where a store folder is expected; give the folder of a store")


def _read_description(folder: Path) -> dict[str, Any]:
    require_store_folder(folder)
    path = folder / "store.json"
    if not path.is_file():
        raise BadInput(f"{folder}: not a store; make one with `hyperdiffusion overfit SCANS {folder}`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(folder, error) from error
    if not isinstance(content, dict):
        raise _damaged(folder, "not a description of a store")
    return content


def _damaged(folder: Path, reason: Exception | str) -> BadInput:
    return BadInput(f"{folder / 'store.json'}: damaged ({reason}); restore it, or fit into a new folder")


def _write_description(folder: Path, space: HeadSpace, settings: dict[str, Any], prior: str) -> None:
    description = {"version": VERSION, **asdict(space), "settings": settings}
    write_json(folder / "store.json", description | ({"prior": prior} if prior else {}))


def _write(path: Path, parameters: torch.Tensor, records: Sequence[FitRecord]) -> None:
    write_tensor_file(path, {TENSOR: parameters}, {"records": [asdict(record) for record in records]})


def _read(path: Path) -> tuple[torch.Tensor, list[FitRecord]]:
    with open_tensor_file(path, remedy=REFIT) as file:
        return file.file.get_tensor(TENSOR), _records(file)


def _read_by_name(path: Path) -> dict[str, tuple[torch.Tensor, FitRecord]]:
    return {record.name: (row, record) for row, record in zip(*_read(path))}


def _read_records(path: Path) -> list[FitRecord]:
    with open_tensor_file(path, remedy=REFIT, framework="np") as file:
        return _records(file)


def _records(file: TensorFile) -> list[FitRecord]:
    return [FitRecord(**rename_record(record)) for record in file.metadata["records"]]
