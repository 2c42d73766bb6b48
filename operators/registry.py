"""Operators by name: the built-in ones, and those that other distributions offer as `cuvee.operators`."""

import difflib
from functools import cache
from importlib.metadata import entry_points

from .base import Operator
from .c4 import C4
from .cluster import Cluster
from .dataset_quantization import DatasetQuantization
from .decontaminate import Decontaminate
from .difference_sampling import DifferenceSampling
from .exact_dedup import ExactDedup
from .extract import Extract
from .fineweb import Fineweb
from .fineweb2 import Fineweb2
from .fix_unicode import FixUnicode
from .gopher_quality import GopherQuality
from .gopher_repetition import GopherRepetition
from .ingenious import Ingenious
from .language import Language
from .length import Length
from .minhash_dedup import MinHashDedup
from .ngram_loss import NgramLoss
from .normalise import Normalise
from .paragraph_dedup import ParagraphDedup
from .pii import Pii
from .prototype_pruning import PrototypePruning
from .random_calibrated import RandomCalibrated
from .rehydrate import Rehydrate
from .salt import Salt
from .semantic_dedup import SemanticDedup
from .substring_dedup import SubstringDedup
from .url_dedup import UrlDedup
from .url_filter import UrlFilter
from .where import Where

BUILT_IN: tuple[type[Operator], ...] = (
    UrlFilter,
    Extract,
    FixUnicode,
    Normalise,
    Language,
    Length,
    GopherRepetition,
    GopherQuality,
    C4,
    Fineweb,
    Fineweb2,
    Where,
    UrlDedup,
    ExactDedup,
    MinHashDedup,
    ParagraphDedup,
    SubstringDedup,
    Decontaminate,
    Rehydrate,
    Cluster,
    SemanticDedup,
    PrototypePruning,
    Ingenious,
    DatasetQuantization,
    NgramLoss,
    DifferenceSampling,
    Salt,
    RandomCalibrated,
    Pii,
)
ENTRY_POINTS = "cuvee.operators"


class UnknownOperatorError(ValueError):
    """A recipe names an operator that nobody provides."""


@cache
def operators() -> dict[str, type[Operator]]:
    """Every operator of this installation by its name in a recipe, built-in ones first.

    Raises:
        ValueError: a distribution's entry point holds no `Operator`, or takes a name that is already taken.
    """
    found = {operator.name: operator for operator in BUILT_IN}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        operator = point.load()
        where = f"entry point {point.name!r} ({point.value}) of group {ENTRY_POINTS!r}"
        if not (isinstance(operator, type) and issubclass(operator, Operator)):
            raise ValueError(
                f"{where}: found {operator!r}, a subclass of cuvee.operators.base.Operator is needed"
            )
        if point.name != operator.name:
            raise ValueError(
                f"{where}: the class calls itself {operator.name!r}; both names must be the same"
            )
        if point.name in found:
            raise ValueError(f"{where}: the name is taken by {found[point.name].__module__}; choose another")
        found[point.name] = operator
    return found


def find_operator(name: str) -> type[Operator]:
    """The operator called `name`.

    Raises:
        UnknownOperatorError: with the nearest name, or all names.
    """
    known = operators()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    raise UnknownOperatorError(f"unknown operator {name!r}; {hint}")
