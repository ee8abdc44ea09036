"""Two processes that share a training do what one does with the whole batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyperdiffusion.diffusion.distributed import ProcessGroup
from overfit import BadInput

SCRIPT = """
import json, sys
from functools import partialmethod
from pathlib import Path
import torch
from hyperdiffusion.diffusion import trainer
from hyperdiffusion.diffusion.coordinates import LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.denoiser import TransformerConfig
from hyperdiffusion.diffusion.distributed import process_group
from hyperdiffusion.diffusion.encode_store import EncodedStore
from hyperdiffusion.diffusion.training_config import TrainingConfig, TrainingRun

torch.set_num_threads(1)
FOLDER = Path(sys.argv[1])
# Traced, but not compiled to machine code, which would take a minute.
torch.nn.Module.compile = partialmethod(torch.nn.Module.compile, backend="eager")
# In bf16 half a batch is rounded differently from a whole one.
trainer.autocast = lambda device: torch.autocast("cpu", enabled=False)
weights = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
config = TrainingConfig(
    transformer=TransformerConfig(width=32, depth=1, attention_heads=2, dropout=0.0),
    steps=12, batch_size=8, warmup_steps=2, lr=1e-2, ema_decay=0.0,
)
run = TrainingRun(config, ())


def losses(coordinates, state, processes, device, **options):
    codes = coordinates.encode(weights)
    data = EncodedStore(coordinates, codes, codes[:0])
    training = trainer.Trainer(data, config, device=device, processes=processes, **options)
    found = [float(training.step()) for _ in range(6)]
    # What is saved halfway is resumed by another trainer.
    training.state.save(state, run=run, processes=processes)
    processes.barrier()
    training = trainer.Trainer(data, config, device=device, processes=processes, **options)
    training.state.load(state, run=run)
    found += [float(training.step()) for _ in range(6)]
    model = training.model()
    processes.barrier()
    return found + [float(sum(parameter.abs().sum() for parameter in model.parameters()))] if model else None


with process_group(torch.device("cpu")) as (processes, device):
    kinds = (LatentCoordinates.from_weights(weights, (20, 10)), WeightCoordinates.scaled(weights, (20, 10)))
    trainings = [({}, kind) for kind in kinds]
    if processes.world_size > 1:
        trainings += [({"shard": True}, kind) for kind in kinds] + [({"shard": True, "compile": True}, kinds[0])]
    for number, (options, coordinates) in enumerate(trainings):
        found = losses(coordinates, FOLDER / f"state_{number}", processes, device, **options)
        if processes.is_main:
            print(json.dumps(found))
"""


def losses(folder: Path, *launcher: str) -> torch.Tensor:
    """Twelve losses and the sum of the final model's parameters, for each way to distribute and kind of coordinates."""
    command = [sys.executable, *launcher, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.tensor([json.loads(line) for line in done.stdout.splitlines()], dtype=torch.double)


def test_two_processes_have_the_losses_of_one_with_ddp_fsdp_and_compiled(tmp_path):
    alone = losses(tmp_path)
    assert alone.shape == (2, 13)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python", sys.executable]
    together = losses(tmp_path, *torchrun)
    assert together.shape == (5, 13)
    torch.testing.assert_close(together, alone[[0, 1, 0, 1, 0]], atol=1e-5, rtol=1e-4)


def test_parts_make_up_the_batch():
    batch = list(range(12))
    assert [index for rank in range(3) for index in batch[ProcessGroup(rank, 3).part(12)]] == batch
    with pytest.raises(BadInput, match="`batch_size=10`: give a multiple of the 3 processes"):
        ProcessGroup(0, 3).part(10)


def test_a_single_process_needs_no_communication():
    alone, model = ProcessGroup(), torch.nn.Linear(2, 2)
    assert alone.is_main and alone.broadcast(True) and alone.parallelize(model, shard=False) is model
    assert float(alone.mean(torch.tensor(3.0))) == 3
    with alone.main_first():
        alone.barrier()
