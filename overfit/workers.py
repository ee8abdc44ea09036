"""Worker processes: tasks in, results out in the order in which they finish.

Each worker gets its share of the threads and no more: on CPU two workers that both use all cores spin on each other's
locks and run five times slower than one.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from queue import Empty
from typing import Any, Literal

import torch
from loky import ProcessPoolExecutor
from loky.backend.context import get_context

from .errors import BadInput

# Seconds between two looks at what the workers have told.
LOOK = 0.5
# What holds a worker's libraries to one thread: OpenMP and NumPy's BLAS of either kind, and libigl.
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "IGL")}


@dataclass(frozen=True)
class Machine:
    """What of this computer a command may use."""

    # Where networks are computed; auto takes a GPU where there is one.
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # CPU threads in all; 0 takes every core that the process may run on.
    threads: int = 0

    @property
    def torch_device(self) -> torch.device:
        """The device. Raises BadInput where a GPU is asked for that is not there."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("--device cuda: PyTorch sees no GPU; use --device cpu, or install a CUDA build of torch")
        gpu = self.device != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if gpu else "cpu")

    @property
    def cores(self) -> int:
        """Number of CPU threads to use. Raises BadInput where it is negative."""
        if self.threads < 0:
            raise BadInput(f"--threads {self.threads}: give the number of CPU threads, or 0 for all")
        # Not every system tells which cores a process may use.
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return self.threads or usable

    def use(self) -> torch.device:
        """Hold this process to the machine's threads and return its device."""
        torch.set_num_threads(self.cores)
        return self.torch_device


def run(function: Callable, tasks: list[tuple], progress: Callable[[int], None] = lambda count: None,
        workers: int = 1) -> Iterator[tuple[int, Any]]:
    """Yield (index, function(*task, progress)) of all tasks as they finish, in `workers` processes of one thread each.

    A single worker, or one for a single task, runs in this very process. The function reports progress by calling its
    last argument with a count. Raises BadInput where a worker is killed, by the system for want of memory for instance.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for index, task in enumerate(tasks):
            yield index, function(*task, progress)
        return
    # loky's workers do not run the caller's script again, as those of multiprocessing do: no guard is needed in it.
    context = get_context("loky")
    with (context.Manager() as manager,
          ProcessPoolExecutor(workers, context=context, env=ONE_THREAD, initializer=torch.set_num_threads,
                              initargs=(1,)) as pool):
        told = manager.Queue()
        futures = {pool.submit(function, *task, told.put): index for index, task in enumerate(tasks)}
        try:
            while futures:
                finished, _ = wait(futures, LOOK, FIRST_COMPLETED)
                _drain(told, progress)
                for future in finished:
                    yield futures.pop(future), future.result()
        except BrokenProcessPool as error:
            raise BadInput("a worker was killed, maybe for want of memory; run the same command again, "
                           "with fewer --threads if it happens again") from error
        finally:
            pool.shutdown(wait=True, kill_workers=True)


def gathered(function: Callable, tasks: list[tuple], progress: Callable[[int], None] = lambda count: None,
             workers: int = 1) -> list:
    """What `run` yields, in the order of the tasks."""
    return [made for _, made in sorted(run(function, tasks, progress, workers), key=lambda found: found[0])]


def _drain(told, progress: Callable[[int], None]) -> None:
    while True:
        try:
            progress(told.get_nowait())
        except Empty:
            return
