"""What the transformer learns of codes whose optimal denoiser is known.

    python benchmarks/denoiser.py

Needs no fits. For each task, codes are drawn, the denoiser is trained on them as `hyperdiffusion train` does it, and is
evaluated on test codes, which training has not seen. Losses are relative to that of one Gaussian. Beside it: the
Gaussian mixture that training starts from, and the optimum, which no denoiser can beat but by chance.
"""

import time
from dataclasses import dataclass
from typing import Any

from columns import DENOISER
from results_io import BenchmarkOptions, publish, run_benchmark
from synthetic_codes import TASKS, SyntheticCodes, Task, synthetic_codes
from tqdm import tqdm

from hyperdiffusion import TrainingConfig
from hyperdiffusion.diffusion.denoiser import MixtureDenoiser
from hyperdiffusion.diffusion.encode_store import EncodedStore, train_val_split
from hyperdiffusion.diffusion.schedule import Denoise
from hyperdiffusion.diffusion.trainer import Trainer

# Seeds of the codes for training and validation, and of the test codes.
TRAINING_SEED, TEST_SEED = 10, 11
# Noise draws for each test code.
TEST_DRAWS = 8


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """The tasks, from how many codes they are learned, and how."""

    tasks: tuple[Task, ...] = tuple(TASKS)
    """What is learned: factors, ring, spiral or gaussian."""

    heads: int = 2240
    """Codes for training and validation."""

    test_heads: int = 4096
    """Test codes."""

    training: TrainingConfig = TrainingConfig()
    """Training of the denoiser."""


def main(config: BenchmarkConfig) -> None:
    """Train and evaluate a denoiser for each task."""
    context = config.machine.start()
    rows = [measure(task, config, show_progress=context.show_progress) for task in config.tasks]
    publish("denoiser", DENOISER, rows, config)


def measure(task: Task, config: BenchmarkConfig, *, show_progress: bool = False) -> dict[str, Any]:
    """Return the row of a task."""
    codes = synthetic_codes(task)
    start = time.perf_counter()
    trainer = _train(codes, config, tqdm(desc=task, unit="step", disable=not show_progress))
    denoiser = trainer.model()
    seconds = time.perf_counter() - start
    test = codes.draw(config.test_heads, TEST_SEED)
    gaussian = trainer.objective.baseline_loss(test, draws=TEST_DRAWS)

    def loss(denoise: Denoise) -> float:
        return trainer.objective.validation_loss(denoise, test, draws=TEST_DRAWS) / gaussian

    schedule = config.training.noise_schedule
    return {
        "task": task,
        "heads": config.heads,
        "mixture": loss(MixtureDenoiser(schedule, denoiser.mixture)),
        "transformer": loss(denoiser),
        "optimum": loss(MixtureDenoiser(schedule, codes.mixture)),
        "steps": trainer.state.step,
        "best_step": trainer.state.best_step,
        "seconds": seconds,
    }


def _train(codes: SyntheticCodes, config: BenchmarkConfig, bar: tqdm) -> Trainer:
    """A finished training."""
    drawn = codes.draw(config.heads, TRAINING_SEED)
    training, validation = train_val_split(config.heads, config.training)
    trainer = Trainer(EncodedStore(codes.coordinates, drawn[training], drawn[validation]), config.training)
    bar.reset(trainer.total_steps)
    with bar:
        finish(trainer, bar)
    return trainer


def finish(trainer: Trainer, bar: tqdm) -> None:
    """Train until the training ends."""
    while not trainer.finished:
        trainer.step()
        bar.update()
        if trainer.is_validation_due and (loss := trainer.validate()) is not None:
            bar.set_postfix_str(f"validation loss {loss:.3f}")


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
