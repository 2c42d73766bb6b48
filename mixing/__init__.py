"""Mixers: a table of (weights, losses) in, better weights out."""

from .mixer import Fidelity, Mixer, Prediction
from .objective import Objective
from .recommend import Recommendation, recommend
from .registry import load_mixer
from .table import RunTable
from .transfer import TransferredMixer, check_transfer

__all__ = [
    "Fidelity",
    "Mixer",
    "Objective",
    "Prediction",
    "Recommendation",
    "RunTable",
    "TransferredMixer",
    "check_transfer",
    "load_mixer",
    "recommend",
]
