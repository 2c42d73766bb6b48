"""The filters of curation: speed, agreement with datatrove score by score, and what the word profiles change.

    python -m benchmarks.filters [--corpus FOLDER] [--quick] [--json] [--peers NAME ...]

FOLDER holds one folder a domain with `*.jsonl.zst` files; the documents whose `lang` is "en" are taken. Each
peer runs in an environment of its own below build/peers, which is made if it is not there. Agreement is asked
twice: with our words and sentences handed to datatrove in place of spaCy's, and with datatrove as it is. CPU
seconds are those of whole processes, start, imports, reading and writing included; kernels are timed alone.
The last line with --json is one JSON object.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cuvee.kernels.c4_lines import LineRules, c4_lines
from cuvee.kernels.sentences import sentences
from cuvee.kernels.words import words
from cuvee.operators import word_pass
from cuvee.operators.base import Filter
from cuvee.operators.c4 import C4
from cuvee.operators.fineweb import Fineweb
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.operators.text_column import text_buffers
from cuvee.operators.word_pass import Profile

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "dev"
PEER_SCRIPT = Path(__file__).with_name("filters_peer.py")
PEERS = {"datatrove": ["datatrove[io,processing]", "spacy", "xxhash<4"], "dolma": ["dolma"]}
PROFILES: tuple[Profile, ...] = ("paper", "datatrove", "dclm", "uax29")
N_QUICK = 150
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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} documents for the peers")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["datatrove"])
    parser.add_argument("--peer-docs", type=int, default=None, help="documents that the peers see")
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir():
        sys.exit(f"{arguments.corpus} is not there; give a folder of one folder a domain with --corpus")
    texts = english_texts(arguments.corpus)
    texts = texts[::8] if arguments.quick else texts
    n_peer = arguments.peer_docs or (N_QUICK if arguments.quick else len(texts))
    sample = [texts[i] for i in np.linspace(0, len(texts) - 1, min(n_peer, len(texts))).astype(int)]
    console = Console(width=118)
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    with tempfile.TemporaryDirectory() as scratch:
        figures = kernel_speed(console, table) | profiles(console, table)
        figures |= speed(console, Path(scratch), texts, sample, arguments.peers, 1 if arguments.quick else 4)
        if "datatrove" in arguments.peers:
            figures |= agreement(console, Path(scratch), sample)
    if arguments.json:
        print(json.dumps(figures))


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
    """Megabytes per CPU-second of each filter's scores, in this process, compiled and warm; no shared
    words."""
    n_megabytes = table["text"].nbytes / 1e6
    shown = Table(
        "profile",
        "words",
        *families("paper"),
        "all four",
        "all four, one word pass",
        title="MB/CPU-s of scores",
    )
    found: dict[str, Any] = {}
    for profile in PROFILES:
        cut_words = partial(words, *text_buffers(table["text"]), word_pass.SEGMENTATION[profile])
        seconds = {"words": best_cpu(cut_words)}
        for name, operator in families(profile).items():
            seconds[name] = best_cpu(partial(scores_alone, operator, table))
        chain = [operator for name, operator in families(profile).items() if name != "c4"]
        seconds["all"] = sum(seconds[name] for name in families(profile) if name != "c4")
        seconds["shared"] = best_cpu(partial(scores_in_turn, chain, table))
        found[profile] = {name: n_megabytes / value for name, value in seconds.items()}
        shown.add_row(profile, *(f"{value:,.0f}" for value in found[profile].values()))
    console.print(shown)
    return {"kernel_mb_per_s": found}


def scores_alone(operator: Filter, table: pa.Table) -> None:
    """An operator's scores with words of its own."""
    word_pass.forget()
    operator.scores(table)


def scores_in_turn(operators: Sequence[Filter], table: pa.Table) -> None:
    """Scores of several operators that share their words."""
    word_pass.forget()
    for operator in operators:
        operator.scores(table)


def best_cpu(function: Callable[[], object], n_times: int = 3) -> float:
    """The least CPU seconds of several calls; the first call, which compiles, does not count."""
    function()
    best = float("inf")
    for _ in range(n_times):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


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


def environment(peer: str) -> Path:
    """The python of the peer's own environment, which is made if it is not there."""
    folder = ROOT / "build" / "peers" / peer
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[peer]], check=True)
        (folder / "installed").touch()
    return python


def measured(command: Sequence[str | Path], **options: Any) -> tuple[float, float, float]:
    """(CPU seconds, wall seconds, peak resident MB of the largest process so far) of a command and its
    children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start, after.ru_maxrss / 1e3


def speed(
    console: Console, scratch: Path, texts: list[str], sample: list[str], peers: Sequence[str], n_copies: int
) -> dict[str, Any]:
    """Megabytes per CPU-second of FineWeb's chain, files in and files out, ours and the peers'."""
    rates: dict[str, float] = {}
    walls, shown = (
        {},
        Table("tool", "MB", "CPU s", "wall s", "MB/CPU-s", title="FineWeb's chain, whole processes"),
    )

    def note(name: str, n_megabytes: float, cpu: float, wall: float) -> None:
        rates[name] = n_megabytes / cpu
        shown.add_row(name, f"{n_megabytes:.1f}", f"{cpu:.1f}", f"{wall:.1f}", f"{rates[name]:.2f}")

    for profile in ("paper", "datatrove"):
        recipe = write_recipe(scratch, profile, write_documents(scratch / "all", texts * n_copies))
        for n_workers in (1, 2):
            command = [Path(sys.executable).with_name("cuvee"), "run", recipe, "--workers", str(n_workers)]
            name = f"cuvee {profile}, {n_workers} workers"
            measured([*command, "--run-dir", scratch / "warm"], cwd=scratch)  # compiles once for all
            cpu, wall, _ = measured([*command, "--run-dir", scratch / name], cwd=scratch)
            walls[name] = wall
            note(name, n_copies * megabytes(texts), cpu, wall)
    folder = write_documents(scratch / "sample", sample)
    if "datatrove" in peers:
        python = environment("datatrove")
        cpu, wall, _ = measured([python, PEER_SCRIPT, "chain", folder, scratch / "datatrove"])
        note("datatrove", megabytes(sample), cpu, wall)
    if "dolma" in peers:
        cpu, wall, _ = measured(dolma_command(folder, scratch))
        note("dolma", megabytes(sample), cpu, wall)
    console.print(shown)
    ours = rates["cuvee datatrove, 1 workers"]
    return {
        "mb_per_cpu_s": rates,
        "ratio_datatrove": ours / rates["datatrove"] if "datatrove" in rates else None,
        "ratio_best_other": ours / rates["dolma"] if "dolma" in rates else None,
        "two_workers": walls["cuvee datatrove, 1 workers"] / walls["cuvee datatrove, 2 workers"],
    }


def write_documents(folder: Path, texts: Sequence[str]) -> Path:
    """One JSONL file below `folder`."""
    folder.mkdir(exist_ok=True)
    rows = (orjson.dumps({"id": str(i), "text": text, "source": "dev"}) for i, text in enumerate(texts))
    (folder / "documents.jsonl").write_bytes(b"\n".join(rows))
    return folder


def write_recipe(scratch: Path, profile: str, documents: Path) -> Path:
    """FineWeb's chain as a recipe."""
    recipe = {
        "name": profile,
        "inputs": [{"source": "dev", "path": str(documents / "*.jsonl")}],
        "curate": [
            {"gopher_repetition": {"profile": profile}},
            {"gopher_quality": {"profile": profile}},
            {"c4": {"profile": profile, "require_terminal_punctuation": False}},
            {"fineweb": {"profile": profile}},
        ],
    }
    path = scratch / f"{profile}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return path


def dolma_command(folder: Path, scratch: Path) -> list[str | Path]:
    """dolma's taggers for the same papers: all scores, nothing applied."""
    (folder / "documents").mkdir(exist_ok=True)
    target = folder / "documents" / "documents.jsonl"
    target.write_bytes((folder / "documents.jsonl").read_bytes())
    subprocess.run(["gzip", "-f", target], check=True)
    dolma = environment("dolma").with_name("dolma")
    taggers = ["--taggers", "gopher_v2", "c4_v2", "--processes", "1"]
    return [dolma, "tag", "--documents", f"{folder}/documents/*.gz", "--experiment", "e", *taggers]


def agreement(console: Console, scratch: Path, sample: list[str]) -> dict[str, Any]:
    """The share of documents with datatrove's decision and reason, per family; and its scores, bit for
    bit."""
    table = pa.table({"text": pa.array(sample, pa.large_string())})
    scored = {name: operator.scores(table) for name, operator in families("datatrove").items()}
    ours = {name: families("datatrove")[name].reasons(scores).to_pylist() for name, scores in scored.items()}
    documents = scratch / "documents.jsonl"
    with documents.open("wb") as out:
        for row in peer_rows(sample, scored):
            out.write(orjson.dumps(row) + b"\n")
    shown = Table(
        "family",
        "our words",
        "stock",
        "where stock differs (ours, datatrove's)",
        title="same decision and reason",
    )
    same: dict[str, dict[str, float]] = {"our_words": {}, "stock": {}}
    differ: dict[str, Counter[tuple[str | None, str | None]]] = {}
    for mode, extra in (("our_words", ["words"]), ("stock", [])):
        theirs = run_peer("decide", documents, scratch, *extra)
        for name in ours:
            pairs = [(mine, decision[name]) for mine, decision in zip(ours[name], theirs, strict=True)]
            same[mode][name] = sum(mine == other for mine, other in pairs) / len(pairs)
            differ[name] = Counter(pair for pair in pairs if pair[0] != pair[1])
    for name in ours:
        causes = ", ".join(f"{a}, {b}: {n}" for (a, b), n in differ[name].most_common(3))
        shown.add_row(name, f"{same['our_words'][name]:.2%}", f"{same['stock'][name]:.2%}", causes)
    console.print(shown)
    checked = run_peer("scores", documents, scratch)
    n_scores = sum(row["asked"] for row in checked)
    wrong = Counter(name for row in checked for name in row["wrong"])
    n_equal = n_scores - sum(wrong.values())
    console.print(f"{n_equal:,} of {n_scores:,} scores are datatrove's, bit for bit. {dict(wrong) or ''}")
    return {"agreement": same, "scores_compared": n_scores, "scores_equal": n_equal}


def run_peer(job: str, documents: Path, scratch: Path, *extra: str) -> list[dict[str, Any]]:
    """What datatrove says of each document."""
    out = scratch / "out.jsonl"
    subprocess.run([environment("datatrove"), PEER_SCRIPT, job, documents, out, *extra], check=True)
    return [orjson.loads(line) for line in out.read_bytes().splitlines()]


def peer_rows(sample: list[str], scored: dict[str, Any]) -> list[dict[str, Any]]:
    """Each document with our words, the sentences of each line that C4 may keep, and our scores by
    parameter."""
    texts = pa.chunked_array([pa.array(sample, pa.large_string())])
    data, offsets = text_buffers(texts)
    found = cut(data, offsets)
    kept, kept_offsets, _, _ = c4_lines(data, offsets, LineRules(require_terminal_punctuation=False))
    rows = []
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
        rows.append({"text": text, "words": found[d], "sentences": sentence_counts, "scores": scores})
    return rows


def cut(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[list[str]]:
    """The words of each document under the profile `datatrove`."""
    found, raw = words(data, offsets, "english"), data.tobytes()
    spans = zip(found.starts.tolist(), found.n_bytes.tolist(), strict=True)
    texts = [raw[start : start + n_bytes].decode() for start, n_bytes in spans]
    return [texts[a:b] for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


if __name__ == "__main__":
    main()
