"""The default data: a count and a seed in, closed head meshes in millimetres out, cut from the Anny body model.

Anny (Brégier et al. 2025, arXiv:2511.03589) is Apache-2.0 code around MakeHuman's CC0 body data. What a head scan does
not show (the mouth's inside, the eye sockets, the tongue) is taken away, and the neck ends in a plane.
"""

import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from overfit.errors import BadInput
from overfit.files import replacing

# Local changes of these parts shape the head; "l-" and "r-" variants are drawn together, faces being near symmetric.
PARTS = ("head", "forehead", "eyebrows", "eye", "nose", "mouth", "ear", "cheek", "chin", "neck")
# Deviation of a local change, whose range is -1 to 1, and of the difference between left and right.
LOCAL, ASYMMETRY = 0.18, 0.04
# Range of weight, muscle, height and proportions: their ends together give heads of eight litres.
BUILD = (0.15, 0.85)
# Youngest and oldest: on Anny's scale 0 is a baby, 1/3 a child, 2/3 a young adult and 1 an old one.
AGES = (0.3, 1.0)
# Faint expressions, up to so many at once; gazes do not show, and an open jaw shows what was taken away.
EXPRESSIONS, EXPRESSION_LIMIT = 2, 0.4
HIDDEN_ACTIONS = ("eyeLook", "tongueOut", "jaw", "mouthClose")
# Anny looks so many degrees farther down than the light-stage scans of ICT-FaceKit in their neutral pose (200 heads
# registered on its mean). Theirs is the canonical pose: real scans are what heads will lie beside.
DOWN = 3.0
# The neck is cut this share of the way from its first vertebra to its second.
CUT = 0.3


@dataclass(frozen=True)
class Person:
    """Parameters of one head, as Anny names them."""

    # Sex, age, build and ancestry, 0 to 1.
    phenotype: dict[str, float]
    # Details of the face, -1 to 1.
    local: dict[str, float]
    # Expression, 0 to 1.
    actions: dict[str, float]


class HeadModel:
    """Anny, cut to the head. Needs the extra `demo`; loading takes a minute or two the first time, then seconds."""

    def __init__(self):
        """Raises BadInput where anny or manifold3d is not installed."""
        try:
            import anny
            import manifold3d  # noqa: F401 - asked for here, so that its want is told before the long load
        except ImportError as error:
            raise BadInput(f"the head model needs {error.name}; install it by `pip install hyperdiffusion-heads[demo]`"
                           ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = anny.Anny(local_changes="all", facial_actions="all", phenotypes="all", skinning_method="lbs")
        # The local changes that shape a head.
        self.details = [label for label in self.model.local_change_labels if _part(label) in PARTS]
        cavities = torch.load(Path(anny.__path__[0]) / "data" / "template_mesh_internal_cavities.pth")
        hidden = np.isin(self.model.base_mesh_vertex_indices.numpy(), cavities["vertex_indices"])
        faces = np.asarray(self.model.faces)
        mesh = trimesh.Trimesh(np.zeros((len(hidden), 3)), faces, process=False)
        piece = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(faces))
        # Largest first: the body, the tongue, the two eyeballs.
        order = np.argsort(-np.bincount(piece), kind="stable")
        self.skin = faces[(piece == order[0]) & ~hidden[faces].all(1)]
        self.eyeballs = [faces[piece == order[2]], faces[piece == order[3]]]
        self.openings = _loops(self.skin)

    @cached_property
    def actions(self) -> list[str]:
        """Facial actions that a closed head can show."""
        return [label for label in self.model.facial_action_labels if not label.startswith(HIDDEN_ACTIONS)]

    def person(self, rng: np.random.Generator, expressions: int = EXPRESSIONS) -> Person:
        """A random person: phenotypes over their range, details normally distributed, at most a faint expression.

        The expression is made of up to `expressions` facial actions.
        """
        phenotype = {"gender": float(rng.uniform()), "age": float(rng.uniform(*AGES))}
        phenotype |= {label: float(rng.uniform(*BUILD)) for label in ("weight", "muscle", "height", "proportions")}
        ancestry = dict(zip(("african", "asian", "caucasian"), map(float, rng.dirichlet([0.7] * 3))))
        common: dict[str, float] = {}
        local = {}
        for label in self.details:
            both = label[2:] if label[:2] in ("l-", "r-") else label
            if both not in common:
                common[both] = float(rng.normal(scale=LOCAL))
            aside = float(rng.normal(scale=ASYMMETRY)) if both != label else 0.0
            local[label] = float(np.clip(common[both] + aside, -1, 1))
        shown = rng.choice(self.actions, rng.integers(expressions + 1), replace=False)
        return Person(phenotype | ancestry, local,
                      {str(label): float(rng.uniform(0, EXPRESSION_LIMIT)) for label in shown})

    def mesh(self, person: Person) -> trimesh.Trimesh:
        """The person's head: closed, one body, millimetres, +y up, +z out of the face, origin at the head's middle."""
        import manifold3d

        vertices, bones = self._body(person)
        vertices, skin = _capped(vertices, self.skin, self.openings)
        head = _manifold(vertices, skin)
        for eyeball in self.eyeballs:
            head += _manifold(vertices, eyeball)
        height = float((1 - CUT) * bones["neck01"][1] + CUT * bones["neck02"][1])
        head = max(head.trim_by_plane((0.0, 1.0, 0.0), height).decompose(), key=manifold3d.Manifold.volume)
        cut = head.to_mesh64()
        points = np.asarray(cut.vert_properties)[:, :3]
        return trimesh.Trimesh(points - self._middle(vertices, bones), np.asarray(cut.tri_verts), process=False)

    def body(self, person: Person) -> np.ndarray:
        """All vertices (n, 3) of the person's body where `mesh` has the head; the same ones for every person."""
        vertices, bones = self._body(person)
        return vertices - self._middle(vertices, bones)

    @torch.no_grad()
    def _body(self, person: Person) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Vertices (n, 3) and bones' heads by name, millimetres, +y up, +z out of the face."""
        body = self.model(phenotype_kwargs=person.phenotype, local_changes_kwargs=person.local,
                          facial_actions=person.actions)
        vertices, bones = _upright(body["rest_vertices"][0]), _upright(body["rest_bone_heads"][0])
        return vertices, dict(zip(self.model.bone_labels, bones))

    def _middle(self, vertices: np.ndarray, bones: dict[str, np.ndarray]) -> np.ndarray:
        """Between the eyes in x, between brow and nape in z, at the eyes' height: stable over noses and hair lines."""
        eyes = (bones["eye.L"] + bones["eye.R"]) / 2
        return np.array([eyes[0], eyes[1], (eyes[2] + bones["head"][2]) / 2])


def write_heads(out: Path | str, count: int, seed: int, suffix: str = "ply",
                expressions: int = EXPRESSIONS) -> list[Path]:
    """Write `count` heads and heads.csv with their parameters. Head k of a seed is the same whatever the count.

    Each shows up to `expressions` facial actions at once. Heads that are there already are kept. Raises BadInput for a
    count below one or expressions below none.
    """
    out = Path(out)
    if count < 1:
        raise BadInput(f"--count {count}: give the number of heads, at least 1")
    if expressions < 0:
        raise BadInput(f"--expressions {expressions}: give 0 or more")
    paths = [out / f"head_{seed:03d}_{index:05d}.{suffix}" for index in range(count)]
    if all(path.exists() for path in (*paths, out / "heads.csv")):
        return paths
    with tqdm(total=1, desc="loading the head model, minutes the first time", bar_format="{desc} [{elapsed}]") as bar:
        model = HeadModel()
        bar.update()
    out.mkdir(parents=True, exist_ok=True)
    expressions = min(expressions, len(model.actions))
    people = [model.person(np.random.default_rng([seed, index]), expressions) for index in range(count)]
    for path, person in tqdm(list(zip(paths, people)), desc="heads", unit="head"):
        if not path.exists():
            with replacing(path) as unfinished:
                model.mesh(person).export(unfinished, file_type=suffix)
    with replacing(out / "heads.csv") as unfinished, open(unfinished, "w", newline="") as file:
        csv.writer(file).writerows(_table(model, paths, people))
    return paths


def _table(model: HeadModel, paths: list[Path], people: list[Person]) -> Iterator[list]:
    labels = [*people[0].phenotype, *people[0].local, *model.actions]
    yield ["file", *labels]
    for path, person in zip(paths, people):
        values = person.phenotype | person.local | person.actions
        yield [path.name, *(round(values.get(label, 0.0), 5) for label in labels)]


def _part(label: str) -> str:
    """The body part of a local change: eye of l-eye-bag-out, neck of measure-neck-circ-incr."""
    return label.removeprefix("l-").removeprefix("r-").removeprefix("measure-").split("-")[0]


def _upright(points: torch.Tensor) -> np.ndarray:
    """Anny's metres, +z up and -y out of the face, to the canonical frame."""
    x, y, z = points.double().numpy().T * 1000
    return Rotation.from_euler("x", -DOWN, degrees=True).apply(np.stack([x, z, -y], axis=1))


def _loops(faces: np.ndarray) -> list[np.ndarray]:
    """The border of a mesh as closed loops of vertices, each in the direction that closes it with faces outward."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = set(map(tuple, edges.tolist()))
    following = {b: a for a, b in present if (b, a) not in present}
    loops = []
    while following:
        loop = [next(iter(following))]
        while (after := following.pop(loop[-1])) != loop[0]:
            loop.append(after)
        loops.append(np.array(loop))
    return loops


def _capped(vertices: np.ndarray, faces: np.ndarray, loops: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with each loop closed by a fan about its middle."""
    middles = np.array([vertices[loop].mean(0) for loop in loops])
    fans = [np.stack([loop, np.roll(loop, -1), np.full(len(loop), len(vertices) + index)], axis=1)
            for index, loop in enumerate(loops)]
    return np.concatenate([vertices, middles]), np.concatenate([faces, *fans])


def _manifold(vertices: np.ndarray, faces: np.ndarray):
    import manifold3d

    used, faces = np.unique(faces, return_inverse=True)
    return manifold3d.Manifold(manifold3d.Mesh64(vertices[used], faces.reshape(-1, 3).astype(np.uint64)))
