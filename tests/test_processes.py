"""Two processes that share a training do what one does with the whole batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyperdiffusion.processes import Processes
from overfit import BadInput

SCRIPT = """
import json, sys
from functools import partialmethod
from pathlib import Path
import torch
from hyperdiffusion import learner
from hyperdiffusion.learner import Learner, Training
from hyperdiffusion.processes import joined
from hyperdiffusion.tokens import Plain, Tokens
from hyperdiffusion.transformer import Shape

torch.set_num_threads(1)
STATE, SHARD, COMPILED = Path(sys.argv[1]), "shard" in sys.argv[2:], "compile" in sys.argv[2:]
# As traced and run without machine code, which would take a minute to make.
torch.nn.Module.compile = partialmethod(torch.nn.Module.compile, backend="aot_eager")
# In bf16 a half batch rounds otherwise than a whole one.
learner.autocast = lambda device: torch.autocast("cpu", enabled=False)
weights = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))


def main(processes, device):
    for coordinates in (Tokens.of(weights, (20, 10)), Plain.scaled(weights, (20, 10))):
        shape = Shape(width=32, depth=1, heads=2, dropout=0.0)
        training = Training(shape=shape, steps=20, batch=8, warmup=2, rate=1e-2, average=0.0)
        data = coordinates.encode(weights)
        run = Learner(coordinates, data, data[:0], training, device, processes, SHARD, COMPILED)
        losses = [float(run.step()) for _ in range(10)]
        # What is saved half way is taken up by another learner.
        about = {"kind": learner.STATE, "heads": [], "settings": {}}
        run.save(STATE, about)
        processes.wait()
        run = Learner(coordinates, data, data[:0], training, device, processes, SHARD, COMPILED)
        run.restore(STATE, about)
        losses += [float(run.step()) for _ in range(10)]
        model = run.model()
        processes.wait()
        if processes.first:
            losses.append(float(sum(parameter.abs().sum() for parameter in model.parameters())))
            print(json.dumps(losses))


with joined(torch.device("cpu")) as (processes, device):
    main(processes, device)
"""


def losses(folder: Path, count: int, *ways: str) -> torch.Tensor:
    """Twenty losses and the sum of the final model's parameters, for either kind of coordinates."""
    words = [sys.executable, "-c", SCRIPT, folder / "state", *ways]
    if count > 1:
        words[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "--no-python",
                      sys.executable]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.tensor([json.loads(line) for line in done.stdout.splitlines()], dtype=torch.double)


def test_two_processes_have_the_losses_of_one_whether_they_share_the_model_too_or_are_compiled(tmp_path):
    alone = losses(tmp_path, 1)
    assert alone.shape == (2, 21)
    for ways in ((), ("shard",), ("shard", "compile")):
        torch.testing.assert_close(losses(tmp_path, 2, *ways), alone, atol=1e-5, rtol=1e-4)


def test_parts_make_up_the_batch():
    whole = list(range(12))
    assert [index for rank in range(3) for index in whole[Processes(rank, 3).part(12)]] == whole
    with pytest.raises(BadInput, match="--batch 10: give a multiple of the 3 processes"):
        Processes(0, 3).part(10)
