"""Reads binary STL files: bytes in, a mesh whose triangles share no vertices out."""

import struct

import numpy as np
from jaxtyping import Float

HEADER_BYTES = 80
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def parse_stl(data: bytes) -> Float[np.ndarray, "triangles 3 3"] | None:
    """Return the corners of the triangles in the bytes of a binary STL file, or None if it is a text file.

    Bytes after the last triangle do no harm. Raises ValueError if the file ends before.
    """
    start = HEADER_BYTES + 4
    if len(data) < start:
        raise ValueError("no STL header in it")
    (count,) = struct.unpack_from("<I", data, HEADER_BYTES)
    held = (len(data) - start) // _TRIANGLE.itemsize
    if data.lstrip()[:5].lower() == b"solid" and (count != held or b"facet" in data[:start]):
        return None
    if count > held:
        raise ValueError(f"it ends after {held} of {count} triangles")
    return np.frombuffer(data, _TRIANGLE, count, start)["corners"].astype(float)
