"""Workers of a Ray cluster: tasks in, results out as they finish, as `workers.run_tasks` does on one computer.

A task whose worker or machine is lost runs again elsewhere. Only the calling process writes files, so that a worker
which outlives it can do no harm.
"""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from overfit.runtime.errors import BadInput

# How often a task is retried after its worker was lost; a task that kills every worker must end.
MAX_RETRIES = 3
# Seconds for a cluster to answer. Ray itself would wait for minutes.
CONNECT_TIMEOUT_SECONDS = 5


def check_ray(address: str) -> None:
    """Raise BadInput if Ray is not installed, or no cluster answers at an address.

    Args:
        address: `host:port`, `ray://host:port`, or `auto` for the cluster that this computer belongs to.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise BadInput(f"`ray={address}`: Ray is not installed; pip install 'hyperdiffusion-heads[cluster]'") from error
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise _no_answer(address) from error


def run_tasks_on_ray(
    function: Callable, tasks: Sequence[tuple], *, address: str, gpu: bool
) -> Iterator[tuple[int, Any]]:
    """Yield (index, function(*task)) as the tasks finish, each on one core of the cluster, and one GPU if `gpu`.

    Tasks report no progress, since there is no cheap way to do so across machines.

    Raises BadInput if no cluster answers, if it has no GPU though `gpu` needs one, and if a task's worker was lost too
    often.
    """
    import ray

    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_answer(address) from error
    try:
        if gpu and not ray.cluster_resources().get("GPU"):
            raise BadInput(f"`ray={address}`: the cluster has no GPU; use `device=cpu`")
        remote = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=MAX_RETRIES)(_run_with_one_thread)
        running = {remote.remote(function, task): index for index, task in enumerate(tasks)}
        while running:
            finished, _ = ray.wait(list(running))
            yield running.pop(finished[0]), ray.get(finished[0])
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        raise BadInput(
            f"`ray={address}`: a batch lost its worker {MAX_RETRIES + 1} times, perhaps because memory ran out; run "
            "the same command again, with a smaller `batch_size` if it happens again"
        ) from error
    finally:
        ray.shutdown()


def _no_answer(address: str) -> BadInput:
    return BadInput(f"`ray={address}`: no cluster answers; start one by `ray start --head`, and give its host:port")


def _run_with_one_thread(function: Callable, task: tuple) -> Any:
    torch.set_num_threads(1)
    return function(*task)
