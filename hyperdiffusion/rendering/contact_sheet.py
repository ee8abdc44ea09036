"""Contact sheets: meshes or prepared scans in, one picture of them out, in which a failure is seen at a glance."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap

import numpy as np
import trimesh
from anyascii import anyascii
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

from hyperdiffusion.rendering.render import Camera, render
from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.atomic_io import atomic_write
from overfit.scans.preparation_report import PreparationReport
from overfit.scans.prepare import Preparation

# Number of the last letter that Pillow's own font has for certain.
LAST_LATIN_1 = 255
# Height of a row's label in pixels, and the size of its font.
ROW_LABEL_HEIGHT = 24
ROW_LABEL_FONT = 14

# A scan and its head: three square views in a row.
PREPARATION_VIEWS = 3
# Pixels along a side of a view.
VIEW_SIZE = 192
# Millimetres that a view shows: a head with its neck fits.
VIEW_HEIGHT_MM = 300.0
# Degrees by which the prepared head is turned in its two views.
HEAD_YAWS = (0.0, -60.0)
# Largest side of a raw scan in its view, in millimetres; its own unit and pose are not known yet.
RAW_EXTENT_MM = 250.0
# Points of a cloud that are drawn: more would cover each other.
DRAWN_POINTS = 30_000
# Radius of a drawn point in distances to its neighbour: leaves few gaps.
POINT_RADIUS = 2.0

# Scans in a row of a preparation sheet, and rows on a sheet.
SCANS_PER_ROW = 4
ROWS_PER_SHEET = 12
# Height of a scan's label in pixels, and the size of its font.
SCAN_LABEL_HEIGHT = 20
SCAN_LABEL_FONT = 12
# Characters of a scan's name that fit, from its end.
SCAN_LABEL_LENGTH = 60
# Characters in a line of a reason that fit into two views, and lines.
REASON_WIDTH = 50
REASON_LINES = 8
SKIPPED_COLOUR = (190, 30, 30)


def write_contact_sheet(
    rows: Sequence[tuple[str, Sequence[trimesh.Trimesh]]],
    path: Path,
    *,
    size: int = 256,
    yaws: tuple[float, ...] = (-25.0,),
) -> None:
    """Write a picture of labelled rows of meshes, all at one scale.

    Args:
        rows: A label and the meshes of each row.
        path: The PNG file; it appears complete.
        size: Pixels along a side of a view.
        yaws: Degrees by which each mesh is turned, one view each.
    """
    camera = Camera.around([mesh for _, row in rows for mesh in row], size=size)
    columns = max(len(row) for _, row in rows) * len(yaws)
    row_height = size + ROW_LABEL_HEIGHT
    picture = Image.new("RGB", (columns * size, len(rows) * row_height), "white")
    draw = ImageDraw.Draw(picture)
    for index, (label, row) in enumerate(rows):
        top = index * row_height
        draw.text((8, top + 6), label, fill="black", font_size=ROW_LABEL_FONT)
        views = [render(mesh, replace(camera, yaw=yaw)) for mesh in row for yaw in yaws]
        for column, view in enumerate(views):
            picture.paste(Image.fromarray(view), (column * size, top + ROW_LABEL_HEIGHT))
    _save(picture, path)


def draw_preparation(prepared: Preparation, path: Path) -> None:
    """Write a PNG of a raw scan in its own pose, next to its head from two sides; what is missing stays blank."""
    picture = Image.new("RGB", (PREPARATION_VIEWS * VIEW_SIZE, VIEW_SIZE), "white")
    camera = Camera(size=VIEW_SIZE, height_mm=VIEW_HEIGHT_MM)
    if prepared.raw is not None:
        picture.paste(Image.fromarray(render(display_mesh(prepared.raw), camera)), (0, 0))
    if prepared.head is not None:
        for column, yaw in enumerate(HEAD_YAWS, start=1):
            view = render(prepared.head, replace(camera, yaw=yaw))
            picture.paste(Image.fromarray(view), (column * VIEW_SIZE, 0))
    picture.save(path, format="png")


def display_mesh(surface: trimesh.Trimesh | PointCloud) -> trimesh.Trimesh:
    """Return a raw scan for display: in its own pose, centred, and of a head's size. Points become small triangles."""
    mesh = point_triangles(surface.points) if isinstance(surface, PointCloud) else surface
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    scale = RAW_EXTENT_MM / max(float((high - low).max()), 1e-9)
    return trimesh.Trimesh((mesh.vertices - (low + high) / 2) * scale, mesh.faces, process=False)


def point_triangles(points: np.ndarray) -> trimesh.Trimesh:
    """Return a triangle that faces the camera for each of up to DRAWN_POINTS points."""
    points = points[np.random.default_rng(0).permutation(len(points))[:DRAWN_POINTS]]
    radius = POINT_RADIUS * float(np.median(cKDTree(points).query(points, 2)[0][:, 1]))
    corners = radius * np.array([[0.0, 1, 0], [-0.87, -0.5, 0], [0.87, -0.5, 0]])
    vertices = (points[:, None] + corners).reshape(-1, 3)
    return trimesh.Trimesh(vertices, np.arange(len(vertices)).reshape(-1, 3), process=False)


def write_preparation_sheets(reports: dict[Path, PreparationReport], out: Path) -> list[Path]:
    """Write prepared.png, prepared_2.png and so on: the pictures of all scans, with the reason for each skipped one.

    Args:
        reports: The report of each scan by the path of its head, next to which `draw_preparation` has drawn it.
        out: Folder for the sheets.
    """
    scans = list(reports.items())
    sheets = []
    for number, first in enumerate(range(0, len(scans), SCANS_PER_ROW * ROWS_PER_SHEET), start=1):
        path = out / ("prepared.png" if number == 1 else f"prepared_{number}.png")
        _save(_preparation_sheet(scans[first : first + SCANS_PER_ROW * ROWS_PER_SHEET]), path)
        sheets.append(path)
    return sheets


def _preparation_sheet(scans: list[tuple[Path, PreparationReport]]) -> Image.Image:
    width, height = PREPARATION_VIEWS * VIEW_SIZE, VIEW_SIZE + SCAN_LABEL_HEIGHT
    rows = -(-len(scans) // SCANS_PER_ROW)
    picture = Image.new("RGB", (min(len(scans), SCANS_PER_ROW) * width, rows * height), "white")
    for index, (head, report) in enumerate(scans):
        corner = index % SCANS_PER_ROW * width, index // SCANS_PER_ROW * height
        with Image.open(head.with_suffix(".png")) as views:
            picture.paste(views, (corner[0], corner[1] + SCAN_LABEL_HEIGHT))
        _label_scan(ImageDraw.Draw(picture), report, corner)
    return picture


def _label_scan(draw: ImageDraw.ImageDraw, report: PreparationReport, corner: tuple[int, int]) -> None:
    left, top = corner
    reason = report.skipped.removeprefix(f"{report.name}: ")
    colour = SKIPPED_COLOUR if reason else (0, 0, 0)
    name = in_latin_letters(report.name)[-SCAN_LABEL_LENGTH:]
    draw.text((left + 6, top + 4), name, fill=colour, font_size=SCAN_LABEL_FONT)
    if report.is_doubtful and not reason:
        doubt = (
            f"size: {report.size}, {report.width_mm:.0f} mm between the ears" if report.size else "another head in it"
        )
        draw.text((left + VIEW_SIZE + 6, top + 4), doubt, fill=SKIPPED_COLOUR, font_size=SCAN_LABEL_FONT)
    if reason:
        lines = "\n".join(wrap(in_latin_letters(reason), REASON_WIDTH, max_lines=REASON_LINES))
        position = (left + VIEW_SIZE + 6, top + SCAN_LABEL_HEIGHT + 6)
        draw.text(position, lines, fill=colour, font_size=SCAN_LABEL_FONT)


def in_latin_letters(text: str) -> str:
    """Return text with letters that Pillow's own font lacks, those of most scripts, transliterated."""
    return "".join(letter if ord(letter) <= LAST_LATIN_1 else anyascii(letter) for letter in text)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as unfinished:
        picture.save(unfinished, format="png")
