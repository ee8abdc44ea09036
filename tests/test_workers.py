"""Worker processes: every task once, progress told, a killed worker told of."""

import os
import signal

import pytest
import torch

from overfit import BadInput, Machine
from overfit.workers import run


def squared(number: int, progress) -> tuple[int, int, int]:
    progress(number)
    return number**2, torch.get_num_threads(), os.getpid()


def killed(progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_and_progress_is_told(workers):
    told = []
    results = dict(run(squared, [(number,) for number in range(6)], told.append, workers))
    assert [results[index][0] for index in range(6)] == [0, 1, 4, 9, 16, 25]
    assert sum(told) == 15
    in_this_process = {pid for _, _, pid in results.values()} == {os.getpid()}
    assert in_this_process == (workers == 1)


def test_workers_keep_to_one_thread_each():
    torch.set_num_threads(2)
    assert {threads for _, (_, threads, _) in run(squared, [(1,), (2,)], workers=2)} == {1}


def test_a_killed_worker_is_told_with_the_remedy():
    with pytest.raises(BadInput, match="run the same command again"):
        list(run(killed, [()] * 2, workers=2))


def test_threads_are_counted_or_refused():
    assert Machine(threads=3).cores == 3
    assert Machine().cores >= 1
    with pytest.raises(BadInput, match="--threads -1"):
        Machine(threads=-1).use()
