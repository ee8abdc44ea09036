"""Worker processes of a Ray cluster: tasks in, results out in the order in which they finish, as `workers.run` does.

A task whose worker or machine is lost is run again elsewhere. Only this process writes to the store, so that a worker
which outlives it can do no harm there.
"""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .errors import BadInput

# How often a task is run again after its worker was lost; a task that kills every worker must end.
RETRIES = 3
# Seconds for a cluster to answer.
WAIT = 5


def reach(address: str) -> None:
    """Raises BadInput where no cluster answers at an address, or Ray is missing. Ray itself would wait for minutes."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise BadInput("--ray: Ray is missing; pip install 'hyperdiffusion-heads[cluster]'") from error
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=WAIT).close()
    except (OSError, ValueError) as error:
        raise _silent(address) from error


def run(function: Callable, tasks: list[tuple], progress: Callable[[int], None], address: str, gpu: bool,
        ) -> Iterator[tuple[int, Any]]:
    """Yield (index, function(*task, progress)) of all tasks as they finish, each on a core or a GPU of the cluster.

    `progress` is not called, for want of a cheap way across machines. Raises BadInput where no cluster answers, where
    it has no GPU though one is asked for, and where a task's worker was lost too often.
    """
    import ray

    try:
        ray.init(address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _silent(address) from error
    try:
        if gpu and not ray.cluster_resources().get("GPU"):
            raise BadInput(f"--ray {address}: the cluster has no GPU; use --device cpu")
        remote = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=RETRIES)(_alone)
        running = {remote.remote(function, task): index for index, task in enumerate(tasks)}
        while running:
            finished, _ = ray.wait(list(running))
            yield running.pop(finished[0]), ray.get(finished[0])
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        raise BadInput(f"--ray {address}: a batch lost its worker {RETRIES + 1} times, maybe for want of memory; run "
                       "the same command again, with a smaller --batch if it happens again") from error
    finally:
        ray.shutdown()


def _silent(address: str) -> BadInput:
    return BadInput(f"--ray {address}: no cluster answers; start one by `ray start --head`, and give its host:port")


def _alone(function: Callable, task: tuple) -> Any:
    torch.set_num_threads(1)
    return function(*task, lambda count: None)
