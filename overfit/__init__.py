"""Stage 1: a folder of scans in, a store of small occupancy networks out, one overfitted to each scan."""

from overfit.canonical.align import AlignmentConfig, ScanAlignment, align
from overfit.canonical.warp import Warp, WarpSpace
from overfit.decode_fits import DecodeResult, decode_store
from overfit.decode_folder import DecodedHead, MeshFormat, decode_to_folder
from overfit.decoder import DecodeConfig, decode, try_decode
from overfit.field import Field
from overfit.field_labels import FIELD_LOSS, FieldLabels
from overfit.fit import FitConfig, autocast, losses
from overfit.fit_batch import (
    AlignedScan,
    BatchResult,
    BatchSetup,
    OverfitConfig,
    fit_first,
    fit_scan_batch,
    label_scan,
    shared_space,
)
from overfit.fit_metrics import SurfaceError, face_normal_error, surface_error
from overfit.fit_scans import BATCH_SIZE, OverfitResult, completed_folder, overfit, prepared_folder
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.mesh import connected_components, igl_arrays, largest_component, on_face_front, sample_points
from overfit.labels import LabelBatch, LabelConfig, Labels, label_mesh
from overfit.neural_head import HeadSpace, NeuralHead
from overfit.presets import PRESETS, Preset
from overfit.prior import FitPrior
from overfit.runtime.errors import BadInput, Skipped
from overfit.runtime.machine import Machine, RunContext
from overfit.runtime.workers import run_tasks_in_order
from overfit.scans.formats import PreparedScan, Scan, find_scans, read_prepared
from overfit.scans.preparation_report import PreparationReport
from overfit.scans.prepare import PreparationConfig
from overfit.scans.prepare_folder import PrepareResult
from overfit.scans.prepare_folder import prepare_folder as prepare
from overfit.scans.units import MM_PER_UNIT
from overfit.store import FitRecord, Fits, ParameterRows, Store

__all__ = [
    "BATCH_SIZE",
    "FIELD_LOSS",
    "MM_PER_UNIT",
    "PRESETS",
    "AlignedScan",
    "AlignmentConfig",
    "BadInput",
    "BatchResult",
    "BatchSetup",
    "Cube",
    "DecodeConfig",
    "DecodeResult",
    "DecodedHead",
    "Field",
    "FieldLabels",
    "FitConfig",
    "FitPrior",
    "FitRecord",
    "Fits",
    "HeadSpace",
    "LabelBatch",
    "LabelConfig",
    "Labels",
    "Machine",
    "MeshFormat",
    "NeuralHead",
    "OverfitConfig",
    "OverfitResult",
    "ParameterRows",
    "PreparationConfig",
    "PreparationReport",
    "PrepareResult",
    "PreparedScan",
    "Preset",
    "RunContext",
    "Scan",
    "ScanAlignment",
    "Skipped",
    "Store",
    "SurfaceError",
    "Warp",
    "WarpSpace",
    "align",
    "autocast",
    "completed_folder",
    "connected_components",
    "decode",
    "decode_store",
    "decode_to_folder",
    "face_normal_error",
    "find_scans",
    "fit_first",
    "fit_scan_batch",
    "igl_arrays",
    "label_mesh",
    "label_scan",
    "largest_component",
    "losses",
    "on_face_front",
    "overfit",
    "prepare",
    "prepared_folder",
    "read_prepared",
    "run_tasks_in_order",
    "sample_points",
    "shared_space",
    "surface_error",
    "try_decode",
]
