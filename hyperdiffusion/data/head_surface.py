"""The head model with one topology: a person in, vertices that correspond between all people out.

`HeadModel.mesh` unites and cuts solids, which takes most of its time and gives every head other vertices. Here the
surface, with eyes, mouth and a neck that is too long, is a fixed linear map of the body's vertices, so that regions are
defined once, on the mean head.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import trimesh
from jaxtyping import Bool, Float, Int
from scipy.sparse.linalg import spsolve

from hyperdiffusion.data.loop_subdivision import subdivide, subdivide_long
from hyperdiffusion.data.solids import boundary_loops, follow_loops
from hyperdiffusion.data.synthetic_heads import NECK_CUT_SHARE, HeadModel, Person, head_centre

# The mean head: an adult in the middle of every range.
MEAN_PHENOTYPE = {
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
# Length in mm of the neck of the mean head, which is cut for each person.
NECK_LENGTH_MM = 80.0
# Distance in mm from the middle at which shoulders end.
HALF_WIDTH_MM = 130.0
# Rings of vertices that close an opening, as shares of the way from its edge to its centre.
RINGS = (0.15, 0.35, 0.6, 0.85)
# Changes of the ears, and how far in mm one of them moves the vertices that are an ear.
EAR_CHANGES = {"ear-shape-round": 1.0, "ear-flap-incr": 0.5, "ear-wing-incr": 0.5}
# An ear lies in front of this depth and below this height on the mean head, in mm.
EAR_TOP_MM = 14.0
# Vertices this far from the eyeball's centre, in its radii, may have to be pushed out of it.
EYE_REACH = 1.6
# Depth of the mouth's cavity for each millimetre by which the lips part, and its greatest depth in mm.
CAVITY_SLOPE = 2.0
MAX_CAVITY_MM = 32.0
# Lips that lie on each other part by this much in mm on the mesh.
CLOSED_LIPS_MM = 3.0
# The same of the mouth, and the depths of its rings as shares of the cavity's depth: its walls are steep.
MOUTH_RINGS, MOUTH_DEPTHS = (0.06, 0.18, 0.4, 0.75), (0.5, 0.85, 1.0, 1.0)
# An opening higher than this in mm is where an ear was.
EAR_HEIGHT_MM = 30.0
# Longest edge of a triangle on the mean head in mm, and below the given height, on the neck.
EDGE_MM, NECK_EDGE_MM, NECK_TOP_MM = 3.6, 8.0, -126.0
# Half of the width in mm of the middle of the lips, where the opening is measured; the greatest depth of what counts as
# lips, as a share of the cavity's.
LIPS_MIDDLE_MM, LIPS_CAVITY = 6.0, 0.2


@dataclass(frozen=True)
class Surface:
    """The surface of one person's head, in millimetres and the canonical frame."""

    vertices: Float[np.ndarray, "n 3"]
    """The head with eyes, mouth and a neck that is too long."""
    normals: Float[np.ndarray, "n 3"]
    """Unit normals."""
    eyes: Float[np.ndarray, "2 3"]
    """Centres of the eyeballs, left (+x) and right."""
    neck_height: float
    """Height of the neck's cut."""


class HeadSurface:
    """Heads of one topology, with ears or without: hair and headwear that cover the ears lie on a head without."""

    def __init__(self, model: HeadModel, *, ears: bool = True) -> None:
        self.model = model
        neutral = dict.fromkeys(model.model.local_change_labels, 0.0)
        mean = model.body_vertices(Person(MEAN_PHENOTYPE, neutral, {}))
        is_ear = self._ears(mean, neutral)
        faces = self._head_faces(mean)
        if not ears:
            faces = faces[~is_ear[faces].any(1)]
            faces = _largest(faces, len(mean))
        self.used, faces = np.unique(faces, return_inverse=True)
        closing, faces, depth = _closed(faces.reshape(-1, 3), mean[self.used])
        matrix, self.faces = _refined(closing, faces, mean[self.used])
        self._matrix = (matrix @ closing).tocsr()
        self.cavity = matrix @ depth
        self.ear = self._matrix @ is_ear[self.used].astype(float)
        self.coordinates = self._matrix @ mean[self.used]
        self._normals = _face_incidence(self.faces, len(self.coordinates))

    def __call__(self, person: Person) -> Surface:
        """Return the surface of a person's head."""
        body, bones = self.model.posed_body(person)
        origin = head_centre(bones)
        body = body - origin
        vertices = self._with_cavity(self._matrix @ body[self.used])
        eyes = []
        for eyeball in self.model.eyeballs:
            points = body[np.unique(eyeball)]
            vertices = _pushed_out(vertices, points)
            eyes.append(points.mean(0))
        eyes.sort(key=lambda eye: -eye[0])
        height = (1 - NECK_CUT_SHARE) * bones["neck01"][1] + NECK_CUT_SHARE * bones["neck02"][1] - origin[1]
        return Surface(vertices, self.vertex_normals(vertices), np.array(eyes), float(height))

    def vertex_normals(self, vertices: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Return unit normals, weighted by area."""
        corners = vertices[self.faces]
        normals = self._normals @ np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)

    def _head_faces(self, mean: np.ndarray) -> np.ndarray:
        corners = mean[self.model.skin]
        bottom = NECK_TOP_MM - NECK_LENGTH_MM
        chosen = (corners[:, :, 1].min(1) > bottom) & (np.abs(corners[:, :, 0]).max(1) < HALF_WIDTH_MM)
        return self.model.skin[chosen]

    def _ears(self, mean: np.ndarray, neutral: dict[str, float]) -> Bool[np.ndarray, " body"]:
        ears = np.zeros(len(mean), bool)
        for change, least in EAR_CHANGES.items():
            for side in ("l-", "r-"):
                person = Person(MEAN_PHENOTYPE, neutral | {side + change: 1.0}, {})
                ears |= np.linalg.norm(self.model.body_vertices(person) - mean, axis=1) > least
        return ears & (mean[:, 1] < EAR_TOP_MM)

    def _with_cavity(self, vertices: np.ndarray) -> np.ndarray:
        """Return vertices of which those that close the mouth lie the deeper the wider it is open."""
        lips = (self.cavity > 0) & (self.cavity < LIPS_CAVITY) & (np.abs(vertices[:, 0]) < LIPS_MIDDLE_MM)
        opening = np.ptp(vertices[lips, 1])
        depth = np.clip(CAVITY_SLOPE * (opening - CLOSED_LIPS_MM), 0, MAX_CAVITY_MM)
        moved = vertices.copy()
        moved[:, 2] -= depth * self.cavity
        return moved


def _closed(faces: np.ndarray, mean: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Return the map to the vertices of the closed surface, its triangles, and the depth of each vertex in the mouth.

    The depth is 0 outside the mouth and on its edge, and 1 in the middle of what closes it. Where ears were, the
    surface is as smooth as it can be.
    """
    loops = sorted(boundary_loops(faces), key=lambda loop: mean[loop, 1].mean())
    # The neck's loop is the lowest one, then comes the mouth's.
    kinds = ["neck", "mouth", *("ear" if np.ptp(mean[loop, 1]) > EAR_HEIGHT_MM else "eye" for loop in loops[2:])]
    rows, depth, smooth = [sparse.eye(len(mean), format="csr")], [np.zeros(len(mean))], [np.zeros(len(mean), bool)]
    count = len(mean)
    for kind, loop in zip(kinds, loops):
        rings = {"neck": (), "mouth": MOUTH_RINGS}.get(kind, RINGS)
        weights, patch = _patch(loop, rings, count)
        rows.append(sparse.csr_matrix(weights @ rows[0][loop]))
        depths = np.append(np.repeat(MOUTH_DEPTHS, len(loop)), 1.0)
        depth.append(depths if kind == "mouth" else np.zeros(len(weights)))
        smooth.append(np.full(len(weights), kind == "ear"))
        faces = np.concatenate([faces, patch])
        count += len(weights)
    closing = sparse.vstack(rows).tocsr()
    chosen = np.concatenate(smooth)
    return (_smoothing(faces, chosen) @ closing if chosen.any() else closing), faces, np.concatenate(depth)


def _refined(closing: sparse.csr_matrix, faces: np.ndarray, mean: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return the map from the closed surface to one of triangles of one size, and these triangles."""
    matrix, faces = subdivide(faces, closing.shape[0])
    for smooth in (True, False):
        points = matrix @ closing @ mean
        limit = np.where(points[:, 1] < NECK_TOP_MM, NECK_EDGE_MM, EDGE_MM)
        step, faces = subdivide_long(faces, points, limit=limit, smooth=smooth)
        matrix = step @ matrix
    return matrix, faces


def _patch(loop: np.ndarray, rings: tuple[float, ...], first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (m, n) of a loop's vertices in m new ones, numbered from `first`, and triangles that close it."""
    n = len(loop)
    weights = [(1 - share) * np.eye(n) + share / n for share in rings] + [np.full((1, n), 1 / n)]
    numbers = [loop, *(first + n * ring + np.arange(n) for ring in range(len(rings)))]
    triangles = []
    for outer, inner in zip(numbers, numbers[1:]):
        a, b, c, d = outer, np.roll(outer, -1), inner, np.roll(inner, -1)
        triangles += [np.stack([a, b, d], 1), np.stack([a, d, c], 1)]
    last = numbers[-1]
    triangles.append(np.stack([last, np.roll(last, -1), np.full(n, first + n * len(rings))], 1))
    return np.concatenate(weights), np.concatenate(triangles)


def _smoothing(faces: np.ndarray, chosen: np.ndarray) -> sparse.csr_matrix:
    """Return the map that moves chosen vertices where the surface has the least bending energy."""
    count = len(chosen)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    adjacency = sparse.coo_matrix((np.ones(len(edges)), edges.T), (count, count)).tocsr()
    laplacian = sparse.eye(count) - sparse.diags(1 / np.asarray(adjacency.sum(1)).ravel()) @ adjacency
    bending = (laplacian.T @ laplacian).tocsr()
    inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    around = outside[np.asarray(np.abs(bending[inside][:, outside]).sum(0)).ravel() > 0]
    weights = -spsolve(bending[inside][:, inside].tocsc(), bending[inside][:, around].toarray())
    keep = sparse.diags((~chosen).astype(float))
    rows, columns = np.repeat(inside, len(around)), np.tile(around, len(inside))
    return (keep + sparse.coo_matrix((weights.ravel(), (rows, columns)), (count, count))).tocsr()


def _face_incidence(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    rows = faces.ravel()
    columns = np.repeat(np.arange(len(faces)), 3)
    return sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (count, len(faces))).tocsr()


def _pushed_out(vertices: np.ndarray, eyeball: np.ndarray) -> np.ndarray:
    """Return vertices of which none lies inside an eyeball, a body of revolution about the gaze, +z."""
    centre = eyeball.mean(0)
    spokes = eyeball - centre
    radii = np.linalg.norm(spokes, axis=1)
    near = np.flatnonzero(np.linalg.norm(vertices - centre, axis=1) < EYE_REACH * radii.max())
    offsets = vertices[near] - centre
    distances = np.linalg.norm(offsets, axis=1).clip(1e-9)
    order = np.argsort(-spokes[:, 2] / radii)
    surface = np.interp(-offsets[:, 2] / distances, (-spokes[:, 2] / radii)[order], radii[order])
    pushed = vertices.copy()
    front = offsets[:, 2] > 0
    scale = np.where(front, np.maximum(1, surface / distances), 1)
    pushed[near] = centre + offsets * scale[:, None]
    return pushed


def clip_below(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], height: float) -> trimesh.Trimesh:
    """Return what of a closed surface lies above a height in mm, closed by a plane; only its largest component."""
    above = vertices[:, 1] > height
    corners = above[faces]
    whole = faces[corners.all(1)]
    turned, one = _turned(faces[corners.any(1) & ~corners.all(1)], above)
    points, p, q = _with_cuts(vertices, turned, height)
    # Of a triangle with one corner above, that corner stays; of one with two, a quadrilateral, in two triangles.
    single, double = turned[one], turned[~one]
    parts = [
        whole,
        np.stack([single[:, 0], p[one], q[one]], 1),
        np.stack([p[~one], double[:, 1], double[:, 2]], 1),
        np.stack([p[~one], double[:, 2], q[~one]], 1),
    ]
    # The cut's edges, along which the plane that closes it meets the surface.
    starts, ends = np.concatenate([p[one], q[~one]]), np.concatenate([q[one], p[~one]])
    loops = list(follow_loops(dict(zip(starts.tolist(), ends.tolist()))))
    return _closed_largest(points, np.concatenate(parts), loops)


def _turned(crossing: Int[np.ndarray, "k 3"], above: Bool[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles turned so that the corner that is alone on its side comes first, and whether it is above."""
    kinds = above[crossing]
    one = kinds.sum(1) == 1
    first = np.where(one, kinds.argmax(1), (~kinds).argmax(1))
    return crossing[np.arange(len(crossing))[:, None], (first[:, None] + np.arange(3)) % 3], one


def _with_cuts(
    vertices: np.ndarray, turned: Int[np.ndarray, "k 3"], height: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points with those where edges are cut, and the numbers of the latter on ab and on ac of each triangle."""
    edges = np.concatenate([turned[:, [0, 1]], turned[:, [0, 2]]])
    keys, numbers = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
    a, b = vertices[keys[:, 0]], vertices[keys[:, 1]]
    share = (height - a[:, 1]) / (b[:, 1] - a[:, 1])
    cut = a + share[:, None] * (b - a)
    cut[:, 1] = height
    p, q = (len(vertices) + part for part in np.split(numbers.ravel(), 2))
    return np.concatenate([vertices, cut]), p, q


def _closed_largest(points: np.ndarray, faces: np.ndarray, loops: list[np.ndarray]) -> trimesh.Trimesh:
    """Return the largest component, closed by a fan in each of its loops."""
    if len(loops) > 1:
        faces = _largest(faces, len(points))
        loops = [loop for loop in loops if np.isin(loop[0], faces)]
    for loop in loops:
        points = np.concatenate([points, points[loop].mean(0, keepdims=True)])
        fan = np.stack([np.roll(loop, -1), loop, np.full(len(loop), len(points) - 1)], axis=1)
        faces = np.concatenate([faces, fan])
    return _mesh_of_used(points, faces)


def _mesh_of_used(points: np.ndarray, faces: np.ndarray) -> trimesh.Trimesh:
    used = np.zeros(len(points), bool)
    used[faces] = True
    numbers = np.cumsum(used) - 1
    return trimesh.Trimesh(points[used], numbers[faces], process=False)


def _largest(faces: np.ndarray, count: int) -> np.ndarray:
    graph = sparse.coo_matrix(
        (np.ones(2 * len(faces)), (faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel())), (count, count)
    )
    labels = sparse.csgraph.connected_components(graph, directed=False)[1][faces[:, 0]]
    return faces[labels == np.bincount(labels).argmax()]
