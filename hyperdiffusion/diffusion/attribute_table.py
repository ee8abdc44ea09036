"""Reads what is known of heads: a CSV file and the names of heads in; attributes and their values (heads, n) out."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.attributes import Attribute, Attributes, Categorical, Numeric
from overfit.runtime.errors import BadInput
from overfit.store import Store

# What stands for a value that is not known, in lower case. Words such as none are levels: no glasses, no hat.
MISSING = ("", "nan", "na", "?")
# Upper bound on the attributes that are read without being named, and on the levels of one.
MAX_UNNAMED_COLUMNS = 32
MAX_LEVELS = 32
# A column with a larger share of numbers is numeric.
MIN_NUMERIC_SHARE = 0.5
# The column that names the scan; without one of this name it is the first.
FILE_COLUMN = "file"
# Characters that may separate columns.
DELIMITERS = ",;\t"
# Suffixes of a name that are left out to find a scan: those of a scan and of its prepared head.
MAX_SUFFIXES = 2
# Names that a message lists.
LISTED = 5
# Largest number that values can hold; a larger one, and infinity, is text.
MAX_NUMBER = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class AttributeTable:
    """What is known of heads."""

    attributes: Attributes
    """The columns."""
    values: Float[torch.Tensor, "heads n"]
    """Values of each head; NaN where missing."""
    remarks: tuple[str, ...] = ()
    """What people should know about the file: rows and columns that were left out."""

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, heads: Sequence[int]) -> "AttributeTable":
        """Return the table of some heads."""
        return AttributeTable(self.attributes, self.values[torch.tensor(heads, dtype=torch.long)])

    @property
    def digest(self) -> str:
        """SHA-256 of names and values, which distinguishes trainings."""
        plain = json.dumps(self.attributes.to_json()).encode()
        return hashlib.sha256(plain + self.values.numpy().tobytes()).hexdigest()


def read_attributes(path: Path | str, store: Path | str, *, columns: Sequence[str] = ()) -> AttributeTable:
    """Return what a CSV file says about the heads of a store.

    Its column `file`, or its first, names the scan as the store does, with or without suffix. A column is numeric if
    its values are numbers, and categorical if they are a few words. Heads without a row have no known attribute.

    Args:
        path: The file, with a header.
        store: Folder made by `overfit`; the table has its heads in their order.
        columns: Names of the columns to read; by default all that can be used.

    Raises:
        BadInput: If the file cannot be read, names no head of the store, or a column cannot be used.
    """
    path = Path(path)
    header, rows = _read(path)
    names = [record.name for record in Store(store).rows().records]
    found, unknown = _match(path, rows, names, column=header.index(FILE_COLUMN) if FILE_COLUMN in header else 0)
    remarks = [f"{unknown} of {len(rows)} rows of {path} name no head of {store}"] if unknown else []
    chosen = _named_columns(path, header, columns) if columns else _unnamed_columns(path, header)
    attributes, values, unusable = [], [], []
    for index in chosen:
        texts = {head: (row.line, row.fields[index]) for head, row in found.items()}
        try:
            attribute, column = _column(path, header[index], texts, len(names))
        except _Unusable as error:
            if columns:
                raise BadInput(f"{path}: {error}; leave it out of `columns`") from error
            unusable.append(str(error))
            continue
        attributes.append(attribute)
        values.append(column)
    _require_some(path, attributes, columns=columns, unusable=unusable)
    remarks += [f"{path}: {reason}; it is left out" for reason in unusable]
    return AttributeTable(Attributes(tuple(attributes)), torch.stack(values, dim=1), tuple(remarks))


class _Unusable(Exception):
    """A column that no model can learn from; the message says which and why."""


@dataclass(frozen=True)
class _Row:
    line: int
    """Line in the file, from 1."""
    fields: list[str]
    """As many as there are columns."""


def _read(path: Path) -> tuple[list[str], list[_Row]]:
    """Return the header and the rows of a file."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give a CSV file with a row for each scan")
    lines = _lines(path)
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise BadInput(f"{path}: no table; give a header such as file,age and a row for each scan")
    header = lines[0][1]
    if repeated := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise BadInput(f"{path}: two columns named {repeated[0]}; rename one")
    for line, fields in lines[1:]:
        if len(fields) != len(header):
            raise BadInput(f"{path}: line {line} has {len(fields)} columns, the header {len(header)}; export it again")
    return header, [_Row(line, fields) for line, fields in lines[1:]]


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the fields of each line that is not empty, and its number from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.lstrip("\r\n").split("\n", 1)[0]
        reader = csv.reader(text.splitlines(), delimiter=max(DELIMITERS, key=first.count))
        return [(reader.line_num, [field.strip() for field in fields]) for fields in reader if any(fields)]
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text file in UTF-8; export it as CSV in UTF-8") from error
    except csv.Error as error:
        raise BadInput(
            f"{path}: not a CSV file ({error}); look for a missing quotation mark, or export again"
        ) from error


def _match(path: Path, rows: Sequence[_Row], names: Sequence[str], *, column: int) -> tuple[dict[int, _Row], int]:
    """Return the row of each head, and how many rows belong to none."""
    heads = _heads_by_name(names)
    found: dict[int, _Row] = {}
    for row in rows:
        name = row.fields[column]
        head = next((heads[alias] for alias in _aliases(name) if alias in heads), None)
        if head is None:
            continue
        if head in found:
            raise BadInput(f"{path}: lines {found[head].line} and {row.line} are both of {names[head]}; delete one")
        found[head] = row
    if not found:
        raise BadInput(
            f"{path}: knows no head of the store; its first column must name scans, such as {names[0]}, and its first "
            f"row names {rows[0].fields[column]}"
        )
    return found, len(rows) - len(found)


def _heads_by_name(names: Sequence[str]) -> dict[str, int]:
    """Return the heads by all their names; a name without suffix that two heads share is left out."""
    counts = Counter(alias for name in names for alias in _aliases(name))
    by_name = {alias: head for head, name in enumerate(names) for alias in _aliases(name) if counts[alias] == 1}
    return by_name | {name: head for head, name in enumerate(names)}


def _aliases(name: str) -> Iterator[str]:
    """Yield a name, and the same without its suffixes."""
    path = PurePosixPath(name.replace("\\", "/"))
    yield path.as_posix()
    for _ in range(MAX_SUFFIXES):
        if not path.suffix:
            return
        path = path.with_suffix("")
        yield path.as_posix()


def _named_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    for name in columns:
        if name not in header:
            raise BadInput(f"{path}: no column {name}; it has {_listed(header[1:])}")
    return [header.index(name) for name in dict.fromkeys(columns)]


def _unnamed_columns(path: Path, header: Sequence[str]) -> list[int]:
    skipped = header.index(FILE_COLUMN) if FILE_COLUMN in header else 0
    # Columns without a header, such as the row numbers of pandas, could not be asked for.
    found = [index for index, name in enumerate(header) if name and index != skipped]
    if not found:
        raise BadInput(f"{path}: no column of attributes has a name; write one into the header")
    return found


def _require_some(path: Path, found: Sequence[Attribute], *, columns: Sequence[str], unusable: Sequence[str]) -> None:
    if not found:
        raise BadInput(f"{path}: no column can be used, {unusable[-1]}; give values that differ between heads")
    if not columns and len(found) > MAX_UNNAMED_COLUMNS:
        names = _listed([column.name for column in found])
        raise BadInput(f"{path}: {len(found)} columns, too many; name those to use with `columns`, of {names}")


def _column(
    path: Path, name: str, texts: dict[int, tuple[int, str]], heads: int
) -> tuple[Attribute, Float[torch.Tensor, " heads"]]:
    """Return an attribute and its values, from the line and the text of the heads that have a row."""
    if "=" in name:
        raise _Unusable(f"column {name} has = in its name, which separates a name from its value in a request")
    known = {head: (line, text) for head, (line, text) in texts.items() if text.lower() not in MISSING}
    numbers = {head: number for head, (_, text) in known.items() if (number := _number(text)) is not None}
    if not known:
        raise _Unusable(f"column {name} has no values for heads of the store")
    if len(numbers) == len(known):
        return _numeric(name, numbers, heads)
    if len(numbers) > MIN_NUMERIC_SHARE * len(known):
        line, text = next(known[head] for head in known if head not in numbers)
        raise BadInput(f"{path}: line {line}: {name} is {text[:40]!r}, not a number; correct it, or leave it empty")
    return _categorical(name, {head: text for head, (_, text) in known.items()}, heads)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= MAX_NUMBER else None


def _numeric(name: str, numbers: dict[int, float], heads: int) -> tuple[Attribute, torch.Tensor]:
    known = np.array(list(numbers.values()))
    # In the precision of the values: a smaller range has no standard deviation to divide by.
    if np.ptp(known.astype(np.float32)) == 0:
        raise _Unusable(f"column {name} is {known[0]:g} for all heads of the store")
    attribute = Numeric(name, float(known.mean()), float(known.std()), float(known.min()), float(known.max()))
    return attribute, _filled(numbers, heads)


def _categorical(name: str, texts: dict[int, str], heads: int) -> tuple[Attribute, torch.Tensor]:
    counts = Counter(texts.values())
    if len(counts) == 1:
        raise _Unusable(f"column {name} is {next(iter(counts))} for all heads of the store")
    if len(counts) > MAX_LEVELS:
        raise _Unusable(f"column {name} has {len(counts)} different texts, more than {MAX_LEVELS}")
    levels = tuple(sorted(counts))
    attribute = Categorical(name, levels, tuple(counts[level] / len(texts) for level in levels))
    return attribute, _filled({head: float(levels.index(text)) for head, text in texts.items()}, heads)


def _filled(values: dict[int, float], heads: int) -> Float[torch.Tensor, " heads"]:
    column = torch.full((heads,), torch.nan)
    column[list(values)] = torch.tensor(list(values.values()))
    return column


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
