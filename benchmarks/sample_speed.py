"""Time of `hyperdiffusion sample` as a whole command: 16 heads of the included model, with repair and a picture.

    python benchmarks/sample_speed.py --runs 5

Includes the start of Python, loading the model, sampling, decoding, repair and the picture.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from columns import SAMPLE_SPEED
from results_io import BenchmarkOptions, publish, run_benchmark


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """What is sampled, and how often."""

    runs: int = 5
    """How often the command is timed."""

    count: int = 16
    """Heads in a run."""

    checkpoint: Path | None = None
    """The model; the included one if none is given."""

    resolution: int = 256
    """Grid on which heads are decoded."""

    arguments: tuple[str, ...] = ()
    """More arguments of the command, such as `--arguments=--no-repair`."""


def main(config: BenchmarkConfig) -> None:
    """Run the command several times."""
    arguments = ["--count", str(config.count), "--resolution", str(config.resolution), *config.arguments]
    arguments += ["--device", config.machine.device, "--threads", str(config.machine.threads)]
    if config.checkpoint:
        arguments += ["--checkpoint", str(config.checkpoint)]
    seconds = [_time_of_sampling(arguments) for _ in range(config.runs)]
    row = {
        "command": " ".join(["hyperdiffusion sample", *config.arguments]),
        "heads": config.count,
        "runs": config.runs,
        "min_seconds": min(seconds),
        "median_seconds": statistics.median(seconds),
        "max_seconds": max(seconds),
        "seconds": seconds,
    }
    publish("sample_speed", SAMPLE_SPEED, [row], config)


def _time_of_sampling(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hyperdiffusion", "sample", str(Path(folder) / "new"), *arguments]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
