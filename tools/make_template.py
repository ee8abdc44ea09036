"""The template of registration: the default head model in, overfit/template.npz out: the mean and how heads differ.

    python tools/make_template.py

vertices (n, 3) in mm, faces (m, 3), modes (20, n, 3): principal components of 400 random heads, each a
standard deviation in mm. Head by head, what a turn and a shift can do is taken away first (Umeyama 1991). Needs the
extra `demo`.
"""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from hyperdiffusion.heads import HeadModel, Person

HEADS, MODES = 400, 20
AVERAGE = {"gender": 0.5, "age": 0.66, "weight": 0.5, "muscle": 0.5, "height": 0.5, "proportions": 0.5,
           "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}


def make_template(path: Path) -> None:
    """Write the template's three arrays."""
    model = HeadModel()
    mean = Person(AVERAGE, dict.fromkeys(model.model.local_change_labels, 0.0), {})
    mesh = model.mesh(mean)
    # Vertices on the neck's cut are no vertices of the body: they move as their neighbours do.
    member = cKDTree(model.body(mean)).query(mesh.vertices)[1]
    base = model.body(mean)[member]
    people = [model.person(np.random.default_rng([77, index])) for index in range(HEADS)]
    shifts = np.stack([_laid_on(model.body(person)[member], base) - base for person in people])
    _, deviation, ways = np.linalg.svd(shifts.reshape(HEADS, -1), full_matrices=False)
    modes = ways[:MODES] * deviation[:MODES, None] / np.sqrt(HEADS)
    np.savez_compressed(path, vertices=mesh.vertices.astype(np.float32), faces=mesh.faces.astype(np.int32),
                        modes=modes.reshape(MODES, -1, 3).astype(np.float16))


def _laid_on(points: np.ndarray, base: np.ndarray) -> np.ndarray:
    centred, goal = points - points.mean(0), base - base.mean(0)
    return Rotation.align_vectors(goal, centred)[0].apply(centred) + base.mean(0)


if __name__ == "__main__":
    make_template(Path(__file__).parents[1] / "overfit" / "template.npz")
