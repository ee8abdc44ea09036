"""Prepared scans in, pictures out: each scan beside its head, and sheets of all, to see in one look what went wrong."""

from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw

from overfit.prepare import Prepared, Report

from .render import exhibit, render

# Side of a picture in pixels, and the height in mm that it shows.
SIZE, EXTENT = 192, 300.0
# Pairs in a row of a sheet, rows in a sheet, and the height of their labels in pixels.
PAIRS, ROWS, LABEL = 4, 12, 20
REFUSED = (190, 30, 30)


def draw_beside(prepared: Prepared, path: Path) -> None:
    """A scan as it came, seen along its own -z, and its head from the left and the front; blank where there is none."""
    picture = Image.new("RGB", (3 * SIZE, SIZE), "white")
    centre = np.zeros(3)
    if prepared.raw is not None:
        view = render(exhibit(prepared.raw), SIZE, extent=EXTENT, centre=centre)
        picture.paste(Image.fromarray(view), (0, 0))
    if prepared.head is not None:
        for column, turn in ((1, 0.0), (2, -60.0)):
            picture.paste(Image.fromarray(render(prepared.head, SIZE, turn, EXTENT, centre)), (column * SIZE, 0))
    picture.save(path, format="png")


def write_sheets(reports: dict[Path, Report], out: Path) -> list[Path]:
    """prepared.png, prepared_2.png and so on: all scans' pictures, which lie beside the heads, with verdicts."""
    shown = list(reports.items())
    sheets = []
    for number, first in enumerate(range(0, len(shown), PAIRS * ROWS), start=1):
        part = shown[first:first + PAIRS * ROWS]
        sheets.append(out / ("prepared.png" if number == 1 else f"prepared_{number}.png"))
        _sheet(part).save(sheets[-1])
    return sheets


def _sheet(part: list[tuple[Path, Report]]) -> Image.Image:
    wide, high = 3 * SIZE, SIZE + LABEL
    picture = Image.new("RGB", (min(len(part), PAIRS) * wide, -(-len(part) // PAIRS) * high), "white")
    draw = ImageDraw.Draw(picture)
    for index, (head, report) in enumerate(part):
        corner = index % PAIRS * wide, index // PAIRS * high
        picture.paste(Image.open(head.with_suffix(".png")), (corner[0], corner[1] + LABEL))
        said = report.set_aside.removeprefix(f"{report.name}: ")
        draw.text((corner[0] + 6, corner[1] + 4), report.name[-60:], fill=REFUSED if said else "black", font_size=12)
        if said:
            lines = "\n".join(wrap(said, 50, max_lines=8))
            draw.text((corner[0] + SIZE + 6, corner[1] + LABEL + 6), lines, fill=REFUSED, font_size=12)
    return picture
