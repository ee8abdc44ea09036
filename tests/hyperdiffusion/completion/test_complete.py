"""Heads of the included model with a part cut away: what is seen is kept, and the rest comes closer than the mean."""

import numpy as np
import pytest
import torch
import trimesh
from support import nearest_on

from hyperdiffusion import Checkpoint, CompletionConfig, complete, sample
from hyperdiffusion.completion.linear_heads import LinearHeads
from overfit import BadInput, DecodeConfig, decode
from overfit.geometry.point_cloud import PointCloud
from overfit.geometry.similarity import Similarity

# A registration that is a little off.
OFF = Similarity(rotation=trimesh.transformations.rotation_matrix(0.02, [0, 1, 1])[:3, :3], translation=np.ones(3))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.shipped(torch.device("cpu"))


@pytest.fixture(scope="module")
def head(checkpoint) -> trimesh.Trimesh:
    return decode(checkpoint.head(sample(checkpoint, 1, seed=5)[0]), DecodeConfig(128))


def test_half_a_head_is_completed(checkpoint, head):
    points, triangles = trimesh.sample.sample_surface(head, 20_000, seed=0)
    above = points[:, 1] > head.bounds[0, 1] + 5
    points, normals = np.asarray(points)[above], head.face_normals[triangles][above]
    front = points[:, 2] > np.median(points[:, 2])
    scan = OFF.transform_cloud(PointCloud(points[front], normals[front]))
    found = complete(checkpoint, scan, config=CompletionConfig(draws=1, completion_steps=60))
    likely, draw = found.decode(DecodeConfig(96))
    seen, unseen = found.pose(scan.points), found.pose(OFF(points[~front]))
    assert nearest_on(likely, seen)[0].mean() < 0.6 and nearest_on(draw, seen)[0].mean() < 0.6
    heads = LinearHeads(checkpoint)
    mean_head = decode(heads.head(np.zeros(heads.size)), DecodeConfig(96))
    assert nearest_on(likely, unseen)[0].mean() < 0.5 * nearest_on(mean_head, points[~front])[0].mean()
    # The mask is that of the front; what is shown of the neck's cut is little.
    assert 0.3 < found.seen_share(likely) < 0.6
    behind = likely.vertices[:, 2] < np.median(points[:, 2]) - 10
    assert not found.is_seen(likely)[behind].any()


@pytest.mark.parametrize(
    "values, words", [(dict(draws=-1), "`draws=-1`"), (dict(model_error_mm=0.0), "`model_error_mm=0.0`: give a number")]
)
def test_settings_that_make_no_sense_are_refused(values, words):
    with pytest.raises(BadInput, match=words):
        CompletionConfig(**values)
