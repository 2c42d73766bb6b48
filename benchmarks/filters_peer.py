"""datatrove's four filters, run in datatrove's own environment by `benchmarks.filters`.

python filters_peer.py decide DOCUMENTS OUT         each filter alone on each text: its reason
python filters_peer.py decide DOCUMENTS OUT words   the same with the words and sentences that come along
python filters_peer.py scores DOCUMENTS OUT         which of the scores that come along are not its own
python filters_peer.py words DOCUMENTS OUT          its words of each text
python filters_peer.py chain FOLDER OUT             FineWeb's chain as a pipeline, files in and files out
"""

import json
import math
import sys
from collections.abc import Callable
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import split_into_words
from datatrove.utils.typeshelper import Languages

FAMILIES: dict[str, Callable[[], Any]] = {
    "gopher_repetition": GopherRepetitionFilter,
    "gopher_quality": GopherQualityFilter,
    "c4": C4QualityFilter,
    "c4_fineweb": lambda: C4QualityFilter(filter_no_terminal_punct=False),
    "fineweb": FineWebQualityFilter,
}
OFF: dict[str, Any] = {
    "min_doc_words": None, "max_doc_words": None, "min_avg_word_length": None, "max_avg_word_length": None,
    "max_symbol_word_ratio": None, "max_bullet_lines_ratio": None, "max_ellipsis_lines_ratio": None,
    "max_non_alpha_words_ratio": None, "min_stop_words": None,
}  # fmt: skip
NO_REPETITION: dict[str, Any] = {
    "dup_line_frac": None, "dup_para_frac": None, "dup_line_char_frac": None, "dup_para_char_frac": None,
    "top_n_grams": (), "dup_n_grams": (),
}  # fmt: skip
NO_FINEWEB = {
    "line_punct_thr": -1.0,
    "short_line_thr": 9e9,
    "char_duplicates_ratio": 9e9,
    "new_line_ratio": 9e9,
}


def main() -> None:
    """Run what the command line asks for."""
    job, source, target = sys.argv[1:4]
    if job == "chain":
        chain(source, target)
        return
    with open(source, encoding="utf-8") as lines, open(target, "w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            if job == "scores" or len(sys.argv) > 4:
                use_words(row)
            out.write(json.dumps(JOBS[job](row)) + "\n")


def use_words(row: dict[str, Any]) -> None:
    """Have datatrove see these words and sentences instead of those that it would find itself."""
    for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
        module.split_into_words = lambda text, language: row["words"]
    c4_filters.split_into_sentences = lambda line, language: range(row["sentences"].get(line, 1))


def decide(row: dict[str, Any]) -> dict[str, Any]:
    """The reason of each family, null where it keeps."""
    found: dict[str, Any] = {}
    for family, make in FAMILIES.items():
        document = Document(text=row["text"], id="")
        try:
            result = make().filter(document)
        except (ZeroDivisionError, ValueError) as error:  # datatrove divides by the number of words
            result = (False, type(error).__name__)
        found[family] = None if result is True else result[1]
    return found


def scores(row: dict[str, Any]) -> dict[str, Any]:
    """The names of the scores for which datatrove decides otherwise at that very threshold, or just beside
    it."""
    wrong = []
    for name, (family, parameter, value) in row["scores"].items():
        makes_minimum = parameter.startswith(("min_", "max_non_alpha", "line_punct"))
        beside = math.nextafter(value, math.inf if makes_minimum else -math.inf)
        if not (
            passes(row["text"], family, parameter, value)
            and not passes(row["text"], family, parameter, beside)
        ):
            wrong.append(name)
    return {"wrong": wrong, "asked": len(row["scores"])}


def passes(text: str, family: str, parameter: str, threshold: float) -> bool:
    """Whether the one rule keeps the text at this threshold."""
    name, _, n = parameter.partition(":")
    if family == "gopher_quality":
        one: Any = GopherQualityFilter(**OFF | {name: threshold})
    elif family == "gopher_repetition":
        one = GopherRepetitionFilter(**NO_REPETITION | {name: ((int(n), threshold),) if n else threshold})
    else:
        one = FineWebQualityFilter(**NO_FINEWEB | {name: threshold})
    return one.filter(Document(text=text, id="")) is True


def words(row: dict[str, Any]) -> dict[str, Any]:
    """datatrove's words."""
    return {"words": split_into_words(row["text"], Languages.english)}


def chain(source: str, target: str) -> None:
    """FineWeb's order of filters, dropped documents written too."""
    filters = (
        GopherRepetitionFilter(exclusion_writer=JsonlWriter(f"{target}/repetition")),
        GopherQualityFilter(exclusion_writer=JsonlWriter(f"{target}/quality")),
        C4QualityFilter(filter_no_terminal_punct=False, exclusion_writer=JsonlWriter(f"{target}/c4")),
        FineWebQualityFilter(exclusion_writer=JsonlWriter(f"{target}/fineweb")),
    )
    pipeline = [JsonlReader(source), *filters, JsonlWriter(f"{target}/kept")]
    LocalPipelineExecutor(pipeline, tasks=1, logging_dir=f"{target}/logs").run()


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "decide": decide,
    "scores": scores,
    "words": words,
}

if __name__ == "__main__":
    main()
