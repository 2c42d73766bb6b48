"""The mixers by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from .ensemble import EnsembleMixer
from .gaussian_process import GaussianProcessMixer
from .laws import BiMixMixer, MixingLawMixer, PowerLawMixer
from .mixer import Mixer
from .mixmin import MixMinMixer
from .projektor import ProjektorMixer
from .quality_quantity import QualityQuantityMixer
from .regression import LinearMixer, RegMixMixer
from .trend_residual import TrendResidualMixer
from .trended import TrendedMixer

MIXERS: dict[str, Callable[..., Mixer]] = {
    "linear": LinearMixer,
    "regmix": RegMixMixer,
    "mixing_law": MixingLawMixer,
    "power_law": PowerLawMixer,
    "bimix": BiMixMixer,
    "gaussian_process": GaussianProcessMixer,
    "trend_residual": TrendResidualMixer,
    "ensemble": EnsembleMixer,
    "mixmin": MixMinMixer,
    "quality_quantity": QualityQuantityMixer,
    "projektor": ProjektorMixer,
}


def load_mixer(name: str, **options: Any) -> Mixer:
    """A mixer that has seen no runs yet, by its name in `MIXERS`, with the options of its class.

    Every mixer takes `trend`, a cheap surface as its prior mean: see `TrendedMixer`.

    Raises:
        ValueError: there is no mixer of that name, or it lacks an option.

    >>> load_mixer("power_law", seed=0).is_smooth
    True
    >>> load_mixer("powerlaw")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: unknown mixer 'powerlaw'; did you mean 'power_law'? All: bimix, ensemble, ...
    """
    if name not in MIXERS:
        near = get_close_matches(name, MIXERS, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else "."
        raise ValueError(f"unknown mixer '{name}'{meant} All: {', '.join(sorted(MIXERS))}.")
    allowed = _options(MIXERS[name])
    trend = None if "trend" in allowed else options.pop("trend", None)
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"{name}: unknown option '{unknown[0]}'; it has {', '.join(allowed)}.")
    mixer = MIXERS[name](**options)
    return mixer if trend is None else TrendedMixer(mixer, trend)


def _options(mixer: Any) -> list[str]:
    return [name for name, field in mixer.__dataclass_fields__.items() if field.init]
