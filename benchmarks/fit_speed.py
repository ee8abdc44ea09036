"""Seconds a head at equal surface error: our way of fitting beside the published one, on the same heads and machine.

    python benchmarks/fit_speed.py HEADS
    python benchmarks/fit_speed.py HEADS --device cuda

Both start from a network that was fitted their own way to the first head; labels count, the first fit does not. The
published way (preset `paper`) fits one network after another with all the machine's threads, in float32 with Adam and a
plateau schedule; ours fits `ours` heads at once through the command's own workers. Neither is healed: the published way
knows no healing, and unfinished fits have much to heal. Each is stopped at several numbers of steps. The last column is
how many times faster ours reaches the error that the published way has in its row, read from the line between our
points.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from overfit import PRESETS, Cube, Machine, Settings, decode
from overfit.accuracy import surface_error
from overfit.batch import fit_batch, label_scan
from overfit.fit import fit
from overfit.occupancy import tensors
from overfit.run import BATCH
from overfit.scans import Scan, find, read
from overfit.workers import run


@dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    # Folder of heads; the first makes the networks from which the others start.
    heads: tyro.conf.Positional[Path]
    # Heads fitted the published way.
    published: int = 1
    # Heads fitted our way; 0 takes as many as one batch for every worker.
    ours: int = 0
    # Steps after which either is measured.
    published_steps: tuple[int, ...] = (1000, 2000, 4000, 8000, 16000)
    our_steps: tuple[int, ...] = (150, 300, 600, 1200, 2000)
    machine: Machine = Machine()


def timed(scans: list[Scan], base: torch.Tensor, cube: Cube, settings: Settings, device: torch.device,
          workers: int) -> tuple[float, float]:
    """Seconds a head, and mean surface error in mm of the decoded heads, which is not in the seconds."""
    size = BATCH[device.type] if workers > 1 else 1
    tasks = [(scans[start:start + size], base, cube, settings, device) for start in range(0, len(scans), size)]
    begun = time.perf_counter()
    weights = torch.cat([batch.weights for _, batch in sorted(run(fit_batch, tasks, workers=workers))])
    seconds = (time.perf_counter() - begun) / len(scans)
    errors = [surface_error(decode(settings.field, row, cube), read(scan), np.random.default_rng(0)).mean_mm
              for scan, row in zip(scans[:4], weights)]
    return seconds, float(np.mean(errors))


def first_fit(scan: Scan, cube: Cube, settings: Settings, steps: int, device: torch.device) -> torch.Tensor:
    """The network (P,) that the others start from."""
    start = settings.field.initial(torch.Generator().manual_seed(0))
    labels = tensors([label_scan(scan, cube, settings).fitted], device)
    return fit(settings.field, start, *labels, settings.fitting, steps, settings.fitting.rate)[0].cpu()


def curve(name: str, settings: Settings, all_steps: tuple[int, ...], first_steps: int, scans: list[Scan], cube: Cube,
          device: torch.device, workers: int) -> np.ndarray:
    """(steps, 2) seconds a head and errors in mm, which are printed."""
    settings = replace(settings, worst_mm=np.inf, healing=False)
    base = first_fit(scans[0], cube, settings, first_steps, device)
    points = []
    for steps in all_steps:
        fitting = replace(settings.fitting, steps=steps)
        points.append(timed(scans[1:], base, cube, replace(settings, fitting=fitting), device, workers))
        print(f"| {name} | {steps} x {fitting.points} | {points[-1][1]:.3f} | {points[-1][0]:.1f} | "
              f"{3600 / points[-1][0]:.0f} |", flush=True)
    return np.array(points)


def main(benchmark: Benchmark) -> None:
    """Print both curves and the ratios."""
    device = benchmark.machine.use()
    workers = max(2, benchmark.machine.cores)
    ours = benchmark.ours or workers * BATCH[device.type]
    scans = find(benchmark.heads)[:1 + max(ours, benchmark.published)]
    cube = Cube.around(np.array([read(scan).bounds for scan in scans]), Settings().margin)
    print("| way | steps x points | error, mm | seconds a head | heads an hour |\n" + "| --- " * 5 + "|")
    published = curve("published", PRESETS["paper"], benchmark.published_steps, benchmark.published_steps[-1],
                      scans[:1 + benchmark.published], cube, device, 1)
    fast = curve("ours", Settings(), benchmark.our_steps, Settings().fitting.first_steps, scans[:1 + ours], cube,
                 device, workers)
    print("\n| error of the published way, mm | its seconds | ours | times faster |\n" + "| --- " * 4 + "|")
    # Errors fall with the steps: turned about, they rise as interpolation wants them.
    for seconds, error in published:
        if error < fast[:, 1].min():
            print(f"| {error:.3f} | {seconds:.1f} | not reached | |")
            continue
        our_seconds = np.interp(error, fast[::-1, 1], fast[::-1, 0])
        print(f"| {error:.3f} | {seconds:.1f} | {our_seconds:.1f} | {seconds / our_seconds:.0f} |")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
