"""One line of many megabytes through every operator: CPU seconds and memory, nothing that hangs.

    python -m benchmarks.long_documents [--megabytes N] [--quick] [--json]

Each text is one unit repeated without end: words, ideographs, combining marks, addresses. Memory is the
largest that this process ever had. The last line with --json is one JSON object.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from cuvee.operators.base import ROW, Filter, Fit, FitFilter, Map, Operator
from cuvee.operators.c4 import C4
from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.fineweb import Fineweb
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.operators.language import Language
from cuvee.operators.length import Length
from cuvee.operators.minhash_dedup import MinHashDedup
from cuvee.operators.normalise import Normalise
from cuvee.operators.paragraph_dedup import ParagraphDedup
from cuvee.operators.pii import Pii
from cuvee.operators.word_pass import forget

UNITS = {
    "words": "word after word, ",
    "ideographs": "我来到北京",
    "marks": "\u0301\u0323",
    "addresses": "a@b.c 1.2.3.4 ",
}
OPERATORS: tuple[Operator, ...] = (
    Language(), Length(), GopherQuality(), GopherQuality(profile="datatrove"), GopherQuality(profile="icu"),
    GopherRepetition(), GopherRepetition(profile="icu"), C4(), Fineweb(), Pii(),
    Normalise(form="NFKC", casefold=True), ExactDedup(normalise="nfkc_casefold"), MinHashDedup(),
    ParagraphDedup(),
)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="4 MB")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    n_bytes = (4 if arguments.quick else arguments.megabytes) * 1_000_000
    print(
        f"CPU seconds for one line of {n_bytes / 1e6:.0f} MB\n{'operator':26}",
        *(f"{unit:>11}" for unit in UNITS),
    )
    seconds: dict[str, dict[str, float]] = {}
    for operator in OPERATORS:
        profile = getattr(operator, "profile", "")
        name = f"{operator.name} {profile}".strip()
        run(operator, "short text")  # compiles
        seconds[name] = {
            unit: cpu_seconds(
                lambda text=text, operator=operator: run(operator, text * (n_bytes // len(text.encode())))
            )
            for unit, text in UNITS.items()
        }
        print(f"{name:26}", *(f"{value:11.1f}" for value in seconds[name].values()), flush=True)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"largest memory of the process: {gigabytes:.1f} GB")
    if arguments.json:
        print(json.dumps({"megabytes": n_bytes / 1e6, "cpu_s": seconds, "max_rss_gb": gigabytes}))


def run(operator: Operator, text: str) -> Any:
    """All that an engine does with a table of one document."""
    forget()
    columns = {"id": ["0"], "text": pa.array([text], pa.large_string()), "lang": pa.nulls(1, pa.string())}
    table = pa.table(columns | {"url": pa.nulls(1, pa.string()), ROW: np.zeros(1, np.int64)})
    match operator:
        case Map():
            return operator.apply(table)
        case Filter():
            return operator.reasons(operator.scores(table))
        case FitFilter():
            return operator.reasons(operator.scores(table, fitted(operator, table)))
    raise TypeError(operator)


def fitted(operator: Fit, table: pa.Table) -> pa.Table:
    """The state of a fit over one table."""
    return operator.finish(operator.merge([operator.combine(operator.observe(table))]))


def cpu_seconds(function: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    main()
