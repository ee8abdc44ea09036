"""Where work runs: flags in; a torch device, a number of CPU cores and progress bars out."""

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tqdm import tqdm

from overfit.runtime.errors import BadInput, require_at_least


@dataclass(frozen=True)
class RunContext:
    """The resources of one run. It travels through the library as one value."""

    device: torch.device = torch.device("cpu")
    """Where networks are computed."""
    cores: int = 1
    """CPU cores to use: worker processes of one thread each, or threads of this process."""
    show_progress: bool = False
    """Whether to show progress bars."""

    def progress(self, total: float, description: str, unit: str, **options: Any) -> tqdm:
        """A progress bar with a rate and the time left; silent where nothing is left to do."""
        return tqdm(total=total, desc=description, unit=unit, disable=not (self.show_progress and total), **options)


@dataclass(frozen=True)
class Machine:
    """How much of this computer a command may use."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are computed; auto takes a GPU if there is one."""
    threads: int = 0
    """CPU threads in all; 0 takes every core that the process may run on."""

    def start(self, *, show_progress: bool = True) -> RunContext:
        """Limit this process to the machine's threads and return what a run may use.

        Raises BadInput if a GPU is asked for that is not there, or the number of threads is negative.
        """
        require_at_least(0, threads=self.threads)
        torch.set_num_threads(self.threads or _usable_cores())
        return RunContext(self._torch_device(), self.threads or _usable_cores(), show_progress)

    def _torch_device(self) -> torch.device:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("`device=cuda`: PyTorch sees no GPU; use `device=cpu`, or install a CUDA build of torch")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")


def _usable_cores() -> int:
    # Not every system says which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
