"""Processes of one training: what torchrun set out in, this process' place among the others out."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch
import torch.distributed as group
from torch.distributed.device_mesh import init_device_mesh

from overfit.errors import BadInput

# The others wait for as long as the first one learns the subspace.
PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Processes:
    """How many processes train one model together, and which of them this is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """This process' part of a batch. Raises BadInput where the batch cannot be shared out evenly."""
        if batch % self.count:
            raise BadInput(f"--batch {batch}: give a multiple of the {self.count} processes")
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a scalar over all processes."""
        if self.count > 1:
            group.all_reduce(value)
        return value / self.count

    def agree(self, told: bool) -> bool:
        """What the first process says."""
        if self.count == 1:
            return told
        said = [told]
        group.broadcast_object_list(said, 0)
        return said[0]

    def shard(self, model: torch.nn.Module) -> None:
        """Share out a model's parameters, layer by layer (FSDP, Zhao et al. 2023)."""
        from torch.distributed.fsdp import fully_shard
        from x_transformers.x_transformers import Attention, FeedForward

        kind = "cuda" if next(model.parameters()).is_cuda else "cpu"
        mesh = init_device_mesh(kind, (self.count,))
        for layer in list(model.modules()):
            if isinstance(layer, (Attention, FeedForward)):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            group.barrier()


def _ways() -> tuple[ModuleType, Any]:
    """torch's module that gathers and shares out, and its options for a model in one piece."""
    # Its import takes half as long as that of torch itself.
    from torch.distributed.checkpoint import state_dict

    return state_dict, state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's tensors as one process would hold them, on CPU; of one shared out, the first process gets them."""
    ways, options = _ways()
    return ways.get_model_state_dict(model, options=options)


def take_up(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give a model the tensors that `whole` told."""
    ways, options = _ways()
    ways.set_model_state_dict(model, tensors, options=options)


def whole_moments(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
    """An optimiser's moments by the names of the model's parameters, as `whole` tells the parameters."""
    ways, options = _ways()
    return ways.get_optimizer_state_dict(model, optimiser, options=options).get("state", {})


def take_up_moments(model: torch.nn.Module, optimiser: torch.optim.Optimizer,
                    moments: dict[str, dict[str, torch.Tensor]]) -> None:
    """Give an optimiser the moments that `whole_moments` told."""
    ways, options = _ways()
    everywhere = ways.StateDictOptions(full_state_dict=True)
    groups = ways.get_optimizer_state_dict(model, optimiser, options=everywhere)["param_groups"]
    ways.set_optimizer_state_dict(model, optimiser, {"state": moments, "param_groups": groups}, options=options)


def first() -> bool:
    """Whether this is the process of those that torchrun started which talks; alone without torchrun."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """This process among those that torchrun started, with the device that is its own; alone without torchrun."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    group.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(group.get_rank(), count), device
        # What still holds connections in a circle of references would let them go too late, and end in an abort.
        gc.collect()
        # One that leaves early takes the others' connections with it.
        group.barrier()
    finally:
        group.destroy_process_group()
