"""Tensors and JSON in one file: written, read, damaged, and on a full disk."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from overfit.runtime import tensor_file
from overfit.runtime.errors import BadInput
from overfit.runtime.tensor_file import open_tensor_file, write_tensor_file

TENSORS = {"weights": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor([3])}
METADATA = {"version": 4, "names": ["a", "b"], "nothing": None}


@pytest.fixture
def file(tmp_path):
    write_tensor_file(tmp_path / "a.safetensors", TENSORS, METADATA)
    return tmp_path / "a.safetensors"


def test_tensors_and_values_are_read_back(file):
    with open_tensor_file(file, remedy="fit again") as opened:
        assert opened.metadata == METADATA
        tensors = opened.tensors()
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_tensors_that_share_memory_are_written(tmp_path):
    base = torch.arange(6.0)
    write_tensor_file(tmp_path / "a", {"all": base, "some": base[::2]}, {})
    with open_tensor_file(tmp_path / "a", remedy="") as opened:
        assert torch.equal(opened.tensors()["some"], base[::2])


def test_a_missing_file_a_folder_and_damage_are_distinguished(file, tmp_path):
    def message(path) -> str:
        with pytest.raises(BadInput) as caught, open_tensor_file(path, remedy="fit again"):
            pass
        return str(caught.value)

    assert message(tmp_path / "none") == f"{tmp_path / 'none'}: no such file; fit again"
    assert message(tmp_path) == f"{tmp_path}: a folder where a file is expected; fit again"
    content = file.read_bytes()
    for damaged in (content[:-4], content[:20], b"", b"PK\x03\x04" + content):
        file.write_bytes(damaged)
        text = message(file)
        assert "not a complete safetensors file" in text and text.endswith("; fit again") and "\n" not in text


def test_what_is_missing_inside_counts_as_damage(file):
    with pytest.raises(BadInput, match="codes"), open_tensor_file(file, remedy="") as opened:
        opened.file.get_tensor("codes")
    with pytest.raises(BadInput, match="codes"), open_tensor_file(file, remedy="") as opened:
        opened.metadata["codes"]


def test_errors_of_the_caller_pass(file):
    with pytest.raises(BadInput, match="^of another field$"), open_tensor_file(file, remedy="fit again"):
        raise BadInput("of another field")


def full_disk(tensors, path, metadata):
    """What safetensors raises on a full disk; see the next test for the words."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_raises_the_systems_error_and_keeps_the_old_file(file, monkeypatch):
    monkeypatch.setattr(tensor_file, "save_file", full_disk)
    with pytest.raises(OSError) as caught:
        write_tensor_file(file, {}, {})
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(file)
    assert list(file.parent.iterdir()) == [file]
    with open_tensor_file(file, remedy="") as opened:
        assert opened.metadata == METADATA


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_safetensors_gives_the_number_of_the_systems_error(tmp_path, monkeypatch):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so that a write beyond the limit fails as one on a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_tensor_file(tmp_path / "a", {"large": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())
