"""Completion: a partial scan and a model of heads in; whole heads out.

What the scan shows is kept as it is, and what it does not show comes from the model: it is an invention.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import trimesh
from jaxtyping import Bool
from scipy.spatial import cKDTree

from hyperdiffusion.completion.fit_seen import fit_seen
from hyperdiffusion.completion.linear_heads import LinearHeads
from hyperdiffusion.completion.posterior import find_codes
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.generate import SamplingConfig, sample
from overfit import BadInput, DecodeConfig, NeuralHead, connected_components, decode
from overfit.geometry.point_cloud import PointCloud, thin
from overfit.geometry.similarity import Similarity
from overfit.runtime.errors import require_at_least

# Points from which codes are found, and from which networks are fitted on.
CODE_POINTS = 1000
FIT_POINTS = 40_000
# Draws differ from the most likely head by this much more than its posterior says: whole heads also differ from what
# codes express, and are not normally distributed. With it, 90 % intervals contain the truth as often as they should
# (docs/experiments/completion.md).
DRAW_SPREAD = 1.4
# The samples that draws start from.
DRAW_SAMPLING = SamplingConfig("dpm", 30)
# A vertex is seen if the scan has a point this close, in mm, or at this many times the distance between its points.
SEEN_MM = 3.0
SEEN_SPACINGS = 2.0
# A smaller share of the head than this tells nothing of the rest.
MIN_SEEN_SHARE = 0.05
# Components of a head's surface beside the largest are kept if the scan shows this share of their vertices: glasses may
# not touch the head.
MIN_COMPONENT_SEEN = 0.3


@dataclass(frozen=True)
class CompletionConfig:
    """How partial scans are completed."""

    head: Literal["most-likely", "random"] = "most-likely"
    """The head of each scan: the one that is most likely, or a random one that agrees with the scan. Most likely heads
    vary too little where nothing is seen to be learned from."""
    draws: int = 4
    """Random heads that agree with each scan, beside that one."""
    seed: int = 0
    """Random seed of the draws."""
    model_error_mm: float = 1.0
    """Standard deviation in millimetres of what latent codes cannot express of a surface. Larger values trust the scan
    less, and draws differ more."""
    completion_steps: int = 600
    """Steps in which the networks are fitted on to what the scan shows."""

    def __post_init__(self) -> None:
        require_at_least(0, draws=self.draws, seed=self.seed)
        require_at_least(1, completion_steps=self.completion_steps)
        if not self.model_error_mm > 0:
            raise BadInput(f"`model_error_mm={self.model_error_mm}`: give a number above 0")


@dataclass(frozen=True)
class Completion:
    """The heads of one partial scan."""

    pose: Similarity
    """From the scan, as it was given, to the heads' frame."""
    heads: list[NeuralHead]
    """The scan's head, and then the draws."""
    seen: PointCloud
    """The scan's points in the heads' frame."""

    def decode(self, config: DecodeConfig = DecodeConfig()) -> list[trimesh.Trimesh]:
        """Return the heads' meshes, without separate components that the scan does not show.

        Raises BadInput if a head has no surface.
        """
        meshes = [decode(head, replace(config, keep_all_components=True)) for head in self.heads]
        return meshes if config.keep_all_components else [self._without_strays(mesh) for mesh in meshes]

    def is_seen(self, mesh: trimesh.Trimesh) -> Bool[np.ndarray, " vertices"]:
        """Return which vertices of a decoded head the scan shows; the others are inventions."""
        tree = cKDTree(self.seen.points)
        some = self.seen.points[:: max(1, len(self.seen.points) // CODE_POINTS)]
        spacing = float(np.median(tree.query(some, 2)[0][:, 1]))
        return tree.query(mesh.vertices)[0] < max(SEEN_MM, SEEN_SPACINGS * spacing)

    def _without_strays(self, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        largest, *others = sorted(connected_components(mesh), key=lambda part: -len(part.faces))
        whole = trimesh.util.concatenate(
            [largest, *(part for part in others if self.is_seen(part).mean() > MIN_COMPONENT_SEEN)]
        )
        assert isinstance(whole, trimesh.Trimesh)
        return whole

    def seen_share(self, mesh: trimesh.Trimesh) -> float:
        """Return the share of a decoded head's area that the scan shows."""
        seen = self.is_seen(mesh)[mesh.faces].all(1)
        return float(mesh.area_faces[seen].sum() / mesh.area_faces.sum())


def complete(checkpoint: Checkpoint, seen: PointCloud, *, config: CompletionConfig = CompletionConfig()) -> Completion:
    """Return whole heads that agree with a partial scan.

    Args:
        checkpoint: A model of warped heads in latent coordinates.
        seen: Points of the scan with outward normals, in millimetres, registered to the canonical frame.
        config: How many heads, and how the scan is weighed against the model.

    Raises:
        BadInput: If the model is of another kind.
    """
    heads = LinearHeads(checkpoint)
    posterior = find_codes(heads, thin(seen, CODE_POINTS), model_error_mm=config.model_error_mm)
    codes = posterior.code[None]
    if count := config.draws + (config.head == "random"):
        samples = sample(checkpoint, count, seed=config.seed, config=DRAW_SAMPLING)
        whitened = checkpoint.coordinates.encode(samples).cpu().double().numpy()
        near = posterior.near(whitened, np.random.default_rng(config.seed))
        draws = codes + DRAW_SPREAD * (near - codes)
        codes = draws if config.head == "random" else np.concatenate([codes, draws])
    moved = posterior.pose.transform_cloud(seen)
    parameters = fit_seen(
        heads.space, heads.parameters(codes), thin(moved, FIT_POINTS), steps=config.completion_steps, seed=config.seed
    )
    return Completion(posterior.pose, [heads.space.head(row) for row in parameters], moved)
