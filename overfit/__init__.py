"""Stage 1: a folder of scans in, a store of small occupancy networks out, one overfitted to each scan."""

from overfit.decode import DecodeConfig, decode, try_decode
from overfit.decode_folder import DecodedHead, MeshFormat, decode_to_folder
from overfit.field import Field
from overfit.fit import FitConfig
from overfit.fit_batch import OverfitConfig
from overfit.fit_metrics import SurfaceError, face_normal_error, surface_error
from overfit.fit_scans import OverfitResult, overfit, prepared_folder
from overfit.geometry.bounding_cube import Cube
from overfit.labels import LabelConfig
from overfit.neural_head import NeuralHead
from overfit.presets import PRESETS, Preset
from overfit.runtime.errors import BadInput, Skipped
from overfit.runtime.machine import Machine, RunContext
from overfit.scans.formats import PreparedScan, Scan, find_scans, output_names, read_prepared
from overfit.scans.prepare import PreparationConfig, PreparationReport
from overfit.scans.prepare_folder import PrepareResult
from overfit.scans.prepare_folder import prepare_folder as prepare
from overfit.store import FitRecord, Fits, Store, WeightRows

__all__ = [
    "PRESETS",
    "BadInput",
    "Cube",
    "DecodeConfig",
    "DecodedHead",
    "Field",
    "FitConfig",
    "FitRecord",
    "Fits",
    "LabelConfig",
    "Machine",
    "MeshFormat",
    "NeuralHead",
    "OverfitConfig",
    "OverfitResult",
    "PreparationConfig",
    "PreparationReport",
    "PrepareResult",
    "PreparedScan",
    "Preset",
    "RunContext",
    "Scan",
    "Skipped",
    "Store",
    "SurfaceError",
    "WeightRows",
    "decode",
    "decode_to_folder",
    "face_normal_error",
    "find_scans",
    "output_names",
    "overfit",
    "prepare",
    "prepared_folder",
    "read_prepared",
    "surface_error",
    "try_decode",
]
