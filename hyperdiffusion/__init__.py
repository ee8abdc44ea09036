"""Stage 2: the distribution of fitted networks' weights, learned by diffusion, and new heads sampled from it."""

from .checkpoint import Checkpoint
from .diffusion import Schedule
from .heads import HeadModel, write_heads
from .sample import Sampling, sample
from .train import Training, train
from .transformer import Denoiser, Shape

__all__ = ["Checkpoint", "Denoiser", "HeadModel", "Sampling", "Schedule", "Shape", "Training", "sample", "train",
           "write_heads"]
