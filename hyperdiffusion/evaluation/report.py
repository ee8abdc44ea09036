"""Evaluation reports: metrics of sets of heads in; a Markdown table, JSON and an HTML page with pictures out."""

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from hyperdiffusion.evaluation.efficientnet_features import INSTALLATION, efficientnet_is_installed
from hyperdiffusion.evaluation.metrics import Estimate
from hyperdiffusion.evaluation.set_metrics import Novelty, SetMetrics
from hyperdiffusion.rendering.render import Camera, render
from overfit.runtime.atomic_io import write_json, write_text

# Generated heads that the page shows beside their nearest training heads.
SHOWN_HEADS = 16
# The same of those nearest to a training head, and of those farthest from all.
SHOWN_EXTREMES = 2
# The view of these heads: half from the side, a head with its neck fits.
CAMERA = Camera(size=200, yaw=-25.0, height_mm=330.0)
HISTOGRAM_BINS = 24
# Pixels of a bar and its gap, and of the histogram's height.
BAR_WIDTH = 20
BAR_PITCH = 22
HISTOGRAM_HEIGHT = 100

# Metrics that need the extra `evaluation`, and what a report without them says.
NETWORK_METRICS = ("frechet_distance_efficientnet",)
MISSING_NETWORK = f"The Fréchet distance by EfficientNet is left out; `{INSTALLATION}` adds it."

PARTLY_SEEN = (
    "Parts of the test heads are invented, and no truth: heads are compared only where every test head was seen, in "
    "{share:.0%} of all directions."
)
EXPLANATION = """\
↑: higher is better, ↓: lower is better, → 0.5: the ideal is 0.5. MMD, coverage and 1-NNA compare a set with the test
heads; at a 1-NNA of 0.5 the two are indistinguishable. Distances are in millimetres between points sampled uniformly by
area, in one frame and at true size; "standardised" clouds are each centred and scaled by themselves, as in published
evaluations. JSD is the Jensen-Shannon divergence of where the points of a set and of the test heads lie. Normal
consistency is the mean cosine of the normals of a test head and its nearest head of the set. Metrics "by normal maps"
compare fixed multi-scale statistics of rendered normal maps; a test head counts for the k-NN coverage if a head of the
set is nearer than its fifth nearest test head. SNC compares how far normals agree with those within 10 mm on the face.
"EfficientNet" compares features that a network trained on ImageNet has of the normal maps, extrapolated to infinitely
many heads: real heads scatter about 0. Diversity is the mean pairwise distance within a set, best as that of the test
heads; compactness is the number of principal components that explain 90 % of the variance of distances from fixed
points. A head is a copy if it lies closer to its nearest training head than the closest 1 % of test heads do, and
authentic if it lies farther from its nearest training head than that head does from its own nearest one. A valid head
is watertight, has one component, no self-intersections and human size. Brackets: 95 % confidence intervals by bootstrap
over the heads."""

Value = Estimate | float | int | None


@dataclass(frozen=True)
class Metric:
    """A row of the table."""

    key: str
    """Its name in report.json."""
    label: str
    """Its name in the table, with its unit and an arrow that says what is better."""
    value: Callable[[SetMetrics], Value]
    """Its value for a set, or None if it has no meaning there."""
    digits: int = 2
    """Decimal places in the table."""


def _at(path: str) -> Callable[[SetMetrics], Value]:
    """Return a function for a value of SetMetrics by its dotted path, or None where a part of the path is None."""

    def value(metrics: SetMetrics) -> Value:
        found: Any = metrics
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        return found

    return value


def _validity_share(name: str) -> Callable[[SetMetrics], Value]:
    """Return a function for the share of a set's heads that have a property of `Validity`."""

    def share(metrics: SetMetrics) -> Value:
        values = [float(getattr(validity, name)) for validity in metrics.validity]
        return Estimate.of(np.array(values)) if values else None

    return share


METRICS = (
    Metric("heads", "heads", _at("heads")),
    Metric("mmd_chamfer_mm", "MMD, Chamfer (mm) ↓", _at("chamfer.mmd")),
    Metric("coverage_chamfer", "coverage, Chamfer ↑", _at("chamfer.coverage")),
    Metric("one_nna_chamfer", "1-NNA, Chamfer → 0.5", _at("chamfer.one_nna")),
    Metric(
        "mmd_chamfer_standardised",
        "MMD, Chamfer, standardised ↓",
        _at("chamfer_standardised.mmd"),
        digits=4,
    ),
    Metric(
        "coverage_chamfer_standardised",
        "coverage, Chamfer, standardised ↑",
        _at("chamfer_standardised.coverage"),
    ),
    Metric(
        "one_nna_chamfer_standardised",
        "1-NNA, Chamfer, standardised → 0.5",
        _at("chamfer_standardised.one_nna"),
    ),
    Metric("mmd_emd_mm", "MMD, EMD (mm) ↓", _at("emd.mmd")),
    Metric("coverage_emd", "coverage, EMD ↑", _at("emd.coverage")),
    Metric("one_nna_emd", "1-NNA, EMD → 0.5", _at("emd.one_nna")),
    Metric("jsd", "JSD (bits) ↓", _at("jsd"), digits=4),
    Metric("normal_consistency", "normal consistency ↑", _at("normal_consistency"), digits=3),
    Metric("frechet_distance", "Fréchet distance, normal maps ↓", _at("frechet_distance")),
    Metric("kernel_distance", "kernel distance, normal maps (x 1000) ↓", _at("kernel_distance")),
    Metric("one_nna_normal_maps", "1-NNA, normal maps → 0.5", _at("one_nna_normal_maps")),
    Metric("knn_coverage_normal_maps", "k-NN coverage, normal maps ↑", _at("knn_coverage_normal_maps")),
    Metric("snc_distance", "SNC distance (x 1000) ↓", _at("snc_distance")),
    Metric(
        "frechet_distance_efficientnet",
        "Fréchet distance, EfficientNet ↓",
        _at("frechet_distance_efficientnet"),
    ),
    Metric("diversity_mm", "diversity (mm)", _at("diversity_mm")),
    Metric("compactness", "compactness (components)", _at("compactness")),
    Metric(
        "nearest_training_mm",
        "distance to the nearest training head (mm)",
        _at("novelty.nearest_training_mm"),
    ),
    Metric("copy_rate", "copy rate ↓", _at("novelty.copy_rate"), digits=3),
    Metric("authenticity", "authenticity → 0.5", _at("novelty.authenticity")),
    Metric("watertight", "watertight ↑", _validity_share("watertight")),
    Metric("one_component", "one component ↑", _validity_share("one_component")),
    Metric("no_self_intersections", "no self-intersections ↑", _validity_share("no_self_intersections")),
    Metric("human_size", "human size ↑", _validity_share("human_size")),
    Metric("valid", "valid ↑", _validity_share("valid")),
)


@dataclass(frozen=True)
class EvaluationReport:
    """The metrics of the test heads, the training heads and one or more generated sets."""

    sets: dict[str, SetMetrics]
    """Metrics by the name of the set; the last one is shown in pictures."""
    meshes: Sequence[trimesh.Trimesh | None]
    """The heads of the last set in millimetres, None for each that failed."""
    training: Sequence[trimesh.Trimesh]
    """The training heads; may be empty."""
    compared_share: float = 1.0
    """Share of a head in which heads are compared: where every test head was seen."""

    def table(self) -> str:
        """Return the metrics as a Markdown table."""
        return metrics_table(self.sets)

    def values(self) -> dict[str, dict[str, Any]]:
        """Return the metrics as JSON values by set and key: numbers, or mean, low and high; null if not finite."""
        return {name: _json_values(metrics) for name, metrics in self.sets.items()}

    def write(self, out: Path) -> None:
        """Write report.json, report.md and report.html into a folder."""
        write_json(out / "report.json", self.values())
        write_text(out / "report.md", "\n\n".join([self.table(), *self._explanations()]) + "\n")
        write_text(out / "report.html", self._page())

    def _page(self) -> str:
        """Return one HTML page that contains its pictures, so that it opens from disk."""
        name, metrics = list(self.sets.items())[-1]
        parts = [
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>Evaluation</title>",
            "<style>body{font:15px sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}td,th{padding:2px 10px;"
            "text-align:left}figure{display:inline-block;margin:4px}figcaption{font-size:12px}</style>",
            f"<h1>{html.escape(name)}: {metrics.heads} heads</h1>",
            _html_table(self.sets),
            *[f"<p>{html.escape(text, quote=False)}</p>" for text in self._explanations()],
        ]
        if metrics.novelty is not None and self.training:
            parts += self._novelty_section(metrics.novelty)
        return "\n".join([*parts, "</html>"])

    def _explanations(self) -> list[str]:
        """The paragraphs under the table."""
        partly = [PARTLY_SEEN.format(share=self.compared_share)] if self.compared_share < 1 else []
        missing = [] if efficientnet_is_installed() else [MISSING_NETWORK]
        return [*partly, EXPLANATION, *missing]

    def _novelty_section(self, novelty: Novelty) -> list[str]:
        decoded = [index for index, mesh in enumerate(self.meshes) if mesh is not None]
        by_distance = [index for index in map(int, np.argsort(novelty.distances_mm)) if self.meshes[index] is not None]
        extremes = [*by_distance[:SHOWN_EXTREMES], *by_distance[-SHOWN_EXTREMES:]]
        distances = {
            name: metrics.novelty.distances_mm for name, metrics in self.sets.items() if metrics.novelty is not None
        }
        return [
            "<h2>Each head, with its nearest training head on the right</h2>",
            *[self._figure(index, novelty) for index in decoded[:SHOWN_HEADS]],
            "<h2>The nearest to a training head, and the farthest from all</h2>",
            *[self._figure(index, novelty) for index in extremes],
            "<h2>Distance to the nearest training head</h2>",
            _histograms(distances),
        ]

    def _figure(self, index: int, novelty: Novelty) -> str:
        pair = (self.meshes[index], self.training[novelty.nearest[index]])
        views = [render(mesh, CAMERA) for mesh in pair if mesh is not None]
        caption = f"head {index}, {novelty.distances_mm[index]:.2f} mm from training head {novelty.nearest[index]}"
        return (
            f"<figure><img src='{_data_url(np.concatenate(views, axis=1))}' alt='{caption}'>"
            f"<figcaption>{caption}</figcaption></figure>"
        )


def available_metrics() -> list[Metric]:
    """Return the metrics that can be computed with the packages that are installed."""
    return [metric for metric in METRICS if metric.key not in NETWORK_METRICS or efficientnet_is_installed()]


def metrics_table(sets: dict[str, SetMetrics]) -> str:
    """Return a Markdown table with a row for each metric and a column for each set."""
    lines = [_markdown_row(["", *sets]), _markdown_row(["---"] * (len(sets) + 1))]
    for metric in available_metrics():
        cells = [_text(metric.value(metrics), metric.digits) for metrics in sets.values()]
        lines.append(_markdown_row([metric.label, *cells]))
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _html_table(sets: dict[str, SetMetrics]) -> str:
    names = "".join(f"<th>{html.escape(name)}</th>" for name in sets)
    rows = [f"<tr><th></th>{names}</tr>"]
    for metric in available_metrics():
        cells = "".join(f"<td>{_text(metric.value(metrics), metric.digits)}</td>" for metrics in sets.values())
        rows.append(f"<tr><th>{html.escape(metric.label)}</th>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _text(value: Value, digits: int) -> str:
    if isinstance(value, Estimate):
        return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return "" if value is None else str(value)


def _json_values(metrics: SetMetrics) -> dict[str, Any]:
    values: dict[str, Any] = {metric.key: _json_value(metric.value(metrics)) for metric in available_metrics()}
    if metrics.novelty is not None:
        values["nearest_training_head"] = metrics.novelty.nearest
        values["distance_to_training_mm"] = [_json_value(distance) for distance in metrics.novelty.distances_mm]
    values["validity"] = [asdict(validity) for validity in metrics.validity]
    return values


def _json_value(value: Value) -> Any:
    """Return a number or a mean with its interval; JSON knows no infinity."""
    if isinstance(value, Estimate):
        return {name: _json_value(number) for name, number in asdict(value).items()}
    return None if value is None or not math.isfinite(value) else value


def _data_url(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _histograms(distances: dict[str, list[float]]) -> str:
    """Return a histogram of each set's finite values as SVG, all on one axis."""
    finite = {name: np.array(values)[np.isfinite(values)] for name, values in distances.items()}
    finite = {name: values for name, values in finite.items() if len(values)}
    if not finite:
        return ""
    edges = np.histogram_bin_edges(np.concatenate(list(finite.values())), HISTOGRAM_BINS)
    return "".join(_histogram(name, values, edges) for name, values in finite.items())


def _histogram(name: str, values: np.ndarray, edges: np.ndarray) -> str:
    counts = np.histogram(values, edges)[0]
    bars = "".join(_bar(index, HISTOGRAM_HEIGHT * count / counts.max()) for index, count in enumerate(counts))
    width, height = BAR_PITCH * HISTOGRAM_BINS, HISTOGRAM_HEIGHT + 1
    return (
        f"<p>{html.escape(name)}: {edges[0]:.2f} to {edges[-1]:.2f} mm</p>"
        f"<svg width='{width}' height='{height}' viewBox='0 0 {width} {height}'>{bars}"
        f"<line x1='0' y1='{HISTOGRAM_HEIGHT + 0.5}' x2='{width}' y2='{HISTOGRAM_HEIGHT + 0.5}' stroke='#333'/></svg>"
    )


def _bar(index: int, height: float) -> str:
    return (
        f"<rect x='{BAR_PITCH * index}' y='{HISTOGRAM_HEIGHT - height:.1f}' width='{BAR_WIDTH}' "
        f"height='{height:.1f}' fill='#a87'/>"
    )
