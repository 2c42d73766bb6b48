"""Deduplication inside documents: MB per CPU-second, growth of cost, and whether planted repeats are found.

    python -m benchmarks.substring [--json] [--quick] [--corpus FOLDER]

Text: the documents of FOLDER/**/*.jsonl.zst (by default ../shared/corpus/dev beside the repository), or else
the source files of this Python's standard library. Measured is all between tables of documents and tables of
documents: observe, exchange through files, merge, cut; CPU time of all threads, compilation excluded.

The limit beside it is what every method by suffix array pays first: libdivsufsort's suffix array and Kasai's
LCP array of the same text (pydivsufsort, in an environment of its own below build/), without any input or
output, in one piece of memory.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from cuvee.operators.base import ROW, FitFilter
from cuvee.operators.paragraph_dedup import ParagraphDedup
from cuvee.operators.substring_dedup import SubstringDedup
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.fitting import reduce_fit
from cuvee.pipeline.partials import write_partial

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "build" / "peers" / "substring"
PEER_PACKAGES = ["numpy", "pydivsufsort>=0.0.18"]
SHARD_BYTES = 4_000_000
GROWTH = (1, 4, 16)
N_PLANTED, PLANTED_WORDS = 200, 50
BYTES = SubstringDedup(borders="character", min_bytes_left=0)
TOKENS = SubstringDedup(min_tokens=PLANTED_WORDS, borders="character", min_bytes_left=0)
WORD = re.compile(r"\S+")
SUFFIX_ARRAY = """
import json, sys, time
import pydivsufsort
text = open(sys.argv[1], "rb").read()
start = time.process_time()
suffixes = pydivsufsort.divsufsort(text)
pydivsufsort.kasai(text, suffixes)
print(json.dumps(time.process_time() - start))
"""


def read_texts(folder: Path, seed: int = 0) -> list[str]:
    """All texts of a folder, or of the standard library, in a random order that is always the same."""
    texts = []
    for path in sorted(folder.glob("**/*.jsonl.zst")):
        lines = pa.input_stream(str(path)).read().splitlines()
        texts += [orjson.loads(line)["text"] for line in lines]
    if not texts:
        library = Path(sysconfig.get_path("stdlib"))
        texts = [path.read_text("utf-8", "replace") for path in sorted(library.glob("**/*.py"))]
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order]


def first_bytes(texts: Sequence[str], n_bytes: int) -> list[str]:
    """As many whole texts as fit into `n_bytes` of UTF-8."""
    ends = np.cumsum([len(text.encode()) for text in texts])
    return list(texts[: int(np.searchsorted(ends, n_bytes, side="right"))])


def as_shards(texts: Sequence[str]) -> list[pa.Table]:
    """Tables of some `SHARD_BYTES` of text each, rows numbered through."""
    sizes = np.cumsum([0, *(len(text.encode()) for text in texts)])
    shard = sizes[:-1] // SHARD_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(texts)]
    table = pa.table(
        {"text": pa.array(texts, pa.large_string()), ROW: pa.array(range(len(texts)), pa.int64())}
    )
    return [table.slice(a, b - a) for a, b in pairwise(cuts)]


def run(operator: FitFilter, shards: Sequence[pa.Table]) -> tuple[list[dict[str, pa.Array]], int]:
    """(the columns of each shard, bytes exchanged)."""
    engine = LocalEngine()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"part-{i:05d}.arrow" for i in range(len(shards))]

        def observe(index: int) -> None:
            write_partial(paths[index], operator.observe(shards[index]), operator.exchange_key or "")

        engine.map_shards(observe, range(len(shards)), lambda _: None)
        n_exchanged = sum(path.stat().st_size for path in paths)
        state = reduce_fit(engine, operator, paths)
    return [dict(operator.scores(shard, state)) for shard in shards], n_exchanged


def growth(operator: FitFilter, corpora: Sequence[Sequence[str]]) -> tuple[list[float], list[float]]:
    """(CPU seconds, bytes exchanged per byte of text) on each corpus."""
    run(operator, as_shards(corpora[0]))
    seconds, exchanged = [], []
    for texts in corpora:
        shards = as_shards(texts)
        start = time.process_time()
        _, n_exchanged = run(operator, shards)
        seconds.append(time.process_time() - start)
        exchanged.append(n_exchanged / n_bytes(texts))
    return seconds, exchanged


def suffix_array_seconds(corpora: Sequence[Sequence[str]]) -> list[float]:
    """CPU seconds of the suffix and LCP array of each corpus."""
    python = PEER / "bin" / "python"
    if not python.exists():
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
    seconds = []
    for texts in corpora:
        with tempfile.NamedTemporaryFile() as file:
            file.write("\0".join(texts).encode())
            file.flush()
            command = [python, "-c", SUFFIX_ARRAY, file.name]
            seconds.append(float(json.loads(subprocess.check_output(command))))
    return seconds


def planted(texts: Sequence[str], operator: SubstringDedup = BYTES, seed: int = 0) -> tuple[float, int]:
    """(share of planted passages of 50 words found, bytes cut out that do not occur before)."""
    random = np.random.default_rng(seed)
    documents = first_bytes(texts, 1_000_000)
    wanted = []
    for _ in range(N_PLANTED):
        source, target = random.choice(len(documents), 2, replace=False).tolist()
        words = documents[source].split(" ")
        at = int(random.integers(0, max(len(words) - PLANTED_WORDS, 1)))
        # White space around a passage of words is none of it.
        passage = " ".join(words[at : at + PLANTED_WORDS]).strip()
        is_long = (
            len(passage.split()) >= operator.min_tokens
            if operator.min_tokens
            else len(passage.encode()) >= operator.min_bytes
        )
        if is_long:
            documents.append(f"{len(documents)} {passage} {documents[target][:200]}")
            wanted.append((len(documents) - 1, len(str(len(documents) - 1)) + 1, len(passage.encode())))
    columns, _ = run(operator, as_shards(documents))
    spans = [row for shard in columns for row in shard["substring_dedup.spans"].to_pylist()]
    found = sum(
        any(a <= start and start + n <= b for a, b in zip(spans[d][::2], spans[d][1::2], strict=True))
        for d, start, n in wanted
    )
    invented = invented_words if operator.min_tokens else invented_bytes
    return found / len(wanted), invented(documents, spans, operator.min_tokens or operator.min_bytes)


def invented_bytes(documents: Sequence[str], spans: Sequence[Sequence[int]], length: int) -> int:
    """Bytes that are cut out and lie in no window that occurred before, by a set of all windows."""
    seen: set[bytes] = set()
    n_invented = 0
    for text, edges in zip((document.encode() for document in documents), spans, strict=True):
        repeats = np.zeros(len(text), bool)
        for i in range(len(text) - length + 1):
            window = text[i : i + length]
            if window in seen:
                repeats[i : i + length] = True
            seen.add(window)
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            n_invented += int((~repeats[start:stop]).sum())
    return n_invented


def invented_words(documents: Sequence[str], spans: Sequence[Sequence[int]], length: int) -> int:
    """As `invented_bytes`, for windows of `length` words: bytes cut out that are of no word in such a window,
    nor of the white space between two such words."""
    seen: set[tuple[bytes, ...]] = set()
    n_invented = 0
    for text, edges in zip((document.encode() for document in documents), spans, strict=True):
        places = [match.span() for match in WORD.finditer(text.decode())]
        at = np.append(0, np.cumsum([len(character.encode()) for character in text.decode()]))
        words = [text[at[a] : at[b]] for a, b in places]
        repeats, goes = np.zeros(len(text), bool), np.zeros(len(words), bool)
        for i in range(len(words) - length + 1):
            window = tuple(words[i : i + length])
            if window in seen:
                goes[i : i + length] = True
            seen.add(window)
        for i in np.flatnonzero(goes).tolist():
            after = places[i + 1][0] if i + 1 < len(words) and goes[i + 1] else places[i][1]
            repeats[at[places[i][0]] : at[after]] = True
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            n_invented += int((~repeats[start:stop]).sum())
    return n_invented


def n_bytes(texts: Sequence[str]) -> int:
    """UTF-8 bytes of all texts."""
    return sum(len(text.encode()) for text in texts)


def exponent(seconds: Sequence[float], megabytes: Sequence[float]) -> float:
    """The slope of log CPU time over log size, first to last: 1 is linear."""
    return math.log(seconds[-1] / seconds[0]) / math.log(megabytes[-1] / megabytes[0])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.substring", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of plain figures")
    parser.add_argument("--quick", action="store_true", help="a fifth of the text")
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "corpus" / "dev")
    options = parser.parse_args(arguments)

    texts = read_texts(options.corpus)
    total = min(n_bytes(texts), 60_000_000) // (5 if options.quick else 1)
    corpora = [first_bytes(texts, total * times // GROWTH[-1]) for times in GROWTH]
    megabytes = [n_bytes(corpus) / 1e6 for corpus in corpora]
    figures: dict[str, float] = {}
    rows = []
    for name, operator in (
        ("substring", SubstringDedup()),
        ("substring_tokens", SubstringDedup(min_tokens=PLANTED_WORDS)),
        ("paragraph", ParagraphDedup()),
    ):
        seconds, exchanged = growth(operator, corpora)
        rows.append((f"{name}_dedup", seconds))
        figures[f"{name}_mb_per_cpu_s"] = megabytes[-1] / seconds[-1]
        figures[f"{name}_growth_exponent"] = exponent(seconds, megabytes)
        figures[f"{name}_exchanged_bytes_per_byte"] = exchanged[-1]
    seconds = suffix_array_seconds(corpora)
    rows.append(("suffix array + LCP alone (pydivsufsort)", seconds))
    figures["suffix_array_mb_per_cpu_s"] = megabytes[-1] / seconds[-1]
    figures["suffix_array_growth_exponent"] = exponent(seconds, megabytes)
    figures["substring_to_suffix_array_ratio"] = rows[-1][1][-1] / rows[0][1][-1]
    figures["planted_found"], figures["invented_bytes"] = planted(texts)
    figures["planted_found_tokens"], figures["invented_bytes_tokens"] = planted(texts, TOKENS)

    print(f"{'MB per CPU-second':42}" + "".join(f"{size:9.1f} MB" for size in megabytes) + "   exponent")
    for name, seconds in rows:
        speeds = "".join(f"{size / cpu:12.1f}" for size, cpu in zip(megabytes, seconds, strict=True))
        print(f"{name:42}{speeds}{exponent(seconds, megabytes):11.2f}")
    per_byte = [figures[f"{name}_exchanged_bytes_per_byte"] for name in ("substring", "paragraph")]
    print("exchanged bytes per byte of text: substrings {:.1f}, paragraphs {:.1f}".format(*per_byte))
    print(
        f"planted passages found: {figures['planted_found']:.1%}; bytes invented: {figures['invented_bytes']}"
    )
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    sys.exit(main())
