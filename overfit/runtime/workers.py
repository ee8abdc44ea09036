"""Worker processes: tasks in, results out as they finish.

Each worker computes with one thread: on CPU, two workers that both use all cores wait for each other's locks and run
five times slower than one. Workers end with this process, however it ends.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.managers import SyncManager
from queue import Empty
from typing import Any

import torch
from loky import ProcessPoolExecutor
from loky.backend.context import get_context
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from overfit.runtime.errors import BadInput
from overfit.runtime.machine import RunContext

# Seconds between two looks at the progress that workers report, and at whether their parent lives.
POLL_SECONDS = 0.5
# Limits a worker's libraries to one thread: OpenMP, NumPy's BLAS of either kind, and libigl.
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "IGL")}

OnProgress = Callable[[float], None]
"""Called with the amount of work that was done since the last call."""


def run_tasks(
    function: Callable,
    tasks: Sequence[tuple],
    context: RunContext,
    *,
    min_tasks_per_worker: int = 1,
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (index, function(*task)) as the tasks finish, computed by up to `context.cores` workers.

    Args:
        function: A function of a module; it and the tasks are pickled.
        tasks: The arguments of each call.
        context: How many workers there may be.
        min_tasks_per_worker: Starting a worker takes a second, so that it must have this many tasks. Where two workers
            would not, this process does the work.
        on_progress: If given, the function gets a keyword argument `progress` that forwards to it.

    Raises BadInput if a worker is killed, for instance by the system because memory ran out.
    """
    workers = min(context.cores, len(tasks) // min_tasks_per_worker)
    if workers > 1:
        yield from _run_in_workers(function, tasks, workers, on_progress)
        return
    options = {} if on_progress is None else {"progress": on_progress}
    # BLAS would take every core: beside another program, its threads would wait for each other's locks.
    with threadpool_limits(context.cores, user_api="blas"):
        for index, task in enumerate(tasks):
            yield index, function(*task, **options)


def run_tasks_in_order(
    function: Callable,
    tasks: Sequence[tuple],
    context: RunContext,
    *,
    min_tasks_per_worker: int = 1,
    bar: tqdm | None = None,
) -> list:
    """Return the results of `run_tasks` in the order of the tasks; `bar` advances by one for each."""
    results: dict[int, Any] = {}
    for index, result in run_tasks(function, tasks, context, min_tasks_per_worker=min_tasks_per_worker):
        results[index] = result
        if bar is not None:
            bar.update()
    return [results[index] for index in range(len(tasks))]


def end_with_parent(parent: int) -> None:
    """End this process soon after its parent has ended: a parent killed by SIGKILL cannot end its workers itself."""
    threading.Thread(target=_wait_for_end_of, args=(parent,), daemon=True).start()


def _run_in_workers(
    function: Callable, tasks: Sequence[tuple], workers: int, on_progress: OnProgress | None
) -> Iterator[tuple[int, Any]]:
    # loky's workers do not run the caller's script again, as those of multiprocessing do: it needs no guard.
    context = get_context("loky")
    pool = ProcessPoolExecutor(
        workers, context=context, env=ONE_THREAD, initializer=_start_worker, initargs=(os.getpid(),)
    )
    try:
        with _progress_queue(context, on_progress) as (options, forward):
            futures = {pool.submit(function, *task, **options): index for index, task in enumerate(tasks)}
            while futures:
                finished, _ = wait(futures, POLL_SECONDS, FIRST_COMPLETED)
                forward()
                for future in finished:
                    yield futures.pop(future), future.result()
    except BrokenProcessPool as error:
        raise BadInput(
            "a worker was killed, perhaps because memory ran out; run the same command again, "
            "with fewer `threads` if it happens again"
        ) from error
    finally:
        pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def _progress_queue(
    context: Any, on_progress: OnProgress | None
) -> Iterator[tuple[dict[str, Callable], Callable[[], None]]]:
    """What workers need to report progress, as keyword arguments, and what forwards their reports."""
    if on_progress is None:
        yield {}, lambda: None
        return
    # Only a manager's queue can be given to workers that exist already; the manager is a process of its own.
    manager = SyncManager(ctx=context)
    manager.start(end_with_parent, (os.getpid(),))
    reports = manager.Queue()
    try:
        yield {"progress": reports.put}, lambda: _forward(reports, on_progress)
    finally:
        manager.shutdown()


def _forward(reports: Any, on_progress: OnProgress) -> None:
    while True:
        try:
            on_progress(reports.get_nowait())
        except Empty:
            return


def _start_worker(parent: int) -> None:
    torch.set_num_threads(1)
    end_with_parent(parent)


def _wait_for_end_of(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)
