"""Files that appear complete or not at all: what is written gets its name in one step at the end."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Names of unfinished files, which a killed run may leave: those of `atomic_write`, and those of safetensors, which
# writes to a temporary file beside the one it was given.
UNFINISHED_PATTERNS = (".*.part", ".tmp??????")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path to write to. It is renamed to `path` at the end, and removed if the writing fails.

    The folder is made if it is missing. An OSError that does not name its file, such as that of a full disk, gets the
    name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files that killed runs left anywhere below a folder, which nothing may be writing to."""
    for pattern in UNFINISHED_PATTERNS:
        for unfinished in folder.rglob(pattern):
            unfinished.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, complete or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, complete or not at all."""
    write_text(path, json.dumps(value, indent=1))
