"""Stage 2: the distribution of fitted networks' weights, learned by diffusion, and new heads sampled from it."""

from .checkpoint import Checkpoint
from .diffusion import Schedule
from .heads import HeadModel, write_heads
from .learner import Training
from .sample import Sampling, sample
from .subspace import Subspace
from .train import train
from .transformer import Denoiser, Shape

__all__ = ["Checkpoint", "Denoiser", "HeadModel", "Sampling", "Schedule", "Shape", "Subspace", "Training", "sample",
           "train", "write_heads"]
