"""How well raw scans come back: a folder of prepared ones and one of the same heads, clean, in; a table out.

    python make_heads.py RAW --count 200 --first 300000 --scanlike      # shared data's head model
    python make_heads.py CLEAN --count 200 --first 300000
    hyperdiffusion prepare RAW OUT
    python benchmarks/prepare_quality.py OUT CLEAN

CLEAN's heads stand upright and face +z, in centimetres; their faces are laid on the prepared heads by rigid ICP,
trimmed to nine tenths. The angle is how far that turns them, the distance how far they are off the surface then.
"""

import csv
from pathlib import Path

import igl
import numpy as np
import trimesh
import tyro
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from overfit.occupancy import arrays, on_face, surface_samples

# Millimetres in a unit of the clean heads.
UNIT = 10.0
ROUNDS, KEPT = 60, 0.9


def main(prepared: tyro.conf.Positional[Path], clean: tyro.conf.Positional[Path]) -> None:
    """Print the table."""
    with open(prepared / "prepared.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (clean / row["name"]).suffix == ".ply"]
    done = [row["name"] for row in rows if not row["set_aside"]]
    angles, distances = np.transpose([compared(prepared / name, clean / name) for name in done])
    print(f"{len(rows)} scans, {len(rows) - len(done)} set aside")
    print("| | median | 95 % | worst | within the bound |\n| --- | --- | --- | --- | --- |")
    for name, values, bound in (("angle, degrees", angles, 5), ("distance on the face, mm", distances, 3)):
        print(f"| {name} | {np.median(values):.2f} | {np.percentile(values, 95):.2f} | {values.max():.2f} | "
              f"{(values < bound).sum() / len(rows):.1%} below {bound} |")


def compared(prepared: Path, clean: Path) -> tuple[float, float]:
    """Degrees and millimetres between a prepared head and the face of a clean one."""
    head, truth = trimesh.load_mesh(prepared, process=False), trimesh.load_mesh(clean, process=False)
    truth.apply_scale(UNIT)
    low, high = truth.bounds[:, 1]
    front = on_face(truth) & (truth.triangles_center[:, 1] > low + 0.3 * (high - low))
    face = truth.submesh([np.nonzero(front)[0]], append=True)
    rng = np.random.default_rng(0)
    points, targets = surface_samples(face, 4000, rng)[0], surface_samples(head, 60_000, rng)[0]
    tree, turn = cKDTree(targets), Rotation.identity()
    nose, tip = points[points[:, 2].argmax()], targets[targets[:, 2].argmax()]
    points = points + tip - nose
    for _ in range(ROUNDS):
        gap, found = tree.query(points)
        near = gap < np.quantile(gap, KEPT)
        goal, middle = targets[found[near]].mean(0), points[near].mean(0)
        step, _ = Rotation.align_vectors(targets[found[near]] - goal, points[near] - middle)
        points, turn = step.apply(points - middle) + goal, step * turn
    squared = igl.point_mesh_squared_distance(points, *arrays(head))[0]
    return float(np.degrees(turn.magnitude())), float(np.sqrt(squared).mean())


if __name__ == "__main__":
    tyro.cli(main)
