"""Pictures of completed heads: what a scan shows in the colour of skin, and what is invented in blue."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from hyperdiffusion.rendering.contact_sheet import in_latin_letters, point_triangles
from hyperdiffusion.rendering.render import SKIN_COLOUR, Camera, render
from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.atomic_io import atomic_write

INVENTED_COLOUR = np.array([150, 178, 214])
# Pixels along a side of a view, and degrees by which the head is turned in its views: front, three quarters, back,
# side.
VIEW_SIZE = 256
YAWS = (0.0, -40.0, 180.0, 90.0)
# Draws that are shown, from where they differ most.
DRAWS_SHOWN = 3
DRAW_YAW = 140.0
LABEL_HEIGHT, LABEL_FONT = 22, 13
# Scans in the picture of a folder.
SHEET_ROWS = 12


def vertex_colours(seen: Bool[np.ndarray, " vertices"]) -> UInt8[np.ndarray, "vertices 3"]:
    """Return the colours of a head's vertices by whether the scan shows them."""
    return np.where(seen[:, None], SKIN_COLOUR, INVENTED_COLOUR).astype(np.uint8)


def draw_completion(
    name: str,
    scan: PointCloud,
    meshes: Sequence[trimesh.Trimesh],
    masks: Sequence[Bool[np.ndarray, " vertices"]],
    path: Path,
) -> None:
    """Write a PNG of a scan, its head from four sides, and draws from the unseen side.

    Args:
        name: What is written above.
        scan: The scan's points in the heads' frame.
        meshes: The head, and then the draws.
        masks: Whether the scan shows each vertex of a mesh.
        path: The file.
    """
    camera = Camera.around(meshes, size=VIEW_SIZE)
    views = [render(point_triangles(scan.points), camera)]
    views += [_coloured(meshes[0], masks[0], replace(camera, yaw=yaw)) for yaw in YAWS]
    draws = list(zip(meshes, masks))[1 : 1 + DRAWS_SHOWN]
    views += [_coloured(mesh, mask, replace(camera, yaw=DRAW_YAW)) for mesh, mask in draws]
    picture = Image.new("RGB", (len(views) * VIEW_SIZE, VIEW_SIZE + LABEL_HEIGHT), "white")
    text = f"{name}: the scan, its head" + (", draws" if draws else "") + "; blue is invented"
    ImageDraw.Draw(picture).text((8, 5), in_latin_letters(text), fill="black", font_size=LABEL_FONT)
    for column, view in enumerate(views):
        picture.paste(Image.fromarray(view), (column * VIEW_SIZE, LABEL_HEIGHT))
    picture.save(path, format="png")


def write_completion_sheet(pictures: Sequence[Path], path: Path) -> None:
    """Write the pictures of a folder's first scans below each other; nothing if there are none."""
    if not pictures:
        return
    rows = [Image.open(one) for one in pictures[:SHEET_ROWS]]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    with atomic_write(path) as unfinished:
        sheet.save(unfinished, format="png")


def _coloured(mesh: trimesh.Trimesh, seen: np.ndarray, camera: Camera) -> np.ndarray:
    return render(mesh, camera, colours=vertex_colours(seen).astype(float))
