"""Results of the benchmarks: rows and columns in; a JSON file and a Markdown table out.

A result file holds everything that its table needs: the benchmark, its command, commit, date and machine, and one
object per row. A row's values are numbers, words, or estimates `{"mean", "low", "high"}` with their 95 % interval.
Files transcribed from an earlier document also name it as their `source`.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro
from tables import Column, Row, markdown_table

from hyperdiffusion import EvaluationReport, SetMetrics
from overfit import BadInput, Machine

ROOT = Path(__file__).resolve().parents[1]
CPU_INFO = Path("/proc/cpuinfo")
Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of every benchmark."""

    json: Path | None = None
    """File for the result as JSON."""

    machine: tyro.conf.OmitArgPrefixes[Machine] = Machine()
    """The computer's resources."""


def parse_config(config: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """Return the config that the command line, or the given arguments, describe."""
    return tyro.cli(
        config,
        args=arguments,
        config=(tyro.conf.PositionalMetavarFromFieldName,),
    )


def run_benchmark(main: Callable[[Config], None], config: type[Config]) -> None:
    """Run a benchmark by the command line. Bad input ends in one line."""
    try:
        main(parse_config(config))
    except BadInput as error:
        sys.exit(str(error))


def write_result(benchmark: str, rows: Sequence[Row], options: BenchmarkOptions) -> None:
    """Write rows with the command, commit, date and machine that made them as JSON, if a file is given."""
    if options.json is None:
        return
    result = {
        "benchmark": benchmark,
        "command": _command(),
        "commit": _commit(),
        "date": date.today().isoformat(),
        "machine": describe_machine(options.machine),
        "rows": list(rows),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def publish(benchmark: str, columns: Sequence[Column], rows: Sequence[Row], options: BenchmarkOptions) -> None:
    """Print the table of a benchmark and writes its result as JSON, if a file is given."""
    print(markdown_table(columns, rows), flush=True)
    write_result(benchmark, rows, options)


def kept_row(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a row that was measured before, or is measured now and kept in a file."""
    if not path.exists():
        path.write_text(json.dumps(measure()))
    return json.loads(path.read_text())


def metric_values(metrics: SetMetrics) -> dict[str, Any]:
    """Return the metrics of a set of heads as the values of a row."""
    return EvaluationReport({"heads": metrics}, meshes=[], training=[]).values()["heads"]


def describe_machine(machine: Machine) -> dict[str, Any]:
    """Return the CPU model, cores in use, vector instructions, torch version and GPU of this machine."""
    fields = _cpu_fields()
    flags = fields.get("flags", "").split()
    uses_gpu = machine.device != "cpu" and torch.cuda.is_available()
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": machine.threads or os.cpu_count() or 1,
        "avx512": "avx512f" in flags,
        "bf16": "avx512_bf16" in flags or "amx_bf16" in flags,
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if uses_gpu else None,
    }


def _command() -> str:
    words = [shlex.quote(word) for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def _commit() -> str:
    """Return the short commit, with `+` if the working tree differs from it; "unknown" outside a repository."""
    try:
        commit = _git("rev-parse", "--short=7", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _cpu_fields() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo; empty on other systems."""
    if not CPU_INFO.exists():
        return {}
    first = CPU_INFO.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
