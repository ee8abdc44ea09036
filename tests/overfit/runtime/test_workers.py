"""Worker processes: every task runs once, progress arrives, and no worker outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from overfit.runtime import workers
from overfit.runtime.errors import BadInput
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks, run_tasks_in_order

# Seconds after which a process that should start or end counts as stuck.
DEADLINE = 60

# Two workers and a manager, all waiting, so that only their parent's end can end them.
PARENT = """
import sys, time
from pathlib import Path
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks

def wait(path, progress):
    progress(1)
    Path(path).touch()
    time.sleep(3600)

list(run_tasks(wait, [(path,) for path in sys.argv[1:]], RunContext(cores=2), on_progress=lambda count: None))
"""


def square(number: int, progress=lambda count: None) -> tuple[int, int, int]:
    progress(number)
    return number**2, torch.get_num_threads(), os.getpid()


def blas_threads() -> int:
    return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise BadInput("scan.ply: empty; export it again")


def test_blas_takes_no_more_threads_than_asked_for_in_this_process():
    with threadpool_limits(2):
        before = blas_threads()
        assert list(run_tasks(blas_threads, [()], RunContext(cores=1))) == [(0, 1)]
        assert blas_threads() == before


@pytest.mark.parametrize("cores", [1, 2])
def test_every_task_runs_once_and_reports_its_progress(cores):
    torch.set_num_threads(2)
    reported = []
    tasks = [(number,) for number in range(6)]
    results = dict(run_tasks(square, tasks, RunContext(cores=cores), on_progress=reported.append))
    assert [results[index][0] for index in range(6)] == [0, 1, 4, 9, 16, 25]
    assert sum(reported) == 15
    in_this_process = {pid for _, _, pid in results.values()} == {os.getpid()}
    assert in_this_process == (cores == 1)
    # A worker has one thread, this process as many as it had.
    assert {threads for _, threads, _ in results.values()} == {2 if cores == 1 else 1}


def test_results_come_in_the_order_of_the_tasks(monkeypatch):
    monkeypatch.setattr(workers, "run_tasks", lambda *args, **options: iter([(1, "second"), (0, "first")]))
    assert run_tasks_in_order(square, [(1,), (2,)], RunContext()) == ["first", "second"]


def test_few_tasks_run_in_this_process():
    results = run_tasks_in_order(square, [(1,), (2,), (3,)], RunContext(cores=4), min_tasks_per_worker=2)
    assert {pid for _, _, pid in results} == {os.getpid()}


def test_no_tasks_give_no_results():
    assert run_tasks_in_order(square, [], RunContext(cores=4)) == []


def test_a_killed_worker_is_an_error_that_names_the_remedy():
    with pytest.raises(BadInput, match="run the same command again"):
        list(run_tasks(kill_itself, [()] * 2, RunContext(cores=2)))


def test_errors_of_a_task_reach_the_caller():
    with pytest.raises(BadInput, match="scan.ply: empty"):
        list(run_tasks(fail, [()] * 2, RunContext()))


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    psutil = pytest.importorskip("psutil")
    started = [tmp_path / "first", tmp_path / "second"]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *map(str, started)], cwd=Path(__file__).parents[3])
    try:
        wait_until(lambda: parent.poll() is not None or all(path.exists() for path in started))
        processes = psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.kill()
        parent.wait()
    # Two workers and the manager of their queue, at least.
    assert len(processes) >= 3
    wait_until(lambda: all(has_ended(process) for process in processes))


def wait_until(condition) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


def has_ended(process) -> bool:
    import psutil

    try:
        # Where nobody collects orphans, an ended process stays as a zombie.
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
