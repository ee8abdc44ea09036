"""Reads PLY files: bytes in, a mesh or points out.

Text and binary of either byte order; faces of any number of corners, mixed, and triangle strips.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from overfit.geometry.mesh import SEEN
from overfit.geometry.polygons import fan_triangles, strip_triangles

# PLY's names of numbers, and NumPy's.
_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_FORMATS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_CORNER_LISTS = ("vertex_indices", "vertex_index")
_STRIP_END = -1
_HEADER = re.compile(rb"ply\s.*?^end_header[ \t]*\r?\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class PlyContent:
    """What a PLY file holds."""

    vertices: Float[np.ndarray, "vertices 3"]
    """Coordinates in the unit of the file."""
    normals: Float[np.ndarray, "vertices 3"] | None
    """Normals of the vertices as the file has them; None if there are none."""
    triangles: Int[np.ndarray, "triangles 3"]
    """Faces, those of more corners divided into fans; none if the file holds points."""
    seen: Bool[np.ndarray, " vertices"] | None = None
    """Whether a scan shows each vertex of a completed head; None if the file does not say."""


@dataclass(frozen=True)
class _Property:
    """A number, or a list of numbers, that each record of an element has."""

    name: str
    """Its name."""
    type: str
    """NumPy's type of the number, or of the list's."""
    count_type: str = ""
    """NumPy's type of a list's length; empty for a single number."""


@dataclass
class _Element:
    """A table of the file."""

    name: str
    """Its name."""
    count: int
    """Its records."""
    properties: list[_Property] = field(default_factory=list)
    """What each record has, in order."""

    @property
    def has_lists(self) -> bool:
        """Whether records differ in size."""
        return any(one.count_type for one in self.properties)


def parse_ply(data: bytes) -> PlyContent:
    """Return what is in the bytes of a PLY file. Raises ValueError if it is damaged or has no vertices."""
    match = _HEADER.match(data)
    if match is None:
        raise ValueError("no complete PLY header in it")
    order, elements = _parse_header(match[0].decode("ascii", "replace"))
    body = memoryview(data)[match.end() :]
    read = _read_text if not order else _read_binary
    vertices = normals = seen = None
    triangles = [np.empty((0, 3), np.int64)]
    for element, values in read(body, elements, order):
        if element.name == "vertex":
            columns = {key.lower(): column for key, column in values.columns.items()}
            vertices = _stack(columns, ("x", "y", "z"))
            normals = _stack(columns, ("nx", "ny", "nz"))
            seen = columns[SEEN] != 0 if SEEN in columns else None
        elif element.name == "face":
            triangles += [fan_triangles(corners.astype(np.int64)) for corners in values.lists]
        elif element.name == "tristrips":
            rows = [row for corners in values.lists for row in corners]
            triangles += [strip_triangles(strip) for row in rows for strip in _strips(row)]
    if vertices is None:
        raise ValueError("no vertices with x, y and z in it")
    return PlyContent(vertices, normals, np.concatenate(triangles), seen)


@dataclass(frozen=True)
class _Values:
    """What was read of an element."""

    columns: dict[str, np.ndarray]
    """Single numbers (count,) by name, of an element without lists."""
    lists: list[np.ndarray]
    """Corners (n, k) of the records of each length k."""


def _parse_header(header: str) -> tuple[str, list[_Element]]:
    """Return the byte order, empty for text, and the elements. Raises ValueError if the header is damaged."""
    order, elements = None, []
    for line in header.splitlines():
        try:
            match line.split():
                case ["format", name, *_]:
                    order = _FORMATS[name]
                case ["element", name, count]:
                    elements.append(_Element(name, int(count)))
                case ["property", "list", count_type, kind, name]:
                    elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[count_type]))
                case ["property", kind, name]:
                    elements[-1].properties.append(_Property(name, _TYPES[kind]))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"a damaged header: {line.strip()}") from error
    if order is None or any(element.count < 0 for element in elements):
        raise ValueError("a damaged header")
    return order, elements


def _too_short(element: _Element) -> ValueError:
    return ValueError(f"it ends before its {element.count} records of {element.name} do")


def _stack(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    if not all(name in columns for name in names):
        return None
    return np.stack([np.asarray(columns[name], float) for name in names], axis=1)


def _strips(corners: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the strips (k,) that follow each other in one list."""
    for part in np.split(corners.astype(np.int64), np.flatnonzero(corners == _STRIP_END)):
        yield part[part != _STRIP_END]


def _read_binary(body: memoryview, elements: list[_Element], order: str) -> Iterator[tuple[_Element, _Values]]:
    """Yield the values of each element. Raises ValueError if the file ends before."""
    start = 0
    for element in elements:
        if element.has_lists:
            values, start = _binary_lists(body, start, element, order=order)
        else:
            record = np.dtype([(one.name, order + one.type) for one in element.properties])
            stop = start + record.itemsize * element.count
            if stop > len(body):
                raise _too_short(element)
            rows = np.frombuffer(body[start:stop], record) if record.itemsize else np.empty(0, record)
            values, start = _Values({name: rows[name] for name in record.names or ()}, []), stop
        yield element, values


def _binary_lists(body: memoryview, start: int, element: _Element, *, order: str) -> tuple[_Values, int]:
    """Return the corners of records with lists, and where the element ends."""
    if element.count == 0:
        return _Values({}, []), start
    corners = _corner_list(element)
    lengths = _list_lengths(body, start, element, order=order)
    # Nearly always all records are alike: then they are read as a table.
    record = _record_type(element, lengths, order)
    stop = start + record.itemsize * element.count
    if stop <= len(body):
        rows = np.frombuffer(body[start:stop], record)
        counts = [name for name in record.names or () if name.startswith("count of ")]
        if all((rows[name] == rows[name][0]).all() for name in counts):
            found = rows[corners.name].reshape(element.count, -1) if corners else np.empty((0, 0))
            return _Values({}, [found]), stop
    return _mixed_lists(body, start, element, corners=corners, order=order)


def _corner_list(element: _Element) -> _Property | None:
    lists = [one for one in element.properties if one.count_type and one.name in _CORNER_LISTS]
    return lists[0] if lists else None


def _list_lengths(body: memoryview, start: int, element: _Element, *, order: str) -> dict[str, int]:
    """Return the lengths of the first record's lists by name."""
    lengths = {}
    for one in element.properties:
        if one.count_type:
            lengths[one.name] = _number(body, start, order + one.count_type)
            start += np.dtype(one.count_type).itemsize + lengths[one.name] * np.dtype(one.type).itemsize
        else:
            start += np.dtype(one.type).itemsize
    return lengths


def _record_type(element: _Element, lengths: dict[str, int], order: str) -> np.dtype:
    """Return the type of records whose lists have these lengths."""
    fields: list[tuple] = []
    for one in element.properties:
        if one.count_type:
            fields.append((f"count of {one.name}", order + one.count_type))
            fields.append((one.name, order + one.type, (lengths[one.name],)))
        else:
            fields.append((one.name, order + one.type))
    return np.dtype(fields)


def _number(body: memoryview, start: int, kind: str) -> int:
    size = np.dtype(kind).itemsize
    if start + size > len(body):
        raise ValueError("it ends before its faces do")
    return int(np.frombuffer(body[start : start + size], kind)[0])


def _mixed_lists(
    body: memoryview, start: int, element: _Element, *, corners: _Property | None, order: str
) -> tuple[_Values, int]:
    """Return the corners of records whose lists differ in length, and where the element ends."""
    byte_order: Literal["little", "big"] = "big" if order == ">" else "little"
    sizes = [
        (np.dtype(one.count_type).itemsize if one.count_type else 0, np.dtype(one.type).itemsize, one is corners)
        for one in element.properties
    ]
    places, lengths = [], []
    position, end = start, len(body)
    for _ in range(element.count):
        for count_size, size, wanted in sizes:
            length = 1
            if count_size:
                length = int.from_bytes(body[position : position + count_size], byte_order)
                position += count_size
            if wanted:
                places.append(position)
                lengths.append(length)
            position += length * size
        if position > end:
            raise _too_short(element)
    if corners is None:
        return _Values({}, []), position
    offsets, counts = np.array(places), np.array(lengths)
    kind = np.dtype(order + corners.type)
    raw = np.frombuffer(body, np.uint8)
    found = []
    for length in np.unique(counts):
        first = offsets[counts == length]
        taken = raw[first[:, None] + np.arange(length * kind.itemsize)]
        found.append(np.ascontiguousarray(taken).view(kind).reshape(len(first), length))
    return _Values({}, found), position


def _read_text(body: memoryview, elements: list[_Element], _order: str) -> Iterator[tuple[_Element, _Values]]:
    """Yield the values of each element, a record a line. Raises ValueError if the file ends before."""
    stream = io.BytesIO(body)
    for element in elements:
        lines = _lines(stream, element.count)
        if element.has_lists:
            yield element, _Values({}, _text_lists(lines, element))
        else:
            rows = np.loadtxt(lines, ndmin=2) if element.count else np.empty((0, len(element.properties)))
            if rows.shape != (element.count, len(element.properties)):
                raise _too_short(element)
            yield element, _Values({one.name: rows[:, index] for index, one in enumerate(element.properties)}, [])


def _lines(stream: io.BytesIO, count: int) -> Iterator[bytes]:
    """Yield the next lines that are not empty."""
    while count and (line := stream.readline()):
        if line.strip():
            count -= 1
            yield line


def _text_lists(lines: Iterator[bytes], element: _Element) -> list[np.ndarray]:
    """Return the corners (n, k) of the lines of each length k."""
    corners = _corner_list(element)
    by_length: dict[int, list[list[bytes]]] = {}
    count = 0
    for line in lines:
        words, position = line.split(), 0
        for one in element.properties:
            length = int(words[position]) if one.count_type and position < len(words) else 0
            if one is corners:
                by_length.setdefault(length, []).append(words[position + 1 : position + 1 + length])
            position += 1 + length
        if position > len(words):
            raise ValueError(f"a record of {element.name} with {len(words)} numbers instead of {position}")
        count += 1
    if count < element.count:
        raise _too_short(element)
    return [np.array(rows, np.int64).reshape(len(rows), length) for length, rows in by_length.items()]
