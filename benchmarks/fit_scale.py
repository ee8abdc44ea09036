"""How stage 1 grows: seconds a head and memory for 64, 256 and 1,024 scans, by short fits.

    python benchmarks/fit_scale.py HEADS
    python benchmarks/fit_scale.py HEADS --counts 64 256

HEADS is a folder of meshes, which are repeated under other names until there are enough. Memory is the largest sum over
the command's processes, each with the pages that it shares with others.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro

from overfit.scans import find

# Fits that hold no head well: only their number counts here.
SHORT = ("--steps", "10", "--first-steps", "100", "--points", "256", "--near", "4000", "--wide", "2000", "--uniform",
         "2000", "--no-healing", "--review", "32", "--worst-mm", "1000")
# Seconds between two looks at the memory.
LOOK = 0.5


@dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    heads: tyro.conf.Positional[Path]
    counts: tuple[int, ...] = (64, 256, 1024)


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds that a command takes, and its processes' largest memory in MiB."""
    begun, most = time.perf_counter(), 0
    process = psutil.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, _memory(process))
        time.sleep(LOOK)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.perf_counter() - begun, most / 2**20


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # Ended between two looks.
    return total


def main(benchmark: Benchmark) -> None:
    """Print the table."""
    scans = find(benchmark.heads)
    print("| scans | seconds | seconds a head | memory, MiB |\n" + "| --- " * 4 + "|")
    for count in benchmark.counts:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "scans").mkdir()
            for index in range(count):
                scan = scans[index % len(scans)]
                (Path(folder) / "scans" / f"{index:06d}{scan.path.suffix}").symlink_to(scan.path)
            seconds, memory = measure([sys.executable, "-m", "hyperdiffusion", "overfit", f"{folder}/scans",
                                       f"{folder}/store", "--prepared", *SHORT])
        print(f"| {count} | {seconds:.0f} | {seconds / count:.2f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
