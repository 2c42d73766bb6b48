"""Agreement of the filters with datatrove: decisions, reasons and scores, and why some differ."""

import subprocess
import sys
import venv
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cuvee.kernels.c4_lines import LineRules, c4_lines
from cuvee.kernels.sentences import sentences
from cuvee.kernels.words import words
from cuvee.operators.base import Filter
from cuvee.operators.c4 import C4
from cuvee.operators.fineweb import Fineweb
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.operators.text_column import text_buffers
from cuvee.operators.word_pass import Profile

T = TypeVar("T")
Difference = tuple[int, str | None, str | None]
"""A document, our reason, datatrove's."""
ROOT = Path(__file__).resolve().parents[1]
N_PROCESSES = 2
N_SCORED = 1_000
"""Documents whose scores are compared one by one; decisions are compared on all."""
DOCUMENT_RULES = {"lorem_ipsum", "curly_bracket", "too_few_sentences"}
PEER_SCRIPT = Path(__file__).with_name("filters_peer.py")
PEERS = {
    "datatrove": ["datatrove[io,processing]", "spacy", "xxhash<4"],
    "dolma": ["dolma", "aiobotocore[boto3]"],  # the extra tells pip which boto3 fits, of hundreds
}
# Our score, and datatrove's parameter of the rule that compares it.
PARAMETERS = {
    "gopher_quality.n_words": "min_doc_words",
    "gopher_quality.mean_word_length": "max_avg_word_length",
    "gopher_quality.fraction_bullet_lines": "max_bullet_lines_ratio",
    "gopher_quality.fraction_ellipsis_lines": "max_ellipsis_lines_ratio",
    "gopher_quality.fraction_alpha_words": "max_non_alpha_words_ratio",
    "gopher_quality.n_stop_words": "min_stop_words",
    "gopher_repetition.fraction_duplicate_paragraphs": "dup_para_frac",
    "gopher_repetition.fraction_characters_duplicate_paragraphs": "dup_para_char_frac",
    "gopher_repetition.fraction_duplicate_lines": "dup_line_frac",
    "gopher_repetition.fraction_characters_duplicate_lines": "dup_line_char_frac",
    **{f"gopher_repetition.fraction_characters_top_{n}_gram": f"top_n_grams:{n}" for n in (2, 3, 4)},
    **{
        f"gopher_repetition.fraction_characters_duplicate_{n}_grams": f"dup_n_grams:{n}" for n in range(5, 11)
    },
    "fineweb.fraction_lines_with_punctuation": "line_punct_thr",
    "fineweb.fraction_short_lines": "short_line_thr",
    "fineweb.fraction_characters_duplicate_lines": "char_duplicates_ratio",
    "fineweb.newlines_per_word": "new_line_ratio",
}


def families(profile: Profile) -> dict[str, Filter]:
    """The filters under their papers' thresholds."""
    return {
        "gopher_repetition": GopherRepetition(profile=profile),
        "gopher_quality": GopherQuality(profile=profile),
        "c4": C4(profile=profile),
        "c4_fineweb": C4(profile=profile, require_terminal_punctuation=False),
        "fineweb": Fineweb(profile=profile),
    }


def environment(peer: str) -> Path:
    """The python of the peer's own environment, which is made if it is not there."""
    folder = ROOT / "build" / "peers" / peer
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[peer]], check=True)
        (folder / "installed").touch()
    return python


def evenly(texts: Sequence[T], n: int) -> list[T]:
    """At most `n` of them, at even distances."""
    return [texts[i] for i in np.linspace(0, len(texts) - 1, min(n, len(texts))).astype(int)]


def agreement(console: Console, scratch: Path, sample: list[str]) -> dict[str, Any]:
    """The share of documents with datatrove's decision and reason, per family; and its scores, bit for
    bit."""
    table = pa.table({"text": pa.array(sample, pa.large_string())})
    scored = {name: operator.scores(table) for name, operator in families("datatrove").items()}
    ours = {name: families("datatrove")[name].reasons(scores).to_pylist() for name, scores in scored.items()}
    rows = list(peer_rows(sample, scored))
    same: dict[str, dict[str, float]] = {"our_words": {}, "stock": {}}
    differ: dict[str, dict[str, list[Difference]]] = {"our_words": {}, "stock": {}}
    for mode, extra in (("our_words", ["words"]), ("stock", [])):
        theirs = run_peer("decide", rows, scratch, *extra)
        for name in ours:
            pairs = [(mine, decision[name]) for mine, decision in zip(ours[name], theirs, strict=True)]
            differ[mode][name] = [(d, *pair) for d, pair in enumerate(pairs) if pair[0] != pair[1]]
            same[mode][name] = 1 - len(differ[mode][name]) / len(pairs)
    columns = ("family", "our words", "stock", "where stock differs (ours, datatrove's): documents, cause")
    shown = Table(*columns, title=f"Same decision and reason, {len(sample):,} documents")
    explained: Counter[str] = Counter()
    for name in ours:
        found = causes(name, differ["stock"][name], rows, scratch)
        explained.update({cause: sum(pairs.values()) for cause, pairs in found.items()})
        lines = [
            f"{mine}, {other}: {n}, {cause}"
            for cause, pairs in found.items()
            for (mine, other), n in pairs.items()
        ]
        shown.add_row(name, f"{same['our_words'][name]:.2%}", f"{same['stock'][name]:.2%}", "\n".join(lines))
    console.print(shown)
    checked = run_peer("scores", evenly(rows, N_SCORED), scratch)
    n_scores = sum(row["asked"] for row in checked)
    wrong = Counter(name for row in checked for name in row["wrong"])
    n_equal = n_scores - sum(wrong.values())
    console.print(f"{n_equal:,} of {n_scores:,} scores are datatrove's, bit for bit. {dict(wrong) or ''}")
    return {
        "agreement": same,
        "agreement_causes": explained,
        "scores_compared": n_scores,
        "scores_equal": n_equal,
    }


def causes(
    family: str, differences: Sequence[Difference], rows: Sequence[dict[str, Any]], scratch: Path
) -> dict[str, Counter[tuple[str | None, str | None]]]:
    """Why documents are decided otherwise by datatrove as it is: pairs of reasons by the name of the
    cause."""
    found: dict[str, Counter[tuple[str | None, str | None]]] = defaultdict(Counter)
    theirs = run_peer("words", [rows[d] for d, _, _ in differences], scratch) if differences else []
    for (d, mine, other), their_words in zip(differences, theirs, strict=True):
        if {mine, other} <= DOCUMENT_RULES:
            cause = "datatrove asks the document rules line by line"
        elif family.startswith("c4"):
            cause = "other sentences"
        else:
            cause = word_cause(rows[d]["words"], their_words["words"])
        found[cause][mine, other] += 1
    return found


def word_cause(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """How two ways to cut one text into words differ.

    >>> word_cause([")", ":", "a"], ["):", "a"])
    "spaCy joins finished tokens to special cases, such as '):'"
    """
    if "".join(ours) != "".join(theirs):
        return "other characters"
    our_ends, their_ends = (set(accumulate(map(len, words))) for words in (ours, theirs))
    if their_ends < our_ends:
        return "spaCy joins finished tokens to special cases, such as '):'"
    return "other words" if our_ends != their_ends else "the same words"


def run_peer(job: str, rows: Sequence[dict[str, Any]], scratch: Path, *extra: str) -> list[dict[str, Any]]:
    """What datatrove says of each document; it works in `N_PROCESSES` processes."""
    python, running = environment("datatrove"), []
    for part in range(N_PROCESSES):
        documents, out = scratch / f"documents-{part}.jsonl", scratch / f"out-{part}.jsonl"
        with documents.open("wb") as stream:
            stream.writelines(orjson.dumps(row) + b"\n" for row in rows[part::N_PROCESSES])
        running.append((subprocess.Popen([python, PEER_SCRIPT, job, documents, out, *extra]), out))
    found: list[dict[str, Any]] = [{}] * len(rows)
    for part, (process, out) in enumerate(running):
        if process.wait():
            sys.exit(f"{PEER_SCRIPT} {job} failed")
        found[part::N_PROCESSES] = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    return found


def peer_rows(sample: list[str], scored: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each document with our words, the sentences of each line that C4 may keep, and our scores by
    parameter."""
    texts = pa.chunked_array([pa.array(sample, pa.large_string())])
    data, offsets = text_buffers(texts)
    found = cut(data, offsets)
    kept, kept_offsets, _, _ = c4_lines(data, offsets, LineRules(require_terminal_punctuation=False))
    for d, text in enumerate(sample):
        lines = kept[kept_offsets[d] : kept_offsets[d + 1]].tobytes().decode().split("\n")
        line_data, line_offsets = text_buffers(pa.chunked_array([pa.array(lines, pa.large_string())]))
        counts = sentences(line_data, words(line_data, line_offsets, "english"), english=True)
        scores = {}
        for name, parameter in PARAMETERS.items():
            family = name.partition(".")[0]
            value = scored[family][name][d].as_py()
            if value is not None:
                scores[name] = (family, parameter, value)
        sentence_counts = dict(zip(lines, counts.tolist(), strict=True))
        yield {"text": text, "words": found[d], "sentences": sentence_counts, "scores": scores}


def cut(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[list[str]]:
    """The words of each document under the profile `datatrove`."""
    found, raw = words(data, offsets, "english"), data.tobytes()
    spans = zip(found.starts.tolist(), found.n_bytes.tolist(), strict=True)
    texts = [raw[start : start + n_bytes].decode() for start, n_bytes in spans]
    return [texts[a:b] for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]
