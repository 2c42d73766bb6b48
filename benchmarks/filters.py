"""The filters of curation: speed, agreement with datatrove score by score, and what the word profiles change.

    python -m benchmarks.filters [--shared FOLDER] [--quick] [--json] [--peers NAME ...]

FOLDER/corpus/dev holds one folder a domain with `*.jsonl.zst` files; the documents whose `lang` is "en" are
taken. Each peer runs in an environment of its own below build/peers, which is made if it is not there.
Agreement is asked twice: with our words and sentences handed to datatrove in place of spaCy's, and with
datatrove as it is; where datatrove as it is decides otherwise, the table names the cause. CPU seconds are
those of whole processes, start, imports, reading, writing and report included; kernels are timed alone.
Extraction and languages are those of `benchmarks.web` and `benchmarks.languages`. The last line with --json
is one JSON object.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.filters_agreement import PEER_SCRIPT, PEERS, ROOT, agreement, environment, evenly, families
from cuvee.operators import word_pass
from cuvee.operators.base import Filter
from cuvee.operators.word_pass import Profile
from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.plan import make_plan
from cuvee.pipeline.progress import RunProgress
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.run_directory import opened
from cuvee.pipeline.shard_work import cut_into_batches

SHARED = ROOT.parent / "shared"
TIMES_DOLMA = {"data-juicer 1.6.1": 1.28 / 1.20, "nemo-curator 1.4.0": 1.35 / 1.20}
"""MB per CPU-second of their own English filters as a multiple of Dolma's, taken once on documents of this
corpus on an idle machine, since the two install gigabytes."""
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
    texts = texts[::8] if arguments.quick else texts
    n_peer = arguments.peer_docs or (N_QUICK if arguments.quick else len(texts))
    sample = evenly(texts, n_peer)
    console = Console(width=118)
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    with tempfile.TemporaryDirectory() as scratch:
        figures = kernel_speed(console, table) | profiles(console, table)
        figures |= speed(console, Path(scratch), texts, sample, arguments.peers, 1 if arguments.quick else 8)
        if "datatrove" in arguments.peers:
            figures |= agreement(console, Path(scratch), sample)
    figures |= extraction_and_languages(arguments.shared, 8 if arguments.quick else 1)
    if arguments.json:
        print(json.dumps(figures))


def extraction_and_languages(shared: Path, step: int) -> dict[str, Any]:
    """The figures of pages and of languages, which have benchmarks of their own."""
    from benchmarks import languages, web

    extraction = web.extraction(web.unpacked(shared / "web" / "web-dev.tar.zst"), step)
    rows = web.read_corpus(shared / "corpus" / "dev", step)
    labelled = [row for row in rows if row["domain"] == "multilingual" and row.get("lang")]
    return extraction | {"language_accuracy": languages.language_accuracy(labelled)}


def english_texts(folder: Path) -> list[str]:
    """The texts of all English documents, in the order of the files."""
    texts = []
    for path in sorted(folder.glob("*/*.jsonl.zst")):
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            rows = map(orjson.loads, filter(bytes.strip, stream.read().split(b"\n")))
            texts += [row["text"] for row in rows if row.get("lang") == "en"]
    return texts


def megabytes(texts: Sequence[str]) -> float:
    """UTF-8 megabytes."""
    return sum(len(text.encode()) for text in texts) / 1e6


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
    """The words of the batch are known, and no others."""
    word_pass.forget()
    word_pass.column_words(batch["text"], word_pass.SEGMENTATION[profile])


def scores_in_turn(batch: pa.Table, operators: Sequence[Filter]) -> None:
    """Scores of several operators that share their words."""
    for operator in operators:
        operator.scores(batch)


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


def measured(command: Sequence[str | Path], **options: Any) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of a command and its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start


def speed(
    console: Console, scratch: Path, texts: list[str], sample: list[str], peers: Sequence[str], n_copies: int
) -> dict[str, Any]:
    """Megabytes per CPU-second of FineWeb's chain, files in and files out, ours and the peers'."""
    rates: dict[str, float] = {}
    columns = ("tool", "MB", "CPU s", "wall s", "MB/CPU-s")
    shown = Table(*columns, title="FineWeb's chain, whole processes, one worker")

    def note(name: str, documents: Sequence[str], command: Sequence[str | Path]) -> None:
        cpu, wall = measured(command, cwd=scratch)
        rates[name] = megabytes(documents) / cpu
        row = (f"{megabytes(documents):.1f}", f"{cpu:.1f}", f"{wall:.1f}", f"{rates[name]:.2f}")
        shown.add_row(name, *row)

    few, some, all_of_them = (write_documents(scratch / str(n), texts * n) for n in (1, 2, n_copies))
    cuvee = Path(sys.executable).with_name("cuvee")
    for profile in ("paper", "datatrove"):
        for documents, n in ((few, 1), (all_of_them, n_copies)):
            recipe = write_recipe(scratch, profile, documents)
            command = [cuvee, "run", recipe, "--workers", "1", "--run-dir", scratch / f"{profile}-{n}"]
            note(f"cuvee {profile}" + ("" if n == n_copies else ", once"), texts * n, command)
    folder = write_documents(scratch / "sample", sample)
    if "datatrove" in peers:
        python = environment("datatrove")
        note("datatrove", sample, [python, PEER_SCRIPT, "chain", folder, scratch / "datatrove"])
    if "dolma" in peers:
        note("dolma", sample, dolma_command(folder, scratch))
    console.print(shown)
    ours, dolma = rates["cuvee datatrove"], rates.get("dolma")
    times_dolma = max(1.0, *TIMES_DOLMA.values())
    return {
        "mb_per_cpu_s": rates,
        "ratio_datatrove": ours / rates["datatrove"] if "datatrove" in rates else None,
        "ratio_best_other": ours / (times_dolma * dolma) if dolma else None,
        "ratio_dolma": ours / dolma if dolma else None,
        "two_workers": two_workers(console, scratch, {"filters": all_of_them, "language": some}),
    }


def two_workers(console: Console, scratch: Path, documents: dict[str, Path]) -> dict[str, float]:
    """How many times as fast two workers curate as one: the least seconds of two turns each, here."""
    chains: dict[str, list[Any]] = {"filters": fineweb_chain("datatrove"), "language": ["language"]}
    shown = Table("stage", "one worker, s", "two workers, s", "times as fast", title="Workers of one process")
    found = {}
    for name, chain in chains.items():
        loaded = load_recipe(write_recipe(scratch, name, documents[name], chain))
        walls: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(2):
            for n_workers, seconds in walls.items():
                run_dir = scratch / f"{name}-{n_workers}-{turn}"
                with opened(run_dir), closing(LocalEngine(n_workers)) as engine:
                    plan = make_plan(loaded, run_dir)
                    start = time.perf_counter()
                    Curation(plan, loaded.recipe, run_dir, engine, RunProgress()).run()
                    seconds.append(time.perf_counter() - start)
                shutil.rmtree(run_dir)
        found[name] = min(walls[1]) / min(walls[2])
        shown.add_row(name, *(f"{min(seconds):.1f}" for seconds in walls.values()), f"{found[name]:.2f}")
    console.print(shown)
    return found


def write_documents(folder: Path, texts: Sequence[str]) -> Path:
    """One JSONL file below `folder`."""
    folder.mkdir(exist_ok=True)
    rows = (orjson.dumps({"id": str(i), "text": text, "source": "dev"}) for i, text in enumerate(texts))
    (folder / "documents.jsonl").write_bytes(b"\n".join(rows))
    return folder


def write_recipe(scratch: Path, name: str, documents: Path, chain: Sequence[Any] | None = None) -> Path:
    """A recipe of FineWeb's chain under the profile `name`, or of another chain."""
    recipe = {
        "name": name,
        "inputs": [{"source": "dev", "path": str(documents / "*.jsonl")}],
        "curate": list(chain or fineweb_chain(name)),
    }
    path = scratch / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return path


def fineweb_chain(profile: str) -> list[dict[str, Any]]:
    """FineWeb's filters in its order."""
    return [
        {"gopher_repetition": {"profile": profile}},
        {"gopher_quality": {"profile": profile}},
        {"c4": {"profile": profile, "require_terminal_punctuation": False}},
        {"fineweb": {"profile": profile}},
    ]


def dolma_command(folder: Path, scratch: Path) -> list[str | Path]:
    """dolma's taggers for the same papers: all scores, nothing applied."""
    (folder / "documents").mkdir(exist_ok=True)
    target = folder / "documents" / "documents.jsonl"
    target.write_bytes((folder / "documents.jsonl").read_bytes())
    subprocess.run(["gzip", "-f", target], check=True)
    dolma = environment("dolma").with_name("dolma")
    taggers = ["--taggers", "gopher_v2", "c4_v2", "--processes", "1"]
    return [dolma, "tag", "--documents", f"{folder}/documents/*.gz", "--experiment", "e", *taggers]


if __name__ == "__main__":
    main()
