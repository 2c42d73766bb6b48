"""The methods by which a super-batch is reduced to a batch, by name.

    random            any rows: the bar
    hard_batches      the greatest losses
    rho               the greatest losses above a reference model's
    stochastic        drawn with odds by loss or excess
    jest              the same in blocks, each unlike the blocks before
    facility_location few rows that all are near to
    colm              the same by source and by Adam's steps; small sources whole
    infobatch         easy rows less often, with weights that make up for it
    seta              a window of losses that slides from easy to hard
    multistage        above a moving threshold of the loss, which may be guessed
    topic             rows that are alike, together
    rs2               those chosen least often so far

>>> import numpy as np
>>> selector = load_selector("stochastic", law="softrank")
>>> candidates = Candidates(np.zeros(4, np.int64), losses=np.array([0.5, 3.0, 0.1, 2.0]))
>>> selector.select(candidates, 2, np.random.default_rng(0)).indices.tolist()
[1, 3]
"""

import inspect
from typing import Any

from .coreset_selectors import CoLM, FacilityLocation, Jest
from .epoch_selectors import InfoBatch, Rs2, SeTa
from .multistage import Multistage
from .scored_selectors import HardBatches, RandomRows, Rho, Stochastic
from .selection import Candidates, Selection, Selector
from .topic_selector import Topic
from .weights import check_names

__all__ = ["SELECTORS", "Candidates", "Selection", "Selector", "load_selector"]

SELECTORS: dict[str, type[Selector]] = {
    "random": RandomRows,
    "hard_batches": HardBatches,
    "rho": Rho,
    "stochastic": Stochastic,
    "jest": Jest,
    "facility_location": FacilityLocation,
    "colm": CoLM,
    "infobatch": InfoBatch,
    "seta": SeTa,
    "multistage": Multistage,
    "topic": Topic,
    "rs2": Rs2,
}


def load_selector(name: str, **parameters: Any) -> Selector:
    """The selector of that name.

    Args:
        name: a key of `SELECTORS`.
        parameters: its class's arguments.
    Raises:
        ValueError: the name or a parameter is not known, with the nearest that is; or a value is not allowed.

    >>> load_selector("rhoo")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: method: unknown selector 'rhoo'; did you mean 'rho'? The selectors are ...
    """
    check_names("method", [name], SELECTORS, kind="selector")
    allowed = [p for p in inspect.signature(SELECTORS[name].__init__).parameters if p != "self"]
    if not allowed and parameters:
        raise ValueError(f"{name} has no parameters, but {sorted(parameters)} were given; leave them out")
    check_names(name, parameters, allowed, kind="parameter")
    return SELECTORS[name](**parameters)
