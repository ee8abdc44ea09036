"""How faithful the fits of a store are: every fit decoded and measured against its scan, and the midpoints of pairs.

    python make_heads.py HEADS --count 64                 # ../shared/data/ict_heads
    hyperdiffusion overfit HEADS STORE
    python benchmarks/fit_quality.py HEADS STORE
    python benchmarks/fit_quality.py HEADS STORE --reference OTHERS     # and 1-NNA against heads never fitted

Where the scans are in correspondence, the mean of two heads' vertices is the true midpoint, with which the midpoint of
their weights is compared.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import igl
import numpy as np
import torch
import trimesh
import tyro
from loky import get_reusable_executor
from tqdm import tqdm

from hyperdiffusion import metrics
from hyperdiffusion.render import sheet
from overfit import Cube, Field, Machine, Store, decode
from overfit.accuracy import surface_error
from overfit.decode import bodies
from overfit.occupancy import arrays, barycentric_points, on_face
from overfit.scans import Scan, find, read

ROWS = ("mean, mm", "95 %, mm", "F at 1 mm", "normals", "face, degrees", "one body")


@dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    # Folder of the scans that the store was made from.
    scans: tyro.conf.Positional[Path]
    store: tyro.conf.Positional[Path]
    # Folder of heads that were not fitted, with which the fitted ones are compared by 1-NNA.
    reference: Path | None = None
    # How many fits are measured, from the first on; 0 takes all.
    count: int = 0
    # Grid that they are decoded on.
    resolution: int = 256
    # A picture of the first eight heads, their scans above their fits.
    picture: Path | None = None
    machine: Machine = Machine(device="cpu")


def face_angle(mesh: trimesh.Trimesh, truth: trimesh.Trimesh) -> float:
    """Mean angle in degrees between the normals of the truth's face front and those of the nearest points."""
    rng = np.random.default_rng(0)
    weight = truth.area_faces * on_face(truth)
    triangles = rng.choice(len(weight), 8000, p=weight / weight.sum())
    points = barycentric_points(truth.triangles[triangles], rng)
    nearest = igl.point_mesh_squared_distance(points, *arrays(mesh))[1]
    cosine = (truth.face_normals[triangles] * mesh.face_normals[nearest]).sum(1)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())


def fidelity(scan: Scan, weights: torch.Tensor, field: Field, cube: Cube, resolution: int) -> list[float]:
    """A scan's figures, in the order of ROWS."""
    torch.set_num_threads(1)
    truth, pieces = read(scan), bodies(decode(field, weights, cube, resolution, keep_islands=True))
    error = surface_error(pieces[0], truth, np.random.default_rng(0))
    return [error.mean_mm, error.p95_mm, error.f1mm, error.normals, face_angle(pieces[0], truth), len(pieces) == 1]


def midpoint(pair: tuple[Scan, Scan], weights: torch.Tensor, field: Field, cube: Cube, resolution: int,
             ) -> tuple[float, bool] | None:
    """Distance in mm of the midpoint of two fits (2, P) from that of their scans, and whether it is one body."""
    torch.set_num_threads(1)
    one, other = read(pair[0]), read(pair[1])
    if one.faces.shape != other.faces.shape or (one.faces != other.faces).any():
        return None
    truth = trimesh.Trimesh((one.vertices + other.vertices) / 2, one.faces, process=False)
    pieces = bodies(decode(field, weights.mean(0), cube, resolution, keep_islands=True))
    return surface_error(pieces[0], truth, np.random.default_rng(0)).mean_mm, len(pieces) == 1


def main(benchmark: Benchmark) -> None:
    """Print the tables."""
    fits = Store(benchmark.store).read()
    scans = {scan.name: scan for scan in find(benchmark.scans)}
    count = benchmark.count or len(fits.records)
    chosen = [scans[record.name] for record in fits.records[:count]]
    measured, halfway, decoded = (partial(function, field=fits.field, cube=fits.cube, resolution=benchmark.resolution)
                                  for function in (fidelity, midpoint, _decoded))
    weights, pairs = fits.weights[:count], list(zip(chosen[::2], chosen[1::2]))
    with get_reusable_executor(benchmark.machine.cores) as pool:
        rows = np.array(list(tqdm(pool.map(measured, chosen, weights), desc="fits", total=count)))
        halves = weights[:2 * len(pairs)].unflatten(0, (-1, 2))
        middles = [middle for middle in tqdm(pool.map(halfway, pairs, halves), desc="midpoints", total=len(pairs))
                   if middle]
        fitted = list(tqdm(pool.map(decoded, weights), desc="decoding", total=count)) if benchmark.reference else []
    print(f"{count} fits at {benchmark.resolution}^3\n\n| | {' | '.join(ROWS)} |\n{'| --- ' * (len(ROWS) + 1)}|")
    for name, row in (("mean", rows.mean(0)), ("median", np.median(rows, 0)), ("worst", _worst(rows))):
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in row) + " |")
    if middles:
        distance, whole = np.array(middles).T
        print(f"\nmidpoints of {len(middles)} pairs: {distance.mean():.2f} mm from the true ones, "
              f"{whole.mean():.2f} of them one body")
    if benchmark.reference:
        for name, accuracy in _neighbours(benchmark.reference, fitted, chosen).items():
            print(f"1-NNA of {name} against {benchmark.reference}: {accuracy:.3f}")
    if benchmark.picture:
        sets = {"scans": [read(scan) for scan in chosen[:8]], "fits": [decoded(row) for row in weights[:8]]}
        sheet(list(sets.items()), benchmark.picture, size=512, turns=(0.0,))


def _decoded(weights: torch.Tensor, field: Field, cube: Cube, resolution: int) -> trimesh.Trimesh:
    torch.set_num_threads(1)
    return decode(field, weights, cube, resolution)


def _worst(rows: np.ndarray) -> np.ndarray:
    low, high = rows.min(0), rows.max(0)
    return np.where([0, 0, 1, 1, 0, 1], low, high)


def _neighbours(folder: Path, fitted: list[trimesh.Trimesh], scans: list[Scan]) -> dict[str, float]:
    """1-NNA by chamfer of 2,048 points, without scaling, of the fits and of their scans against other heads."""
    reference = metrics.clouds([read(scan) for scan in find(folder)], 1)
    among, found = metrics.chamfer(reference, reference), {}
    for name, meshes in {"the fits": fitted, "their scans": [read(scan) for scan in scans]}.items():
        cloud = metrics.clouds(meshes, 0)
        across = metrics.chamfer(cloud, reference)
        found[name] = metrics.compare(metrics.chamfer(cloud, cloud), across, among).one_nna
    return found


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
