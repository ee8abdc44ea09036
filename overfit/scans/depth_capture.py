"""Reads depth captures: a folder of depth frames in, the depth image and the camera of each frame out.

Two layouts are read:
- TrueDepth frames as StandardCyborg writes them: PLY files with the elements `metadata` (JSON, one uchar a byte) and
  `depth` (float32 metres, one a pixel).
- What any app can write: depth images (16-bit PNG, EXR or NPY) and an `intrinsics.json` with fx, fy, cx, cy, width,
  height and `depth_scale`, the metres that one unit of the images stands for. It may hold `poses`: by image names, 4x4
  matrices from the camera (x right, y up, z backwards, as in ARKit) to the world, in metres.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput
from overfit.scans.hidden_files import is_hidden

IMAGE_FORMATS = (".png", ".npy", ".exr")
INTRINSICS = "intrinsics.json"
# Depth is stored in metres, and heads are measured in millimetres.
MM_PER_METRE = 1000.0
# Nearest in metres that a phone sees a face; what seems nearer is noise.
MIN_DEPTH = 0.12
# Farthest in metres that a face is held from a phone; what is farther is background.
MAX_DEPTH = 0.9
# With fewer pixels between these distances in all frames, the depths have another unit, or there is no face.
MIN_SHARE_IN_RANGE = 0.002
# A depth that is stored in steps larger than this (mm) shows no nose.
COARSE_STEP_MM = 1.0
# A pixel whose depth changes by more than this share a pixel floats between two surfaces.
MAX_DEPTH_STEP = 0.02
# Smallest cosine between the surface's normal and the ray: at grazing angles, depth is a guess.
MIN_RAY_COSINE = 0.25
# Keeps divisions by the length of a vector finite.
EPSILON = 1e-12
# Bytes of a PLY file that its header, or the part of it that names its elements, fits in.
PLY_HEADER_BYTES = 1000
# Bytes of the colour of a pixel in a TrueDepth frame: three float32.
COLOUR_BYTES = 12
# How far the determinant of a pose's rotation may be from 1: apps round their matrices.
ROTATION_TOLERANCE = 0.1
# Longest part of a reader's own error that is repeated: the message stays one line.
MAX_REASON_LENGTH = 100


@dataclass(frozen=True)
class DepthFrame:
    """A depth image and the camera that took it."""

    depth: Float[np.ndarray, "height width"]
    """Depth along the camera's axis in metres; not finite or zero where there is none."""
    fx: float
    """Horizontal focal length in pixels of this image."""
    fy: float
    """Vertical focal length in pixels."""
    cx: float
    """Column of the optical centre in pixels."""
    cy: float
    """Row of the optical centre in pixels."""
    lens: Float[np.ndarray, " corrections"] | None = None
    """Radial corrections f, evenly spaced from the centre to the farthest corner: radius r becomes r (1 + f)."""
    pose: Float[np.ndarray, "4 4"] | None = None
    """From this camera (x right, y up, z backwards) to the world in millimetres, where the app knows it."""


@dataclass(frozen=True)
class DepthCapture:
    """The frames of a folder."""

    frames: list[DepthFrame]
    """In the order in which they were taken."""
    digest: str
    """SHA-256 of the bytes of all files in the folder, by name; hidden files are none of it."""
    remarks: tuple[str, ...] = ()
    """Frames that were left out, and what is doubtful about the others, a phrase each."""


def is_capture(folder: Path) -> bool:
    """Return whether a folder holds depth frames in either layout, or depth images that lack their intrinsics."""
    if (folder / INTRINSICS).exists():
        return True
    files = capture_files(folder)
    frames = [path for path in files if path.suffix == ".ply"]
    if frames:
        with open(frames[0], "rb") as file:
            return _is_truedepth(file.read(PLY_HEADER_BYTES))
    return any(_is_depth_image(path) for path in files)


def capture_files(folder: Path) -> list[Path]:
    """Return the files of a capture in the order in which they are hashed."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path, folder))


def read_capture(folder: Path) -> DepthCapture:
    """Return the frames of a capture, each file read once.

    A frame that is damaged or no depth image is left out, with a remark. Raises BadInput if none is left, if the
    intrinsics are missing, or if no depth is one at which a face is captured.
    """
    digest = hashlib.sha256()
    contents = {}
    for path in capture_files(folder):
        data = path.read_bytes()
        digest.update(data)
        if path.name == INTRINSICS or path.suffix.lower() in (*IMAGE_FORMATS, ".ply"):
            contents[path] = data
    if folder / INTRINSICS in contents:
        frames, remarks = _read_images(folder, contents)
    elif any(path.suffix == ".ply" for path in contents):
        frames, remarks = _read_truedepth(contents)
    else:
        raise BadInput(
            f"{folder.name}: depth images without {INTRINSICS}; write fx, fy, cx, cy, width, height, depth_scale there"
        )
    if not frames:
        reason = f" ({remarks[0]})" if remarks else ""
        raise BadInput(
            f"{folder.name}: no depth frame in it{reason}; put TrueDepth frames, 16-bit PNG, EXR or NPY there"
        )
    _check_range(frames, folder.name)
    return DepthCapture(frames, digest.hexdigest(), tuple(remarks))


def _check_range(frames: list[DepthFrame], name: str) -> None:
    """Raise BadInput if nearly no depth of any frame is one at which a face is captured."""
    depths = np.concatenate([frame.depth[np.isfinite(frame.depth) & (frame.depth > 0)] for frame in frames])
    if not len(depths):
        raise BadInput(f"{name}: its frames have no depth at all; capture it again")
    if ((depths > MIN_DEPTH) & (depths < MAX_DEPTH)).mean() < MIN_SHARE_IN_RANGE:
        low, middle, high = np.percentile(depths, (1, 50, 99))
        raise BadInput(
            f"{name}: depths of {low:.3g} to {high:.3g} m, half of them beyond {middle:.3g} m, where a face has "
            f"{MIN_DEPTH} to {MAX_DEPTH}; check depth_scale"
        )


def _is_depth_image(path: Path) -> bool:
    """Return whether an image holds depth, not colours, as far as its header says."""
    if path.suffix.lower() != ".png":
        return path.suffix.lower() in IMAGE_FORMATS
    try:
        with Image.open(path) as image:
            return image.mode.startswith(("I", "F"))
    except (OSError, Image.DecompressionBombError):
        return False


def unproject(frame: DepthFrame) -> PointCloud:
    """Return the points of a frame in millimetres, x right, y up, z towards the camera, and their normals towards it.

    Background, pixels at depth edges and surfaces seen at a grazing angle are left out.
    """
    in_range = np.isfinite(frame.depth) & (frame.depth > MIN_DEPTH) & (frame.depth < MAX_DEPTH)
    depth = np.where(in_range, frame.depth, np.nan)
    x, y = _ray_slopes(frame)
    points = MM_PER_METRE * np.stack([x * depth, -y * depth, -depth], axis=-1)
    # Differences over two pixels, to the right and downwards.
    across, down = (np.full_like(points, np.nan) for _ in range(2))
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normals = np.cross(down, across)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + EPSILON
    to_camera = -points / (np.linalg.norm(points, axis=-1, keepdims=True) + EPSILON)
    with np.errstate(invalid="ignore"):
        step = np.maximum(np.abs(across[..., 2]), np.abs(down[..., 2]))
        at_edge = step > 2 * MM_PER_METRE * MAX_DEPTH_STEP * depth
        kept = np.isfinite(normals).all(-1) & ~at_edge & ((normals * to_camera).sum(-1) > MIN_RAY_COSINE)
    return PointCloud(points[kept], normals[kept])


def _ray_slopes(frame: DepthFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return x / z and y / z (height, width) of each pixel's ray, corrected for the lens."""
    rows, columns = np.meshgrid(*(np.arange(size) for size in frame.depth.shape), indexing="ij")
    x, y = (columns - frame.cx) / frame.fx, (rows - frame.cy) / frame.fy
    if frame.lens is None:
        return x, y
    height, width = frame.depth.shape
    radius = np.hypot(columns - frame.cx, rows - frame.cy)
    farthest = np.hypot(max(frame.cx, width - frame.cx), max(frame.cy, height - frame.cy))
    correction: np.ndarray = 1 + np.interp(radius / farthest, np.linspace(0, 1, len(frame.lens)), frame.lens)
    return x * correction, y * correction


def _is_truedepth(data: bytes) -> bool:
    start = data[:PLY_HEADER_BYTES]
    return start.startswith(b"ply") and b"element metadata" in start and b"element depth" in start


def _read_truedepth(contents: dict[Path, bytes]) -> tuple[list[DepthFrame], list[str]]:
    """Return the frames, and a remark on each file that is none."""
    files = {path: data for path, data in contents.items() if path.suffix == ".ply"}

    def parse(_: Path, data: bytes) -> DepthFrame:
        if not _is_truedepth(data):
            raise ValueError("no depth frame")
        return _parse_truedepth(data)

    return _read_frames(files, parse)


def _read_frames(
    files: dict[Path, bytes], parse: Callable[[Path, bytes], DepthFrame]
) -> tuple[list[DepthFrame], list[str]]:
    """Return the frames that can be parsed, and a remark on each file that cannot."""
    frames, remarks = [], []
    for path, data in files.items():
        try:
            if not data:
                raise ValueError("empty")
            frames.append(parse(path, data))
        except BadInput:
            raise
        # NumPy raises MemoryError for a header that claims too much, OpenEXR RuntimeError, Pillow SyntaxError.
        except (
            OSError,
            ArithmeticError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            RuntimeError,
            SyntaxError,
            MemoryError,
            Image.DecompressionBombError,
        ) as error:
            remarks.append(f"{path.name} left out: {_one_line(error)}")
    return frames, remarks


def _parse_truedepth(data: bytes) -> DepthFrame:
    """Return the frame in a PLY file as StandardCyborg writes them. Raises errors of several types on damaged ones."""
    header, _, body = data.partition(b"end_header\n")
    lines = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    counts = {words[1]: int(words[2]) for words in lines if words[:1] == ["element"]}
    camera = json.loads(body[: counts["metadata"]])["camera_intrinsics"]
    shape = camera["height"], camera["width"]
    offset = counts["metadata"] + COLOUR_BYTES * counts.get("color", 0)
    depth = np.frombuffer(body, "<f4", counts["depth"], offset).reshape(shape)
    # The intrinsics may be those of a larger image.
    scale_x = shape[1] / camera["intrinsic_matrix_reference_dimensions_width"]
    scale_y = shape[0] / camera["intrinsic_matrix_reference_dimensions_height"]
    # By columns: fx 0 0, 0 fy 0, cx cy 1.
    matrix = camera["intrinsic_matrix"]
    lens = camera.get("lens_distortion_lookup_table")
    return DepthFrame(
        depth,
        fx=matrix[0] * scale_x,
        fy=matrix[4] * scale_y,
        cx=matrix[6] * scale_x,
        cy=matrix[7] * scale_y,
        lens=None if lens is None else np.array(lens, float),
    )


@dataclass(frozen=True)
class _Intrinsics:
    """What an intrinsics.json says of its images."""

    fx: float
    """Horizontal focal length in pixels."""
    fy: float
    """Vertical focal length in pixels."""
    cx: float
    """Column of the optical centre in pixels."""
    cy: float
    """Row of the optical centre in pixels."""
    height: int
    """Rows of the image that these pixels belong to."""
    width: int
    """Its columns."""
    depth_scale: float
    """Metres that one unit of the images stands for."""
    poses: dict[str, np.ndarray]
    """Poses (4, 4) in millimetres by image names."""


def _read_images(folder: Path, contents: dict[Path, bytes]) -> tuple[list[DepthFrame], list[str]]:
    """Return the frames, a remark on each image that is none, and what is doubtful about the frames."""
    intrinsics = _parse_intrinsics(contents[folder / INTRINSICS], folder.name)
    images = {path: data for path, data in contents.items() if path.suffix.lower() in IMAGE_FORMATS}
    doubts: dict[str, None] = {}

    def parse(path: Path, data: bytes) -> DepthFrame:
        image = _parse_image(path, data)
        frame = _image_frame(image, intrinsics, path.name)
        doubts.update(dict.fromkeys(_doubts(image, intrinsics)))
        return frame

    frames, remarks = _read_frames(images, parse)
    return frames, [*remarks, *doubts]


def _doubts(image: np.ndarray, intrinsics: _Intrinsics) -> list[str]:
    """Return what is doubtful about a depth image."""
    step = MM_PER_METRE * intrinsics.depth_scale
    doubts = []
    if np.issubdtype(image.dtype, np.integer) and step > COARSE_STEP_MM:
        doubts.append(f"{8 * image.dtype.itemsize}-bit depth in steps of {step:.3g} mm, too coarse for a face")
    if _is_turned(image, intrinsics):
        doubts.append("frames turned by 90 degrees, to the shape of their intrinsics")
    return doubts


def _is_turned(image: np.ndarray, intrinsics: _Intrinsics) -> bool:
    """Return whether an image is upright and its intrinsics lie on their side, or the other way round."""
    height, width = image.shape
    return (height - width) * (intrinsics.height - intrinsics.width) < 0


def _parse_intrinsics(data: bytes, name: str) -> _Intrinsics:
    try:
        content = json.loads(data)
        return _Intrinsics(
            **{key: float(content[key]) for key in ("fx", "fy", "cx", "cy", "depth_scale")},
            height=int(content["height"]),
            width=int(content["width"]),
            poses={image: _pose_in_mm(pose) for image, pose in content.get("poses", {}).items()},
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{name}/{INTRINSICS}: {error}; it needs the numbers fx, fy, cx, cy, width, height and depth_scale, "
            "and poses of 4x4 numbers if any"
        ) from error


def _image_frame(image: np.ndarray, intrinsics: _Intrinsics, name: str) -> DepthFrame:
    """Return the frame of a depth image, with the intrinsics of its size. Raises ValueError if it has colours.

    Phones turn a sensor's image clockwise to stand upright; an image that was turned so is turned back.
    """
    if image.ndim != 2:
        raise ValueError(f"an array of shape {image.shape}, not one number a pixel")
    if _is_turned(image, intrinsics):
        image = np.rot90(image)
    depth = image.astype(np.float64) * intrinsics.depth_scale
    scale_y, scale_x = depth.shape[0] / intrinsics.height, depth.shape[1] / intrinsics.width
    return DepthFrame(
        depth,
        fx=intrinsics.fx * scale_x,
        fy=intrinsics.fy * scale_y,
        cx=intrinsics.cx * scale_x,
        cy=intrinsics.cy * scale_y,
        pose=intrinsics.poses.get(name),
    )


def _parse_image(path: Path, data: bytes) -> np.ndarray:
    """Return a depth image (height, width) in its own unit. Raises errors of several types on damaged files."""
    if path.suffix.lower() == ".npy":
        return np.load(io.BytesIO(data))
    if path.suffix.lower() == ".exr":
        return _read_exr(path)
    try:
        return np.asarray(Image.open(io.BytesIO(data)))
    except UnidentifiedImageError as error:
        raise ValueError("no image") from error


def _read_exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise BadInput(
            f"{path.name}: reading it needs OpenEXR; install it by `pip install 'hyperdiffusion-heads[scanners]'`"
        ) from error
    # OpenEXR reads from paths only.
    with OpenEXR.File(str(path)) as file:
        channels = file.channels()
        # Depth has a channel of its own, or is the only one.
        return np.array(channels["Z" if "Z" in channels else next(iter(channels))].pixels)


def _pose_in_mm(pose: Any) -> np.ndarray:
    """Return a pose (4, 4) with its translation in millimetres. Raises ValueError if it is no such matrix."""
    matrix = np.array(pose, float).reshape(4, 4)
    if not abs(np.linalg.det(matrix[:3, :3]) - 1) < ROTATION_TOLERANCE:
        raise ValueError("a pose that is no rotation and translation")
    matrix[:3, 3] *= MM_PER_METRE
    return matrix


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:MAX_REASON_LENGTH]
