"""The head model: a random generator in, people and closed meshes of their plain heads in millimetres out.

The heads are cut from Anny (Brégier et al. 2025, arXiv:2511.03589), Apache-2.0 code around MakeHuman's CC0 body data.
What a head scan does not show (the inside of the mouth, the eye sockets, the tongue) is removed, the surface is made
smooth by subdivision, and the neck ends in a plane.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from hyperdiffusion.data.solids import boundary_loops, to_arrays, to_manifold
from overfit.runtime.errors import BadInput

# Local changes of these parts shape the head.
HEAD_PARTS = ("head", "forehead", "eyebrows", "eye", "nose", "mouth", "ear", "cheek", "chin", "neck")
# Standard deviation of a local change, whose range is -1 to 1: a change of 1 is a caricature.
LOCAL_STD = 0.18
# Standard deviation of the difference between left and right: faces are nearly symmetric.
ASYMMETRY_STD = 0.04
# The build of a person.
BUILD_LABELS = ("weight", "muscle", "height", "proportions")
# Range of each of these; all at their ends, heads would have eight litres.
BUILD_RANGE = (0.15, 0.85)
# Range of the age: on Anny's scale 0 is a baby, 1/3 a child, 2/3 a young adult and 1 an old one.
AGE_RANGE = (0.3, 1.0)
# Concentration of the Dirichlet distribution of ancestries: below 1 most people are mainly of one.
ANCESTRY_CONCENTRATION = 0.7
# Facial actions that a head shows at once, at most.
MAX_EXPRESSIONS = 2
# Strongest facial action: scans are made with a neutral or a faint expression.
MAX_EXPRESSION_STRENGTH = 0.4
# Gazes cannot be seen on a mesh, and an open mouth would show what is removed.
HIDDEN_ACTIONS = ("eyeLook", "tongueOut", "jaw", "mouthClose")
# Anny looks this many degrees farther down than the light-stage scans of ICT-FaceKit in their neutral pose (200 heads
# registered on its mean). Theirs is the canonical pose, since real scans are compared with these heads.
PITCH_DEGREES = 3.0
# The neck is cut at this share of the way from its first vertebra to its second: below the chin and the hair line.
NECK_CUT_SHARE = 0.3
# Loop subdivisions of the surface (Loop 1987). The base mesh is made to be subdivided: its triangles are 6 mm long, and
# would show as facets of decoded heads.
SUBDIVISIONS = 2
# How far in mm below the neck's cut the surface ends while it is subdivided, which rounds the end.
SUBDIVISION_MARGIN_MM = 40.0


@dataclass(frozen=True)
class Person:
    """Parameters of one head, under Anny's names."""

    phenotype: dict[str, float]
    """Sex, age, build and ancestry, 0 to 1."""
    local: dict[str, float]
    """Details of the face, -1 to 1."""
    actions: dict[str, float]
    """Facial actions, 0 to 1."""


class HeadModel:
    """Anny, cut to the head. Needs the extra `demo`; the first load takes a minute or two, later ones seconds."""

    def __init__(self) -> None:
        """Load the model. Raises BadInput if anny or manifold3d is not installed."""
        try:
            import anny
            import manifold3d  # noqa: F401 - not needed to load, but better missed before a long load than after it
        except ImportError as error:
            raise BadInput(
                f"the head model needs {error.name}; install it by `pip install hyperdiffusion-heads[demo]`"
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = anny.Anny(local_changes="all", facial_actions="all", phenotypes="all", skinning_method="lbs")
        # The local changes that shape a head.
        self.details = [label for label in self.model.local_change_labels if _part(label) in HEAD_PARTS]
        cavities = torch.load(Path(anny.__path__[0]) / "data" / "template_mesh_internal_cavities.pth")
        hidden = np.isin(self.model.base_mesh_vertex_indices.numpy(), cavities["vertex_indices"])
        faces = np.asarray(self.model.faces)
        mesh = trimesh.Trimesh(np.zeros((len(hidden), 3)), faces, process=False)
        component = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(faces))
        # Largest first: the body, the tongue, the two eyeballs.
        order = np.argsort(-np.bincount(component), kind="stable")
        self.skin = faces[(component == order[0]) & ~hidden[faces].all(1)]
        self.eyeballs = [faces[component == order[2]], faces[component == order[3]]]
        self.openings = boundary_loops(self.skin)

    @cached_property
    def actions(self) -> list[str]:
        """Facial actions that a closed head can show."""
        return [label for label in self.model.facial_action_labels if not label.startswith(HIDDEN_ACTIONS)]

    def person(self, rng: np.random.Generator, *, expressions: int = MAX_EXPRESSIONS) -> Person:
        """Return a random person.

        Phenotypes are uniform over their range and details normally distributed. The expression is faint and made of up
        to `expressions` facial actions.
        """
        phenotype = {"gender": float(rng.uniform()), "age": float(rng.uniform(*AGE_RANGE))}
        phenotype |= {label: float(rng.uniform(*BUILD_RANGE)) for label in BUILD_LABELS}
        shares = rng.dirichlet([ANCESTRY_CONCENTRATION] * 3)
        phenotype |= dict(zip(("african", "asian", "caucasian"), map(float, shares)))
        local = self._random_details(rng)
        shown = rng.choice(self.actions, rng.integers(expressions + 1), replace=False)
        actions = {str(label): float(rng.uniform(0, MAX_EXPRESSION_STRENGTH)) for label in shown}
        return Person(phenotype, local, actions)

    def _random_details(self, rng: np.random.Generator) -> dict[str, float]:
        """Return random local changes; those of the left and the right side have one value in common."""
        common: dict[str, float] = {}
        local = {}
        for label in self.details:
            both = label[2:] if label[:2] in ("l-", "r-") else label
            if both not in common:
                common[both] = float(rng.normal(scale=LOCAL_STD))
            difference = float(rng.normal(scale=ASYMMETRY_STD)) if both != label else 0.0
            local[label] = float(np.clip(common[both] + difference, -1, 1))
        return local

    def mesh(self, person: Person, *, subdivisions: int = SUBDIVISIONS) -> trimesh.Trimesh:
        """Return the person's head as a closed mesh of one component, in millimetres and the canonical frame.

        +y is up, +z points out of the face, and the origin is in the middle of the head. Without subdivisions, its
        vertices are those of `body_vertices`, except for those of the neck's cut.
        """
        import manifold3d

        vertices, bones = self.posed_body(person)
        vertices, skin = _fill_openings(vertices, self.skin, self.openings)
        height = float((1 - NECK_CUT_SHARE) * bones["neck01"][1] + NECK_CUT_SHARE * bones["neck02"][1])
        head = _subdivided(_cut_above(to_manifold(vertices, skin), height - SUBDIVISION_MARGIN_MM), subdivisions)
        for eyeball in self.eyeballs:
            head += _subdivided(to_manifold(vertices, eyeball), subdivisions)
        head = max(_cut_above(head, height).decompose(), key=manifold3d.Manifold.volume)
        points, triangles = to_arrays(head)
        return trimesh.Trimesh(points - head_centre(bones), triangles, process=False)

    def body_vertices(self, person: Person) -> Float[np.ndarray, "n 3"]:
        """Return all vertices of the person's body in the frame of `mesh`, in the same order for every person."""
        vertices, bones = self.posed_body(person)
        return vertices - head_centre(bones)

    @torch.no_grad()
    def posed_body(self, person: Person) -> tuple[Float[np.ndarray, "n 3"], dict[str, Float[np.ndarray, "3"]]]:
        """Return the body's vertices and its joints by name, in millimetres, +y up and +z out of the face.

        The origin is the body's; `head_centre` is the canonical frame's.
        """
        body = self.model(
            phenotype_kwargs=person.phenotype, local_changes_kwargs=person.local, facial_actions=person.actions
        )
        vertices, joints = _to_canonical_axes(body["rest_vertices"][0]), _to_canonical_axes(body["rest_bone_heads"][0])
        return vertices, dict(zip(self.model.bone_labels, joints))


def _part(label: str) -> str:
    """Return the body part of a local change: eye for l-eye-bag-out, neck for measure-neck-circ-incr."""
    return label.removeprefix("l-").removeprefix("r-").removeprefix("measure-").split("-")[0]


def _to_canonical_axes(points: torch.Tensor) -> np.ndarray:
    """Return Anny's points (n, 3), in metres with +z up and -y out of the face, in millimetres and canonical axes."""
    x, y, z = points.double().numpy().T * 1000
    return Rotation.from_euler("x", -PITCH_DEGREES, degrees=True).apply(np.stack([x, z, -y], axis=1))


def head_centre(bones: dict[str, Float[np.ndarray, "3"]]) -> Float[np.ndarray, "3"]:
    """Return the origin: between the eyes, at their height, halfway to the joint of the head.

    Unlike the middle of the bounds it does not depend on noses and ears.
    """
    eyes = (bones["eye.L"] + bones["eye.R"]) / 2
    return np.array([eyes[0], eyes[1], (eyes[2] + bones["head"][2]) / 2])


def _fill_openings(vertices: np.ndarray, faces: np.ndarray, loops: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and triangles of the mesh with each loop closed by a fan about its centre."""
    centres = np.array([vertices[loop].mean(0) for loop in loops])
    fans = [
        np.stack([loop, np.roll(loop, -1), np.full(len(loop), len(vertices) + index)], axis=1)
        for index, loop in enumerate(loops)
    ]
    return np.concatenate([vertices, centres]), np.concatenate([faces, *fans])


def _cut_above(surface: Any, height: float) -> Any:
    """Return what of a manifold3d.Manifold lies above a height in mm, closed by a plane."""
    return surface.trim_by_plane((0.0, 1.0, 0.0), height)


def _subdivided(surface: Any, subdivisions: int) -> Any:
    """Return a manifold3d.Manifold made smooth."""
    return to_manifold(*trimesh.remesh.subdivide_loop(*to_arrays(surface), iterations=subdivisions))
