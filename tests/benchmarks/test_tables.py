"""Cells, arrows, bold values and machines of the tables."""

import tables
from tables import Column

ROWS = [
    {"set": "test scans", "one_nna": None, "diversity_mm": 10.0, "copy_rate": 0.012},
    {"set": "training fits", "one_nna": 0.50, "diversity_mm": 10.0, "copy_rate": 1.0},
    {"set": "ours", "one_nna": {"mean": 0.56, "low": 0.52, "high": 0.60}, "diversity_mm": 10.4, "copy_rate": 0.004},
    {"set": "other", "one_nna": 0.42, "diversity_mm": 9.5, "copy_rate": 0.1},
]
COLUMNS = (
    Column("set", "heads"),
    Column("one_nna", "1-NNA", "half"),
    Column("diversity_mm", "diversity, mm", "reference"),
    Column("copy_rate", "copy rate", "lower", digits=1, percent=True),
    Column("missing", "missing", "higher"),
)


def lines() -> list[list[str]]:
    table = tables.markdown_table(COLUMNS, ROWS)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_headings_tell_which_values_are_better_and_empty_columns_are_left_out():
    assert lines()[0] == ["heads", "1-NNA → 0.5", "diversity, mm → test", "copy rate ↓"]


def test_the_best_generator_is_bold_and_intervals_stay():
    assert lines()[4] == ["ours", "**0.56** [0.52, 0.60]", "**10.40**", "**0.4 %**"]
    assert lines()[5] == ["other", "0.42", "9.50", "10.0 %"]


def test_reference_rows_are_never_bold():
    assert lines()[2] == ["test scans", "", "10.00", "1.2 %"]
    assert lines()[3] == ["training fits", "0.50", "10.00", "100.0 %"]


def test_a_single_generator_is_not_the_best_of_anything():
    assert "**" not in tables.markdown_table(COLUMNS, ROWS[:3])


def test_machines_are_described_in_one_line():
    machine = {"cpu": "X", "cores": 1, "avx512": True, "bf16": False, "torch": "2.0", "gpu": None}
    assert tables.machine_text(machine) == "1 core of X with AVX-512, torch 2.0"
    unknown = machine | {"avx512": None, "bf16": None, "gpu": "one H100", "cores": 16}
    assert tables.machine_text(unknown) == "one H100 and 16 cores of X, torch 2.0"
