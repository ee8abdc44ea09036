"""Whole files or none: what is written appears under its name in one step."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the name `path` at the end, and is removed where the writing fails.

    An OSError that does not name its file, as those of a full disk, gets the name.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write tensors and a header of texts as one safetensors file. Raises OSError where the disk is full."""
    # safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as unfinished:
        try:
            save_file(tensors, unfinished, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error
