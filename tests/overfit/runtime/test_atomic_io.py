"""Files appear complete or not at all."""

import errno
import json
import os

import pytest

from overfit.runtime.atomic_io import atomic_write, remove_unfinished, write_json, write_text

needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


def test_a_file_appears_at_the_end_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as unfinished:
        unfinished.write_text("text")
        assert not path.exists()
    assert path.read_text() == "text" and list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as unfinished:
        unfinished.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@needs_full_device
def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError) as caught, atomic_write(path) as unfinished:
        unfinished.symlink_to("/dev/full")
        unfinished.write_text("text")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_json_is_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Zoë", "values": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Zoë", "values": [1, 2.5, None]}


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "below").mkdir()
    kept = [tmp_path / "store.json", tmp_path / "below" / "a.part", tmp_path / ".tmp"]
    left = [tmp_path / ".store.json.12.part", tmp_path / "below" / ".tmpa1B2c3"]
    for path in kept + left:
        path.touch()
    remove_unfinished(tmp_path)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in left)
