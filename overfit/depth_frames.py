"""Depth frames: the folder of a depth capture in, what each of its frames sees out, as points in millimetres.

Two forms, a folder of frames either way:
- TrueDepth frames as StandardCyborg writes them: PLY files with the elements `metadata` (JSON, a uchar a byte) and
  `depth` (float32 metres, a pixel each).
- What any app can write: depth images (16-bit PNG, EXR or NPY) beside `intrinsics.json` with fx, fy, cx, cy, width,
  height and `depth_scale`, the metres that one unit of the images stands for. It may hold `poses`: by image names, 4x4
  matrices from the camera (x right, y up, z backwards, as ARKit has it) to the world, in metres.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .clouds import Cloud
from .errors import BadInput

IMAGES = (".png", ".npy", ".exr")
# Nearest and farthest that a face is held from a phone, in metres; what lies behind is background.
NEAR, FAR = 0.12, 0.9
# A pixel whose neighbours differ by more than this share of its depth flies between two surfaces.
JUMP = 0.02
# Cosine between the surface and the ray under which depth is a guess.
GRAZING = 0.25


@dataclass(frozen=True)
class Frame:
    """A depth image and the camera that took it."""

    # (height, width) metres; not finite or zero where there are none.
    depth: np.ndarray
    # Focal lengths and centre in pixels of this image.
    fx: float
    fy: float
    cx: float
    cy: float
    # Corrections f, evenly spaced from the centre to the farthest corner: a pixel at radius r belongs at r (1 + f).
    lens: np.ndarray | None = None
    # (4, 4) from this camera (x right, y up, z backwards) to the world in millimetres, where the app knows it.
    pose: np.ndarray | None = None


def is_capture(folder: Path) -> bool:
    """Whether a folder holds depth frames in either form."""
    if (folder / "intrinsics.json").exists():
        return True
    first = next(iter(sorted(folder.glob("*.ply"))), None)
    return first is not None and _is_truedepth(first)


def read_frames(folder: Path) -> list[Frame]:
    """The frames of a capture in their order. Raises BadInput where they are damaged, or there are none."""
    if (folder / "intrinsics.json").exists():
        frames = _images(folder)
    else:
        frames = [_truedepth(path) for path in sorted(folder.glob("*.ply")) if _is_truedepth(path)]
    if not frames:
        raise BadInput(f"{folder.name}: no depth frames beside its intrinsics.json; put 16-bit PNG, EXR or NPY there")
    return frames


def unproject(frame: Frame) -> Cloud:
    """The points of a frame in millimetres, x right, y up, z towards the camera, and their normals towards it."""
    depth = np.where(np.isfinite(frame.depth) & (frame.depth > NEAR) & (frame.depth < FAR), frame.depth, np.nan)
    rows, columns = np.indices(depth.shape)
    x, y = (columns - frame.cx) / frame.fx, (rows - frame.cy) / frame.fy
    if frame.lens is not None:
        radius = np.hypot(columns - frame.cx, rows - frame.cy)
        farthest = np.hypot(max(frame.cx, depth.shape[1] - frame.cx), max(frame.cy, depth.shape[0] - frame.cy))
        bent = 1 + np.interp(radius / farthest, np.linspace(0, 1, len(frame.lens)), frame.lens)
        x, y = x * bent, y * bent
    points = 1000 * np.stack([x * depth, -y * depth, -depth], axis=-1)
    across, down = (np.full_like(points, np.nan) for _ in range(2))
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normals = np.cross(down, across)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-12
    # The ray from a point to the camera.
    rays = -points / (np.linalg.norm(points, axis=-1, keepdims=True) + 1e-12)
    with np.errstate(invalid="ignore"):
        steep = np.maximum(np.abs(across[..., 2]), np.abs(down[..., 2])) > 2000 * JUMP * depth
        sound = np.isfinite(normals).all(-1) & ~steep & ((normals * rays).sum(-1) > GRAZING)
    return Cloud(points[sound], normals[sound])


def _is_truedepth(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(1000)
    return start.startswith(b"ply") and b"element metadata" in start and b"element depth" in start


def _truedepth(path: Path) -> Frame:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    counts = {words[1]: int(words[2]) for line in header.decode("ascii", "replace").splitlines()
              if (words := line.split())[:1] == ["element"]}
    try:
        about = json.loads(body[:counts["metadata"]])
        camera = about["camera_intrinsics"]
        shape = camera["height"], camera["width"]
        colours = 12 * counts.get("color", 0)
        depth = np.frombuffer(body, "<f4", counts["depth"], counts["metadata"] + colours).reshape(shape)
        matrix = camera["intrinsic_matrix"]
        wide = shape[1] / camera["intrinsic_matrix_reference_dimensions_width"]
        high = shape[0] / camera["intrinsic_matrix_reference_dimensions_height"]
        lens = camera.get("lens_distortion_lookup_table")
        return Frame(depth, matrix[0] * wide, matrix[4] * high, matrix[6] * wide, matrix[7] * high,
                     None if lens is None else np.array(lens, float))
    except (KeyError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        raise BadInput(f"{path.name}: a damaged depth frame ({' '.join(str(error).split())[:100]}); capture it again"
                       ) from error


def _images(folder: Path) -> list[Frame]:
    path = folder / "intrinsics.json"
    try:
        about = json.loads(path.read_text())
        fx, fy, cx, cy = [float(about[name]) for name in ("fx", "fy", "cx", "cy")]
        size, unit = (int(about["height"]), int(about["width"])), float(about["depth_scale"])
        poses = {name: _in_millimetres(pose) for name, pose in about.get("poses", {}).items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder.name}/intrinsics.json: {error}; it needs the numbers fx, fy, cx, cy, width, height "
                       "and depth_scale, and poses of 4x4 numbers if any") from error
    frames = []
    for image in sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES):
        try:
            depth = _depth(image).astype(np.float64) * unit
            high, wide = depth.shape[0] / size[0], depth.shape[1] / size[1]
            frames.append(Frame(depth, fx * wide, fy * high, cx * wide, cy * high, pose=poses.get(image.name)))
        # OpenEXR raises RuntimeError.
        except (OSError, ValueError, IndexError, TypeError, ZeroDivisionError, RuntimeError,
                Image.DecompressionBombError) as error:
            raise BadInput(f"{folder.name}/{image.name}: no depth image ({' '.join(str(error).split())[:100]}); "
                           "write 16-bit PNG, EXR or NPY") from error
    return frames


def _depth(image: Path) -> np.ndarray:
    """(height, width) as the file has it."""
    if image.suffix.lower() == ".npy":
        # Mapped: a header that promises more than there is must not fill the memory.
        return np.load(image, mmap_mode="r")
    if image.suffix.lower() == ".exr":
        try:
            import OpenEXR
        except ImportError as error:
            raise BadInput(f"{image.name}: reading it needs OpenEXR; install it by `pip install "
                           "'hyperdiffusion-heads[scanners]'`") from error
        with OpenEXR.File(str(image)) as file:
            channels = file.channels()
            # Depth has a channel of its own, or is the only one.
            return np.array(channels["Z" if "Z" in channels else next(iter(channels))].pixels)
    return np.asarray(Image.open(image))


def _in_millimetres(pose: list) -> np.ndarray:
    """(4, 4) with its shift in millimetres. Raises ValueError where it is no such matrix."""
    pose = np.array(pose, float).reshape(4, 4)
    if not abs(np.linalg.det(pose[:3, :3]) - 1) < 0.1:
        raise ValueError("a pose that is no turn and shift")
    pose[:3, 3] *= 1000
    return pose
