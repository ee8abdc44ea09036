"""Distribution of one training over processes: what torchrun started in; this process' rank and share out.

All that DDP and FSDP need is here: wrapping a model, and gathering and loading the state of a sharded one.
"""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from overfit.runtime.errors import BadInput

# How long the other processes wait for the first one, which learns the latent space.
TIMEOUT = timedelta(hours=24)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together, and which of them this is."""

    rank: int = 0
    """Number of this process, from 0."""
    world_size: int = 1
    """Number of processes."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """Return this process' part of a batch. Raises BadInput if the batch cannot be split evenly."""
        if batch_size % self.world_size:
            raise BadInput(f"`batch_size={batch_size}`: give a multiple of the {self.world_size} processes")
        size = batch_size // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a scalar over all processes."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value / self.world_size

    def broadcast(self, flag: bool) -> bool:
        """Return the main process' flag in every process."""
        if self.world_size == 1:
            return flag
        flags = [flag]
        dist.broadcast_object_list(flags, 0)
        return flags[0]

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        if self.world_size > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process, then in the others: they find the files that it has written."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def parallelize(self, model: torch.nn.Module, *, shard: bool) -> torch.nn.Module:
        """Return what to call instead of the model so that gradients are averaged over all processes.

        With `shard` the model's parameters are split over the processes layer by layer, in place (FSDP, Zhao et al.
        2023); otherwise each process has all of them (DDP).
        """
        if self.world_size == 1:
            return model
        if not shard:
            return DistributedDataParallel(model)
        self._shard(model)
        return model

    def _shard(self, model: torch.nn.Module) -> None:
        from torch.distributed.fsdp import fully_shard
        from x_transformers.x_transformers import Attention, FeedForward

        mesh = init_device_mesh(next(model.parameters()).device.type, (self.world_size,))
        for layer in list(model.modules()):
            if isinstance(layer, Attention | FeedForward):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)


def gather_model(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's tensors on CPU as one process would hold them; of a sharded model only the main one gets them.

    All processes must call it.
    """
    state_dict, options = _state_dict_api()
    return state_dict.get_model_state_dict(model, options=options)


def load_model(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load tensors from `gather_model` into a model, sharded or not."""
    state_dict, options = _state_dict_api()
    state_dict.set_model_state_dict(model, dict(tensors), options=options)


def gather_moments(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
    """Return an optimizer's moments by parameter name, as `gather_model` returns the parameters."""
    state_dict, options = _state_dict_api()
    return state_dict.get_optimizer_state_dict(model, optimizer, options=options).get("state", {})


def load_moments(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Mapping[str, torch.Tensor]]
) -> None:
    """Load moments from `gather_moments` into an optimizer."""
    state_dict, options = _state_dict_api()
    everywhere = state_dict.StateDictOptions(full_state_dict=True)
    groups = state_dict.get_optimizer_state_dict(model, optimizer, options=everywhere)["param_groups"]
    state_dict.set_optimizer_state_dict(model, optimizer, {"state": moments, "param_groups": groups}, options=options)


def _state_dict_api() -> tuple[ModuleType, Any]:
    """torch's functions that gather and load states, and their options for full states on CPU."""
    # Its import takes half as long as that of torch itself.
    from torch.distributed.checkpoint import state_dict

    return state_dict, state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)


def is_main_process() -> bool:
    """Return whether this process may print: the first that torchrun started, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Join the processes that torchrun started; yield this one's place and device. Without torchrun it is alone."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        yield ProcessGroup(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield ProcessGroup(dist.get_rank(), world_size), device
        # Reference cycles that hold connections would release them too late, and the process would abort.
        gc.collect()
        # A process that leaves early would close the others' connections.
        dist.barrier()
    finally:
        dist.destroy_process_group()
