"""Mixers: a table of (weights, losses) in, better weights out."""

from .journal import SearchJournal
from .mixer import Fidelity, Mixer, Prediction
from .multi_fidelity import MultiFidelityMixer
from .objective import Objective
from .recommend import Recommendation, recommend
from .registry import load_mixer
from .search import Search
from .search_arguments import SearchArguments
from .table import RunTable
from .transfer import TransferredMixer, check_transfer

__all__ = [
    "Fidelity",
    "Mixer",
    "MultiFidelityMixer",
    "Objective",
    "Prediction",
    "Recommendation",
    "RunTable",
    "Search",
    "SearchArguments",
    "SearchJournal",
    "TransferredMixer",
    "check_transfer",
    "load_mixer",
    "recommend",
]
