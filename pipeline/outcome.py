"""What a run found, as its summary and its report read it."""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .comparison import Comparison
from .curation import TIMINGS
from .mixture import Choice
from .plan import Plan
from .recipe import LoadedRecipe


@dataclass
class Outcome:
    """Everything that a run found; what the recipe leaves out is None or empty."""

    loaded: LoadedRecipe
    run_dir: Path
    plan: Plan
    manifests: list[dict[str, Any]]
    stage_folders: list[Path]
    domains: tuple[str, ...] = ()
    tokens: dict[str, dict[str, int]] = field(default_factory=dict)
    """By domain: n_docs, n_tokens, n_validation_docs, n_validation_tokens; and as they are stored, before
    documents are repeated: n_distinct_docs, n_distinct_tokens, max_repeat."""
    choice: Choice | None = None
    comparison: Comparison | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def read_timings(run_dir: Path) -> list[dict[str, Any]]:
    """CPU seconds of every shard that was ever done here, by stage and operator.

    A line that a kill cut short is left out: these are measurements, nothing rests on them.
    """
    path = run_dir / TIMINGS
    timings = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            timings.append(json.loads(line))
    return timings
