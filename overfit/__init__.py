"""Stage 1: a folder of scans in, a store of small occupancy networks out, one overfitted to each scan."""

from .batch import Settings
from .cube import Cube
from .decode import decode
from .errors import BadInput
from .field import Field
from .fit import Fitting
from .occupancy import Sampling
from .presets import PRESETS
from .run import Outcome, overfit, prepared_heads
from .store import Store
from .workers import Machine

__all__ = ["BadInput", "Cube", "Field", "Fitting", "Machine", "Outcome", "PRESETS", "Sampling", "Settings", "Store",
           "decode", "overfit", "prepared_heads"]
