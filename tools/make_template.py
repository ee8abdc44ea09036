"""Makes the template of registration: the default head model in, overfit/scans/template.npz out.

    python tools/make_template.py

The file holds the mean head, vertices (n, 3) in mm and faces (m, 3), and how heads differ from it, modes (80, n, 3):
principal components of 1200 random heads, each one standard deviation in mm. Rotation and translation of each head are
removed first (Umeyama 1991). Needs the extra `demo`.
"""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from hyperdiffusion.data.synthetic_heads import HeadModel, Person
from overfit.scans.template import TEMPLATE_FILE

# Random heads whose shapes are analysed.
HEADS = 1200
# Seed of the heads, apart from those of any data set.
SEED = 77
# Principal components that are kept.
MODES = 80
# Parameters of the mean head: an adult in the middle of every range.
MEAN_PARAMETERS = {
    "gender": 0.5,
    "age": 0.66,
    "weight": 0.5,
    "muscle": 0.5,
    "height": 0.5,
    "proportions": 0.5,
    "african": 1 / 3,
    "asian": 1 / 3,
    "caucasian": 1 / 3,
}


def make_template(path: Path) -> None:
    """Write the template's three arrays."""
    model = HeadModel()
    mean = Person(MEAN_PARAMETERS, dict.fromkeys(model.model.local_change_labels, 0.0), {})
    mesh = model.mesh(mean)
    # The vertices on the neck's cut are none of the body's: they move as their neighbours do.
    nearest = cKDTree(model.body_vertices(mean)).query(mesh.vertices)[1]
    base = model.body_vertices(mean)[nearest]
    people = [model.person(np.random.default_rng([SEED, index])) for index in range(HEADS)]
    offsets = np.stack([_align(model.body_vertices(person)[nearest], base) - base for person in people])
    _, singular, components = np.linalg.svd(offsets.reshape(HEADS, -1), full_matrices=False)
    modes = components[:MODES] * singular[:MODES, None] / np.sqrt(HEADS)
    np.savez_compressed(
        path,
        vertices=mesh.vertices.astype(np.float32),
        faces=mesh.faces.astype(np.int32),
        modes=modes.reshape(MODES, -1, 3).astype(np.float16),
    )


def _align(points: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return points (n, 3), rotated and moved to the base (n, 3)."""
    centred, goal = points - points.mean(0), base - base.mean(0)
    return Rotation.align_vectors(goal, centred)[0].apply(centred) + base.mean(0)


if __name__ == "__main__":
    make_template(TEMPLATE_FILE)
