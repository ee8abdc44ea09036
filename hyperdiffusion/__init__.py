"""Stage 2: the distribution of fitted networks' weights, learned by diffusion, and new heads sampled from it."""

from importlib.metadata import version

from hyperdiffusion.completion.complete import Completion, CompletionConfig, complete
from hyperdiffusion.completion.complete_folder import CompletionReport, CompletionResult, complete_folder
from hyperdiffusion.completion.complete_partial import WHOLE_SHARE, CompletedHeads, complete_partial, partial_heads
from hyperdiffusion.data.head_folder import write_heads
from hyperdiffusion.data.synthetic_heads import HeadModel, Person
from hyperdiffusion.demo import run_demo
from hyperdiffusion.diffusion.affect import affect_request
from hyperdiffusion.diffusion.attribute_table import AttributeTable, read_attributes
from hyperdiffusion.diffusion.attributes import Attributes, Categorical, Numeric
from hyperdiffusion.diffusion.checkpoint import Checkpoint, TrainingRecord
from hyperdiffusion.diffusion.conditioning import Conditioning
from hyperdiffusion.diffusion.coordinates import LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.denoiser import TokenTransformer, TransformerConfig, sinusoidal_embedding
from hyperdiffusion.diffusion.distributed import is_main_process
from hyperdiffusion.diffusion.edit import EDIT_STEPS, EditedHead, edit, edit_head
from hyperdiffusion.diffusion.encode import LatentSpaceConfig, code_optimizer, code_table
from hyperdiffusion.diffusion.encode_store import train_val_split
from hyperdiffusion.diffusion.expression_plane import PLANE_SAMPLING, ExpressionPlane, expression_plane
from hyperdiffusion.diffusion.generate import SamplingConfig, sample
from hyperdiffusion.diffusion.interpolate import (
    find_head,
    interpolate,
    interpolate_heads,
    interpolate_in_noise,
    mix_layers,
)
from hyperdiffusion.diffusion.prior import HeadPrior
from hyperdiffusion.diffusion.samplers import SampleNoise, ddim, ddpm, dpm, ode
from hyperdiffusion.diffusion.schedule import NoiseSchedule
from hyperdiffusion.diffusion.train import Wandb, train, withdrawn_heads
from hyperdiffusion.diffusion.training_config import TrainingConfig
from hyperdiffusion.diffusion.write_samples import WrittenHeads, write_between, write_plane, write_samples
from hyperdiffusion.evaluation.evaluate import evaluate, evaluate_sets
from hyperdiffusion.evaluation.metrics import (
    POINTS_PER_HEAD,
    chamfer_distances,
    compare_sets,
    earth_mover_distances,
    sample_point_clouds,
)
from hyperdiffusion.evaluation.report import EvaluationReport
from hyperdiffusion.evaluation.set_metrics import (
    EvaluationConfig,
    ReferenceHeads,
    SetMetrics,
    evaluate_meshes,
    evaluate_point_clouds,
)
from hyperdiffusion.presets import PRESETS
from hyperdiffusion.rendering.contact_sheet import draw_preparation, write_contact_sheet, write_preparation_sheets
from hyperdiffusion.rendering.preparation_page import write_preparation_page
from hyperdiffusion.rendering.render import Camera, render

__version__ = version("hyperdiffusion-heads")

__all__ = [
    "EDIT_STEPS",
    "PLANE_SAMPLING",
    "POINTS_PER_HEAD",
    "PRESETS",
    "WHOLE_SHARE",
    "AttributeTable",
    "Attributes",
    "Camera",
    "Categorical",
    "Checkpoint",
    "CompletedHeads",
    "Completion",
    "CompletionConfig",
    "CompletionReport",
    "CompletionResult",
    "Conditioning",
    "EditedHead",
    "EvaluationConfig",
    "EvaluationReport",
    "ExpressionPlane",
    "HeadModel",
    "HeadPrior",
    "LatentCoordinates",
    "LatentSpaceConfig",
    "NoiseSchedule",
    "Numeric",
    "Person",
    "ReferenceHeads",
    "SampleNoise",
    "SamplingConfig",
    "SetMetrics",
    "TokenTransformer",
    "TrainingConfig",
    "TrainingRecord",
    "TransformerConfig",
    "Wandb",
    "WeightCoordinates",
    "WrittenHeads",
    "__version__",
    "affect_request",
    "chamfer_distances",
    "code_optimizer",
    "code_table",
    "compare_sets",
    "complete",
    "complete_folder",
    "complete_partial",
    "ddim",
    "ddpm",
    "dpm",
    "draw_preparation",
    "earth_mover_distances",
    "edit",
    "edit_head",
    "evaluate",
    "evaluate_meshes",
    "evaluate_point_clouds",
    "evaluate_sets",
    "expression_plane",
    "find_head",
    "interpolate",
    "interpolate_heads",
    "interpolate_in_noise",
    "is_main_process",
    "mix_layers",
    "ode",
    "partial_heads",
    "read_attributes",
    "render",
    "run_demo",
    "sample",
    "sample_point_clouds",
    "sinusoidal_embedding",
    "train",
    "train_val_split",
    "withdrawn_heads",
    "write_between",
    "write_contact_sheet",
    "write_heads",
    "write_plane",
    "write_preparation_page",
    "write_preparation_sheets",
    "write_samples",
]
