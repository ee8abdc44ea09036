"""Tensors and a description of them in one safetensors file; each entry of its metadata is JSON.

Nothing is unpickled. Files appear by a rename, so that a killed run leaves complete files only.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from overfit.runtime.atomic_io import atomic_write
from overfit.runtime.errors import BadInput

# Longest part of a library's own error that is repeated: the message stays one line.
MAX_REASON = 120


@dataclass(frozen=True)
class TensorFile:
    """An open safetensors file."""

    metadata: dict[str, Any]
    """The metadata that `write_tensor_file` was given, back from JSON."""
    file: Any
    """The handle of safetensors: `get_tensor(name)`, `get_slice(name)` and `keys()`."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors by name."""
        return {name: self.file.get_tensor(name) for name in self.file.keys()}


def write_tensor_file(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON values as one file, complete or not at all.

    Raises OSError, with errno.ENOSPC if the disk is full.
    """
    # safetensors refuses tensors that share memory.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    header = {name: json.dumps(value) for name, value in metadata.items()}
    with atomic_write(path) as unfinished:
        try:
            save_file(copies, unfinished, header)
        except SafetensorError as error:
            raise _as_os_error(error, path) from error


@contextmanager
def open_tensor_file(path: Path, *, remedy: str, framework: str = "pt") -> Iterator[TensorFile]:
    """Open a file that `write_tensor_file` wrote.

    Args:
        path: The file.
        remedy: What to do if the file cannot be used, for the message.
        framework: What tensors are read as: "pt" for PyTorch, "np" for NumPy.

    Raises BadInput if the file is missing or damaged, or lacks what is read from it inside the block.
    """
    if path.is_dir():
        raise BadInput(f"{path}: a folder where a file is expected; {remedy}")
    if not path.exists():
        raise BadInput(f"{path}: no such file; {remedy}")
    try:
        with safe_open(path, framework) as file:
            yield TensorFile({name: json.loads(text) for name, text in (file.metadata() or {}).items()}, file)
    except BadInput:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise BadInput(f"{path}: not a complete safetensors file ({reason}); {remedy}") from error


def with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """The system's error behind one of safetensors, which gives its number in the text only: "(os error 28)"."""
    code = re.search(r"\(os error (\d+)\)", str(error))
    if code is None:
        return OSError(str(error))
    number = int(code[1])
    return OSError(number, os.strerror(number), str(path))
