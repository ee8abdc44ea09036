"""Quality of the included model against heads that it was not trained on.

    hyperdiffusion heads SCANS --count 1024 --without cap+thick --without curly+full    # the training heads
    hyperdiffusion heads TEST --count 64 --seed 1 --without cap+thick --without curly+full
    python benchmarks/included_model.py SCANS TEST REPORT

Samples are decoded at 128^3 and not repaired. The report is that of `hyperdiffusion evaluate --no-repair`; one that is
in REPORT already is used.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from columns import EVALUATION
from results_io import BenchmarkOptions, publish, run_benchmark

from hyperdiffusion import EvaluationConfig, evaluate

CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "heads.safetensors"
# Sets of the report, as the documents call them.
SETS = {"test": "test scans", "training": "training scans", "generated": "generated"}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """What the model is compared with."""

    scans: tyro.conf.Positional[Path]
    """Folder of the training heads."""

    test: tyro.conf.Positional[Path]
    """Folder of the test heads."""

    out: tyro.conf.Positional[Path]
    """Folder for the samples and the report."""

    checkpoint: Path = CHECKPOINT
    """The model."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """How thoroughly heads are compared."""


def main(config: BenchmarkConfig) -> None:
    """Evaluate the model, or read its report."""
    report = config.out / "report.json"
    if not report.exists():
        evaluate(
            config.checkpoint,
            config.out,
            reference=config.test,
            train=config.scans,
            config=config.evaluation,
            repair=False,
            machine=config.machine,
        )
    sets = json.loads(report.read_text())
    publish("included_model", EVALUATION, [_row(SETS[name], metrics) for name, metrics in sets.items()], config)


def _row(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a set without those of single heads and without an interval where all heads agree."""
    numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float, dict))}
    return {"set": name, **{key: _without_empty_interval(value) for key, value in numbers.items()}}


def _without_empty_interval(value: Any) -> Any:
    is_certain = isinstance(value, dict) and value["low"] == value["high"] == value["mean"] == 1
    return value["mean"] if is_certain else value


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
