"""The README's example runs as it stands."""

import doctest
import os
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # One thread: another test may be running beside this one.
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    failures, examples = doctest.testfile(str(README), module_relative=False)
    assert examples >= 9 and failures == 0
    assert (tmp_path / "head.ply").exists()
