"""Runs benchmarks on tiny data by their own command line, as tests of them do."""

import json

ONE_CORE = ["--device", "cpu", "--threads", "1"]


def run(benchmark, out, *arguments) -> dict:
    """Run a benchmark's command line and return its result."""
    # On the path only where benchmarks are tested.
    import results_io

    words = [str(word) for word in (*arguments, "--json", out, *ONE_CORE)]
    benchmark.main(results_io.parse_config(benchmark.BenchmarkConfig, words))
    result = json.loads(out.read_text())
    assert result["benchmark"] == benchmark.__name__ and result["machine"]["cores"] == 1
    return result


def short_fits(prefix: str) -> list[str]:
    """Flags for fits of ellipsoids that take a second."""
    values = {
        "fit.steps": 40,
        "fit.first-steps": 150,
        "fit.points-per-step": 256,
        "labels.near-points": 3000,
        "labels.band-points": 1000,
        "labels.uniform-points": 1000,
        "check-resolution": 32,
        "max-error-mm": 1000,
        "alignment.align": "none",
    }
    flags = [str(word) for name, value in values.items() for word in (f"--{prefix}.{name}", value)]
    return [*flags, f"--{prefix}.no-repair"]
