"""What a run may use of a computer."""

import pytest
import torch

from overfit.runtime.errors import BadInput
from overfit.runtime.machine import Machine, RunContext


def test_threads_are_those_asked_for():
    context = Machine(device="cpu", threads=3).start(show_progress=False)
    assert context == RunContext(torch.device("cpu"), 3, show_progress=False)
    assert torch.get_num_threads() == 3


def test_all_usable_cores_are_the_default():
    assert Machine(device="cpu").start().cores >= 1


def test_negative_threads_are_refused():
    with pytest.raises(BadInput, match="`threads=-1`"):
        Machine(threads=-1).start()


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="`device=cuda`"):
        Machine(device="cuda").start()
    assert Machine(device="auto", threads=1).start().device.type == "cpu"


@pytest.mark.parametrize("shown, total", [(False, 5), (True, 0)])
def test_progress_is_silent_if_unwanted_or_there_is_nothing_to_do(capsys, shown, total):
    with RunContext(show_progress=shown).progress(total, "fitting", "head") as bar:
        bar.update(total)
    assert capsys.readouterr().err == ""


def test_progress_shows_what_is_done(capsys):
    with RunContext(show_progress=True).progress(2, "fitting", "head") as bar:
        bar.update(2)
    assert "fitting" in capsys.readouterr().err
