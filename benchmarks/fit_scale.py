"""How stage 1 scales: time per head and memory for growing numbers of scans, by short fits.

    python benchmarks/fit_scale.py HEADS
    python benchmarks/fit_scale.py HEADS --counts 64 256

HEADS is a folder of meshes, which are repeated under other names until there are enough. Memory is the largest sum over
the processes of the command, each with the pages that it shares with others.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro
from columns import FIT_SCALE
from results_io import BenchmarkOptions, publish, run_benchmark

from overfit import Scan, find_scans

# Fits that represent no head well: only their number matters here.
SHORT_FITS = (
    *("--prepared", "--steps", "10", "--first-steps", "100", "--points-per-step", "256"),
    *("--near-points", "4000", "--band-points", "2000", "--uniform-points", "2000"),
    *("--no-repair", "--check-resolution", "32", "--max-error-mm", "1000"),
)
# Seconds between two measurements of the memory.
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """How many scans are fitted."""

    heads: tyro.conf.Positional[Path]
    """Folder of meshes."""

    counts: tuple[int, ...] = (64, 256, 1024)
    """Numbers of scans, one row each."""


def main(config: BenchmarkConfig) -> None:
    """Fit each number of scans."""
    scans = find_scans(config.heads)
    rows = [_measure(scans, count, config) for count in config.counts]
    publish("fit_scale", FIT_SCALE, rows, config)


def _measure(scans: Sequence[Scan], count: int, config: BenchmarkConfig) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scans").mkdir()
        for index in range(count):
            path = scans[index % len(scans)].path
            (folder / "scans" / f"{index:06d}{path.suffix}").symlink_to(path)
        command = ["overfit", str(folder / "scans"), str(folder / "store"), *SHORT_FITS]
        machine = ["--device", config.machine.device, "--threads", str(config.machine.threads)]
        seconds, memory = run_command([sys.executable, "-m", "hyperdiffusion", *command, *machine])
    return {"scans": count, "seconds": seconds, "seconds_per_head": seconds / count, "memory_mib": memory}


def run_command(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command takes and the largest memory of its processes in MiB."""
    start, most = time.perf_counter(), 0
    process = psutil.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, _memory(process))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.perf_counter() - start, most / 2**20


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # It ended between two measurements.
    return total


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
