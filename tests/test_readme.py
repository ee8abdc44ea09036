"""The README's example runs as it stands."""

import doctest
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failures, examples = doctest.testfile(str(README), module_relative=False)
    assert examples >= 9 and failures == 0
    assert (tmp_path / "head.ply").exists()
