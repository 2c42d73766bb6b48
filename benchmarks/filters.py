"""The filters of curation: speed, agreement with datatrove score by score, and what the word profiles change.

    python -m benchmarks.filters [--shared FOLDER] [--quick] [--json] [--peers NAME ...]

FOLDER/corpus/dev holds one folder a domain with `*.jsonl.zst` files; the documents whose `lang` is "en" are
taken. Each peer runs in an environment of its own below build/peers, which is made if it is not there.
Agreement is asked twice: with our words and sentences handed to datatrove in place of spaCy's, and with
datatrove as it is; where datatrove as it is decides otherwise, the table names the cause. CPU seconds are
those of whole processes that read, filter and write, without those of a run over one document
(`filters_speed`); kernels are timed alone, in this process. Two workers are `filters_workers`; extraction,
archives and languages are those of `benchmarks.web` and `benchmarks.languages`. The last line with --json is
one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.filters_agreement import PEERS, ROOT, agreement, evenly, families
from benchmarks.filters_speed import speed
from benchmarks.filters_workers import two_workers
from cuvee.operators import word_pass
from cuvee.operators.base import Filter
from cuvee.operators.pii import Pii
from cuvee.operators.word_pass import Profile
from cuvee.pipeline.shard_work import cut_into_batches

SHARED = ROOT.parent / "shared"
PROFILES: tuple[Profile, ...] = ("paper", "datatrove", "dclm", "uax29")
N_QUICK = 150


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with corpus/, web/, eval/")
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} documents for the peers")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--peer-docs", type=int, default=None, help="documents that the peers see")
    arguments = parser.parse_args()
    corpus = arguments.shared / "corpus" / "dev"
    if not corpus.is_dir():
        sys.exit(f"{corpus} is not there; name the folder that holds corpus/dev with --shared")
    texts = english_texts(corpus)
    few = texts[::8]
    n_docs = arguments.peer_docs or (N_QUICK if arguments.quick else len(texts))
    console = Console(width=118)
    table = pa.table({"text": pa.array(few if arguments.quick else texts, pa.large_string())})
    figures = kernel_speed(console, table) | profiles(console, table)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        copies = (1, 2) if arguments.quick else (1, 4, 16)
        timed = evenly(texts, n_docs if arguments.quick else n_docs // 2)
        read = texts[::2] if arguments.quick else texts
        figures |= speed(console, scratch, read, timed, arguments.peers, copies)
        workers = (few, 2, (1, 2)) if arguments.quick else (texts[::2], 8, (1, 4))
        figures |= two_workers(console, scratch, *workers)
        if "datatrove" in arguments.peers:
            figures |= agreement(console, scratch, evenly(texts, n_docs))
    figures |= reading_and_languages(console, arguments.shared, 8 if arguments.quick else 1)
    if arguments.json:
        print(json.dumps(figures))


def reading_and_languages(console: Console, shared: Path, step: int) -> dict[str, Any]:
    """The figures of pages, archives and languages, which have benchmarks of their own, and those of PII."""
    from benchmarks import languages, web

    pages = web.unpacked(shared / "web" / "web-dev.tar.zst")
    rows = list(web.read_corpus(shared / "corpus" / "dev", step))
    labelled = languages.read_rows(shared / "corpus" / "dev" / "multilingual")
    found = web.extraction(pages, step) | web.archives(pages)
    found |= {"language_accuracy": languages.language_accuracy(labelled)}
    return found | {"fineweb2_kept": languages.kept_by_method(labelled, console)} | pii_rates(console, rows)


def pii_rates(console: Console, rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """How many addresses and phone numbers `pii` replaces in each domain."""
    kinds = ("emails", "ips", "phones")
    shown = Table("domain", "documents", *kinds, "documents changed", title="Personal data replaced")
    rates: dict[str, dict[str, float]] = {}
    for domain in sorted({row["domain"] for row in rows}):
        texts = [row["text"] for row in rows if row["domain"] == domain]
        found = Pii().apply(pa.table({"text": pa.array(texts, pa.large_string())}))
        counts = [found[f"pii.n_{kind}"].to_numpy() for kind in kinds]
        rates[domain] = {"n_docs": len(texts)} | {
            kind: int(count.sum()) for kind, count in zip(kinds, counts, strict=True)
        }
        changed = rates[domain]["documents_changed"] = float((sum(counts) > 0).mean())
        shown.add_row(domain, *(f"{rates[domain][name]:,}" for name in ("n_docs", *kinds)), f"{changed:.1%}")
    console.print(shown)
    return {"pii": rates}


def english_texts(folder: Path) -> list[str]:
    """The texts of all English documents, in the order of the files."""
    texts = []
    for path in sorted(folder.glob("*/*.jsonl.zst")):
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            rows = map(orjson.loads, filter(bytes.strip, stream.read().split(b"\n")))
            texts += [row["text"] for row in rows if row.get("lang") == "en"]
    return texts


def kernel_speed(console: Console, table: pa.Table) -> dict[str, Any]:
    """Megabytes per CPU-second of the word pass, of each filter's scores when the words are known, and of all
    four filters with one word pass; in this process, compiled and warm, in batches as a run has them."""
    shown = Table("profile", "words", *families("paper"), "all four", title="MB/CPU-s of scores")
    found: dict[str, Any] = {}
    batches = cut_into_batches(table)
    for profile in PROFILES:
        operators = families(profile)
        four = [operator for name, operator in operators.items() if name != "c4"]
        known = partial(known_words, profile=profile)
        seconds = {"words": best_cpu(batches, forgotten_words, known)}
        seconds |= {name: best_cpu(batches, known, operator.scores) for name, operator in operators.items()}
        seconds["all_four"] = best_cpu(batches, forgotten_words, partial(scores_in_turn, operators=four))
        found[profile] = {name: table["text"].nbytes / 1e6 / value for name, value in seconds.items()}
        shown.add_row(profile, *(f"{value:,.0f}" for value in found[profile].values()))
    console.print(shown)
    return {"kernel_mb_per_s": found}


def forgotten_words(_: pa.Table) -> None:
    """No words are known."""
    word_pass.forget()


def known_words(batch: pa.Table, profile: Profile) -> None:
    """The words of the batch are known, and no others: dclm's repetition has another kind."""
    word_pass.forget()
    word_pass.column_words(batch["text"], word_pass.SEGMENTATION[profile])
    if profile == "dclm":
        word_pass.column_words(batch["text"], "uax29")


def scores_in_turn(batch: pa.Table, operators: Sequence[Filter]) -> None:
    """Scores of several operators that share their words, each on the text that the one before it leaves:
    every document goes through all of them, also if a run would have dropped it."""
    for operator in operators:
        scores = operator.scores(batch)
        if "text" in scores:
            batch = batch.set_column(batch.schema.get_field_index("text"), "text", scores["text"])


def best_cpu(
    batches: Sequence[pa.Table], prepare: Callable[[pa.Table], None], work: Callable[[pa.Table], object]
) -> float:
    """The least CPU seconds of three rounds of `work` over all batches, each prepared; the first call, which
    compiles, does not count."""
    work(batches[0])
    rounds = []
    for _ in range(3):
        seconds = 0.0
        for batch in batches:
            prepare(batch)
            start = time.process_time()
            work(batch)
            seconds += time.process_time() - start
        rounds.append(seconds)
    return min(rounds)


def profiles(console: Console, table: pa.Table) -> dict[str, Any]:
    """The share of documents that each family drops under each profile, and which reasons the default
    gives."""
    shown = Table("profile", *families("paper"), title="share of documents dropped")
    dropped: dict[str, dict[str, float]] = {}
    for profile in PROFILES:
        dropped[profile] = {}
        for name, operator in families(profile).items():
            reasons = operator.reasons(operator.scores(table))
            dropped[profile][name] = 1 - reasons.null_count / len(reasons)
        shown.add_row(profile, *(f"{share:.1%}" for share in dropped[profile].values()))
    console.print(shown)
    return {"dropped_by_profile": dropped}


if __name__ == "__main__":
    main()
