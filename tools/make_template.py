"""Makes the template of registration: the model of plain heads in, overfit/scans/template.npz out.

    python tools/make_template.py

The file holds the mean head, vertices (n, 3) in mm and faces (m, 3), and how heads differ from it, modes (80, n, 3):
principal components of 1200 random heads, each one standard deviation in mm. Rotation and translation of each head are
removed first (Umeyama 1991). Scans often show shoulders too. For these the file holds shoulder_vertices,
shoulder_faces and shoulder_modes (88, s, 3): what the 80 modes of heads do to shoulders, then 8 principal components of
what they leave, which move the shoulders alone. Needs the extra `demo`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from hyperdiffusion.data.head_surface import MEAN_PHENOTYPE
from hyperdiffusion.data.synthetic_heads import HeadModel, Person
from overfit.scans.template import TEMPLATE_FILE

# Random heads whose shapes are analysed.
HEADS = 1200
# Seed of the heads, apart from those of any data set.
SEED = 77
# Principal components of heads that are kept, and of shoulders besides.
MODES = 80
SHOULDER_MODES = 8
# Shoulders end at this height below the origin and at this distance from the middle, in mm: where busts end.
SHOULDER_BOTTOM_MM = -300.0
SHOULDER_HALF_WIDTH_MM = 175.0


def make_template(path: Path) -> None:
    """Write the template's arrays."""
    model = HeadModel()
    mean = Person(MEAN_PHENOTYPE, dict.fromkeys(model.model.local_change_labels, 0.0), {})
    mesh, body = model.mesh(mean, subdivisions=0), model.body_vertices(mean)
    # The vertices on the neck's cut are none of the body's: they move as their neighbours do.
    head = cKDTree(body).query(mesh.vertices)[1]
    shoulders, shoulder_faces = np.unique(_shoulders(model, body, top=mesh.bounds[0, 1]), return_inverse=True)
    moved = np.stack(list(_displacements(model, body, head=head, used=np.concatenate([head, shoulders]))))
    head_moved, shoulders_moved = (part.reshape(HEADS, -1) for part in np.split(moved, [len(head)], axis=1))
    coefficients, modes = _principal_components(head_moved, MODES)
    by_head = np.linalg.lstsq(coefficients, shoulders_moved, rcond=None)[0]
    own = _principal_components(shoulders_moved - coefficients @ by_head, SHOULDER_MODES)[1]
    np.savez_compressed(
        path,
        vertices=mesh.vertices.astype(np.float32),
        faces=mesh.faces.astype(np.int32),
        modes=modes.reshape(MODES, -1, 3).astype(np.float16),
        shoulder_vertices=body[shoulders].astype(np.float32),
        shoulder_faces=shoulder_faces.reshape(-1, 3).astype(np.int32),
        shoulder_modes=np.concatenate([by_head, own]).reshape(MODES + SHOULDER_MODES, -1, 3).astype(np.float16),
    )


def _shoulders(model: HeadModel, body: np.ndarray, *, top: float) -> np.ndarray:
    """Triangles (n, 3) of the body below the neck's cut, down to where busts end."""
    corners = body[model.skin]
    height, side = corners[:, :, 1], np.abs(corners[:, :, 0])
    chosen = (height.max(1) < top) & (height.min(1) > SHOULDER_BOTTOM_MM) & (side.max(1) < SHOULDER_HALF_WIDTH_MM)
    return model.skin[chosen]


def _displacements(
    model: HeadModel, body: np.ndarray, *, head: np.ndarray, used: np.ndarray
) -> Iterator[Float[np.ndarray, "used 3"]]:
    """Where the used vertices of random people lie, less those of the mean body, when the heads lie on each other."""
    for index in range(HEADS):
        vertices = model.body_vertices(model.person(np.random.default_rng([SEED, index])))
        centre, goal = vertices[head].mean(0), body[head].mean(0)
        turn = Rotation.align_vectors(body[head] - goal, vertices[head] - centre)[0]
        yield turn.apply(vertices[used] - centre) + goal - body[used]


def _principal_components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (rows, count) of unit variance about zero, and the components (count, columns) that they belong to.

    The mean stays in: zero is the mean head.
    """
    left, singular, components = np.linalg.svd(rows, full_matrices=False)
    scale = np.sqrt(len(rows))
    return scale * left[:, :count], singular[:count, None] / scale * components[:count]


if __name__ == "__main__":
    make_template(TEMPLATE_FILE)
