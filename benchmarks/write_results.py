"""Result files in docs/results in; the tables of the documents out.

    python benchmarks/write_results.py             # rewrites the tables
    python benchmarks/write_results.py --check     # fails if a document differs from its results

A document holds a table between the markers `<!-- results:NAME -->` and `<!-- /results -->`. A value inside a sentence
stands between the same markers on one line. Below a table stand the command, commit, date and machine of its rows.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import columns
import tyro
from tables import Column, machine_text, markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
MARKED = re.compile(r"(<!-- results:([a-z0-9-]+) -->)(.*?)(<!-- /results -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A table of rows from one or more result files."""

    columns: Sequence[Column]
    """Its columns; those without values are left out."""

    files: Sequence[str]
    """Names of the result files, in the order of their rows."""

    only: Sequence[str] = ()
    """First cells of the rows to show; all rows if empty."""

    sources: bool = True
    """Whether the commands and commits stand below the table."""

    def markdown(self) -> str:
        """Return the table and, below it, where its rows come from."""
        results = [_result(name) for name in self.files]
        rows = [self._rows_of(result) for result in results]
        table = markdown_table(self.columns, [row for some in rows for row in some])
        return f"{table}\n\n{_sources(results, [len(some) for some in rows])}" if self.sources else table

    def _rows_of(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a result that belong to this table; each also knows its machine."""
        rows = [{"machine": machine_text(result["machine"]), **row} for row in result["rows"]]
        key = self.columns[0].key
        return [row for row in rows if key in row and (not self.only or row[key] in self.only)]


@dataclass(frozen=True)
class StepTimes:
    """A table of the time that each step takes, with one machine per column."""

    steps: Mapping[str, str]
    """Steps in the result files, and their text in the table."""

    machines: Mapping[str, Sequence[str]]
    """Headings of the columns, each with the names of its result files."""

    def markdown(self) -> str:
        """Return the table; a cell is empty where a step was not measured."""
        times = {machine: _step_times(files) for machine, files in self.machines.items()}
        rows = [
            {"step": text} | {machine: found[step] for machine, found in times.items() if step in found}
            for step, text in self.steps.items()
        ]
        table = markdown_table([Column("step", "step"), *(Column(machine, machine) for machine in times)], rows)
        return "\n\n".join([table, *self._footnotes()])

    def _footnotes(self) -> list[str]:
        """Return why times are marked."""
        results = [_result(name) for names in self.machines.values() for name in names]
        return [
            f"{row['mark'].strip()} {result['note']}." for result in results for row in result["rows"] if "mark" in row
        ]


@dataclass(frozen=True)
class Value:
    """A value for a sentence."""

    file: str
    """Name of its result file."""

    row: str
    """First cell of its row."""

    column: Column
    """Where it stands in the row, and how it is written."""

    def markdown(self) -> str:
        """Return the value without its interval."""
        row = next(row for row in _result(self.file)["rows"] if self.row in row.values())
        value = row[self.column.key]
        return self.column.text(value["mean"] if isinstance(value, Mapping) else value)


def _results_named(pattern: str) -> list[str]:
    """Return the names of the result files that match a pattern: one for each machine."""
    return sorted(path.stem for path in RESULTS.glob(f"{pattern}.json"))


STEPS = {
    "prepare, per scan": "1. prepare, per scan",
    "overfit, per head": "2. overfit, per head",
    "train": "3. train on 512 heads",
    "hyperdiffusion sample": "4. sample 16 heads, with a picture",
    "demo": "`make demo` (96 heads, all steps)",
}
ICT = ("ict_neutral_ours", "ict_neutral_hyperdiffusion", "ict_neutral_auto_decoder_hour", "ict_neutral_baselines")
MIXED = ("mixed_reference", "mixed_ours", "mixed_hyperdiffusion", "mixed_baselines")
SUMMARY = (
    "training fits",
    "ours",
    "auto-decoder + diffusion",
    "Gaussian on PCA of weights (80 components)",
    "Gaussian on PCA of vertices (3DMM)",
    "HyperDiffusion (published scaling)",
)
INCLUDED = ("test scans", "training fits", "transformer with attributes")
CONTENTS: dict[str, Table | StepTimes | Value] = {
    # README.md
    "expected-times": StepTimes(
        STEPS,
        {
            "two cores of an AMD EPYC, Zen 4": ("prepare_time_zen4", "fit_time_zen4", "train_time_zen4", "demo_zen4"),
            "two cores of an AMD EPYC, Zen 3": ("fit_time_zen3", "train_time_zen3", "sample_speed_zen3"),
            "one H100": ("train_time_h100",),
        },
    ),
    "quality": Table(
        (columns.SET, columns.ONE_NNA, columns.COVERAGE, columns.MMD, columns.DIVERSITY, columns.COPY_RATE),
        ("ict_neutral_ours", "ict_neutral_baselines", "ict_neutral_hyperdiffusion"),
        only=SUMMARY,
        sources=False,
    ),
    "copy-rate-ict": Value("ict_neutral_ours", "ours", columns.COPY_RATE),
    "copy-rate-mixed": Value("mixed_ours", "ours", columns.COPY_RATE),
    "copy-rate-test": Value("ict_neutral_ours", "test scans", columns.COPY_RATE),
    "sample-seconds": Value(
        "sample_speed_zen3", "hyperdiffusion sample", Column("median_seconds", "", digits=0, unit="s")
    ),
    # checkpoints/README.md
    "included-model": Table(columns.POPULATION, ("population",), only=INCLUDED, sources=False),
    # docs/results.md
    "ict-neutral": Table([column for column in columns.GENERATORS if column is not columns.NEAREST], ICT),
    "mixed": Table(columns.GENERATORS, MIXED),
    "ict-256-hour": Table(columns.GENERATORS, ("ict_256_hour", "ict_256_hour_grids")),
    "ict-256-hour-emd": Table(columns.GENERATORS, ("ict_256_hour_emd",)),
    "ict-neutral-gpu": Table(columns.GENERATORS, ("ict_neutral_gpu",)),
    "gpu-speed": Table(columns.GPU_SPEED, ("gpu_speed",)),
    "training-set-size": Table(columns.TRAINING_SET_SIZE, ("training_set_size",)),
    "population": Table(columns.POPULATION, ("population",)),
    "control": Table(columns.CONTROL, ("control",)),
    "completion": Table(columns.COMPLETION, ("completion",)),
    "completion-noise": Table(columns.COMPLETION_NOISE, ("completion_noise",)),
    "few-scans": Table(columns.FEW_SCANS, ("few_scans",)),
    "alignment-ict-96": Table(columns.ALIGNMENT, ("alignment_ict_96",)),
    "denoiser": Table(columns.DENOISER, ("denoiser",)),
    "alignment-default-96": Table(columns.ALIGNMENT, ("alignment_default_96",)),
    "fit-quality": Table(columns.FIT_QUALITY, ("fit_quality",)),
    "fit-neighbours": Table(columns.FIT_NEIGHBOURS, ("fit_quality",), sources=False),
    "fit-midpoints": Table(columns.FIT_MIDPOINTS, ("fit_quality",), sources=False),
    "fit-speed": Table(columns.FIT_SPEED, ("fit_speed",)),
    "fit-scale": Table(columns.FIT_SCALE, ("fit_scale",)),
    "prepare-repeatability": Table(columns.PREPARE_QUALITY, ("prepare_repeatability",)),
    "prepare-quality": Table(columns.PREPARE_QUALITY, ("prepare_quality",)),
    "sample-speed": Table((Column("machine", "machine"), *columns.SAMPLE_SPEED), _results_named("sample_speed_*")),
    "train-scale": Table(columns.TRAIN_SCALE, ("train_scale",)),
    "metrics-speed": Table(columns.METRICS_SPEED, ("metrics_speed",)),
}


def duration(seconds: float) -> str:
    """Return a time in seconds, or in minutes and seconds from 100 s on."""
    if seconds < 20:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def documents() -> list[Path]:
    """Return the documents that may hold results."""
    return [ROOT / "README.md", ROOT / "checkpoints" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """Return a document with the contents of its markers replaced by what the result files say."""
    return MARKED.sub(
        lambda match: f"{match[1]}{_content(match[2], is_inline=chr(10) not in match[3])}{match[4]}", text
    )


def files_of(content: Table | StepTimes | Value) -> Sequence[str]:
    """Return the names of the result files that a table or value takes its content from."""
    if isinstance(content, Value):
        return [content.file]
    if isinstance(content, StepTimes):
        return [name for names in content.machines.values() for name in names]
    return content.files


def main(check: bool = False) -> None:
    """Rewrite the tables of the documents, or check that they agree with the result files."""
    different = []
    for path in documents():
        old = path.read_text()
        new = filled(old)
        if new != old:
            different.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new)
    print(
        "\n".join(f"{name}: {'differs' if check else 'rewritten'}" for name in different)
        or "all documents agree with their results"
    )
    if check and different:
        sys.exit(1)


def _content(name: str, *, is_inline: bool) -> str:
    if name not in CONTENTS:
        raise SystemExit(f"results:{name}: no such table; there are {', '.join(CONTENTS)}")
    markdown = CONTENTS[name].markdown()
    return markdown if is_inline else f"\n{markdown}\n"


def _result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _step_times(files: Sequence[str]) -> dict[str, str]:
    """Return the time of each step, marked if it was measured with other settings than the present defaults."""
    rows = [row for name in files for row in _result(name)["rows"]]
    return {
        row.get("step", row.get("command")): duration(row.get("median_seconds") or row["seconds"]) + row.get("mark", "")
        for row in rows
    }


def _sources(results: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> str:
    """Return one paragraph per result file: its rows in the table, command, commit, date, machine and note."""
    parts, first = [], 1
    for result, count in zip(results, counts):
        last = first + count - 1
        rows = f"Row {first}: " if first == last else f"Rows {first} to {last}: "
        note = f"; {result['note']}" if "note" in result else ""
        machine = machine_text(result["machine"])
        origin = f"`{result['command']}`, commit {result['commit']}, {result['date']}, {machine}{note}."
        parts.append((rows if len(results) > 1 else "") + origin)
        first = last + 1
    return "\n\n".join(parts)


if __name__ == "__main__":
    tyro.cli(main)
