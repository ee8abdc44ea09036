"""A report for people: evaluated sets in; a Markdown table, JSON, and one HTML page with pictures out."""

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from overfit.files import replacing

from .evaluate import Effort, Evaluated, Real, evaluate
from .metrics import Figure
from .render import render

# Heads shown beside their nearest ones, pixels of a picture, and its height in millimetres.
SHOWN, SIZE, EXTENT = 16, 200, 330.0
BINS = 24
EXPLANATION = """\
MMD, coverage and 1-NNA compare a set with the heads held out; a 1-NNA of 0.5 cannot be told from them. Distances are
in millimetres, of points uniform by area in one frame; "standardised" are of clouds each centred and scaled by
itself, as published evaluations do. A head counts as a copy where it is nearer to a head learned from than 1 % of the
held-out heads are, and as authentic where it is farther from its nearest learned head than that one from its own
nearest. Normals are the mean cosine between a held-out head and its nearest of the set. Fréchet and kernel distances
are of fixed multi-scale statistics of rendered normal maps, not of a pretrained network. MMD is also the
generalisation and the distance to the nearest learned head the specificity of a head model; compactness is the number
of principal components that hold 90 % of the variance of distances from fixed points. Brackets: 95 % by bootstrap
over the heads."""


def report(made: Sequence[trimesh.Trimesh | None], held_out: list[trimesh.Trimesh], learned: list[trimesh.Trimesh],
           out: Path, effort: Effort = Effort(), cores: int = 1) -> str:
    """Compare generated heads, None where one failed, with real ones; writes the report and returns its table."""
    real = Real.of(held_out, learned, effort, cores)
    sets = {"held out": real.row(cores)}
    if learned:
        # As many as held-out ones: sets of different sizes are told apart by their sizes too.
        sets["learned from"] = evaluate("learned from", learned[:len(held_out)], real, effort, cores, 1, True)
    sets["generated"] = evaluate("generated", made, real, effort, cores)
    write(out, sets, made, real)
    return table(sets)


def table(sets: dict[str, Evaluated]) -> str:
    """Markdown: figures by row, sets by column."""
    rows = {
        "heads": lambda e: str(e.count),
        "MMD, mm": lambda e: e.chamfer and _text(e.chamfer.mmd_mm),
        "coverage": lambda e: e.chamfer and _text(e.chamfer.coverage),
        "1-NNA": lambda e: e.chamfer and _text(e.chamfer.one_nna),
        "MMD, standardised": lambda e: e.standardised and _text(e.standardised.mmd_mm, 4),
        "coverage, standardised": lambda e: e.standardised and _text(e.standardised.coverage),
        "1-NNA, standardised": lambda e: e.standardised and _text(e.standardised.one_nna),
        "MMD by earth mover's, mm": lambda e: e.emd and _text(e.emd.mmd_mm),
        "coverage by earth mover's": lambda e: e.emd and _text(e.emd.coverage),
        "1-NNA by earth mover's": lambda e: e.emd and _text(e.emd.one_nna),
        "divergence of occupancy": lambda e: _number(e.divergence, 4),
        "normals": lambda e: e.normals and _text(e.normals, 3),
        "Fréchet, normal maps": lambda e: _number(e.frechet, 2),
        "kernel, normal maps": lambda e: _number(e.kernel, 2),
        "spread, mm": lambda e: f"{e.spread_mm:.2f}",
        "compactness": lambda e: str(e.compactness),
        "nearest learned head, mm": lambda e: e.nearest_mm and _text(e.nearest_mm),
        "copies": lambda e: e.copies and _text(e.copies, 3),
        "authentic": lambda e: e.authentic and _text(e.authentic),
        "closed": lambda e: _share(e, "closed"),
        "one body": lambda e: _share(e, "one_body"),
        "without self-intersection": lambda e: _share(e, "uncut"),
        "human size": lambda e: _share(e, "human"),
        "valid": lambda e: _share(e, "valid"),
    }
    lines = [f"| | {' | '.join(sets)} |", "| --- |" + " --- |" * len(sets)]
    lines += [f"| {name} | {' | '.join(cell(one) or '' for one in sets.values())} |" for name, cell in rows.items()]
    return "\n".join(lines)


def write(out: Path, sets: dict[str, Evaluated], meshes: Sequence[trimesh.Trimesh | None], real: Real) -> None:
    """Write report.json, report.md and report.html of sets, the last of which has these meshes and is shown."""
    out.mkdir(parents=True, exist_ok=True)
    plain = {name: asdict(one) for name, one in sets.items()}
    _write(out / "report.json", json.dumps(plain, indent=1))
    _write(out / "report.md", f"{table(sets)}\n\n{EXPLANATION}\n")
    _write(out / "report.html", _page(sets, meshes, real))


def _write(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text)


def _text(figure: Figure, digits: int = 2) -> str:
    return f"{figure.mean:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _share(evaluated: Evaluated, name: str) -> str:
    return f"{np.mean([getattr(one, name) for one in evaluated.validity]):.2f}" if evaluated.validity else ""


def _page(sets: dict[str, Evaluated], meshes: Sequence[trimesh.Trimesh | None], real: Real) -> str:
    """One page that opens from disk: pictures are inside it."""
    name, last = list(sets.items())[-1]
    parts = ["<!doctype html><meta charset='utf-8'><title>Evaluation</title>",
             "<style>body{font:15px sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}td,th{padding:2px 10px;"
             "text-align:left}figure{display:inline-block;margin:4px}figcaption{font-size:12px}</style>",
             f"<h1>{html.escape(name)}: {last.count} heads</h1>", _html_table(sets), f"<p>{EXPLANATION}</p>"]
    if last.nearest:
        order = np.argsort(last.distances)
        there = [int(index) for index in order if meshes[index] is not None]
        shown = [index for index, mesh in enumerate(meshes) if mesh is not None][:SHOWN]
        parts.append("<h2>Each head, and the nearest head learned from on its right</h2>")
        parts += [_pair(index, meshes, last, real) for index in shown]
        parts.append("<h2>Nearest to a head learned from, and farthest from all</h2>")
        parts += [_pair(index, meshes, last, real) for index in [*there[:2], *there[-2:]]]
        parts.append("<h2>Distance to the nearest head learned from, mm</h2>")
        parts.append(_histogram({one: found.distances for one, found in sets.items() if found.distances}))
    return "\n".join(parts)


def _html_table(sets: dict[str, Evaluated]) -> str:
    rows = [line.strip("|").split("|") for line in table(sets).splitlines()]
    cells = ["".join(f"<td>{html.escape(cell.strip())}</td>" for cell in row) for row in [rows[0], *rows[2:]]]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _pair(index: int, meshes: Sequence[trimesh.Trimesh | None], evaluated: Evaluated, real: Real) -> str:
    views = [render(mesh, SIZE, -25.0, EXTENT, np.zeros(3))
             for mesh in (meshes[index], real.learned[evaluated.nearest[index]])]
    caption = f"head {index}, {evaluated.distances[index]:.2f} mm from learned head {evaluated.nearest[index]}"
    return (f"<figure><img src='{_picture(np.concatenate(views, axis=1))}' alt='{caption}'>"
            f"<figcaption>{caption}</figcaption></figure>")


def _picture(pixels: np.ndarray) -> str:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def _histogram(sets: dict[str, list[float]]) -> str:
    """Bars of each set's finite values, on one axis."""
    values = {name: np.array(found)[np.isfinite(found)] for name, found in sets.items()}
    values = {name: found for name, found in values.items() if len(found)}
    if not values:
        return ""
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), BINS)
    drawn = []
    for name, found in values.items():
        heights = np.histogram(found, edges)[0] / len(found)
        bars = "".join(f"<rect x='{22 * i}' y='{100 - 300 * high:.1f}' width='20' height='{300 * high:.1f}' "
                       "fill='#a87'/>" for i, high in enumerate(heights))
        drawn.append(f"<p>{html.escape(name)}: {edges[0]:.2f} to {edges[-1]:.2f} mm</p>"
                     f"<svg width='{22 * BINS}' height='101' viewBox='0 0 {22 * BINS} 101'>{bars}"
                     f"<line x1='0' y1='100.5' x2='{22 * BINS}' y2='100.5' stroke='#333'/></svg>")
    return "".join(drawn)
