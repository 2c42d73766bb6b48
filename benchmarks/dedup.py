"""MinHash deduplication on real text: recall and precision against brute force, speed, memory, and its peers.

    python -m benchmarks.dedup [--corpus FOLDER] [--quick] [--json] [--peers NAME ...] [--parts NAME ...]

FOLDER holds one folder a domain with `*.jsonl.zst` files. cuvee and each peer run in virtual environments of
their own below build/peers, made if they are not there. CPU seconds are those of whole processes, start and
imports included, except for signatures, which are timed inside their process. All parts take an estimated 12
minutes on a quiet machine once the environments are there, of which datatrove takes five. --quick takes three
domains, one threshold, small corpora and no peer but rensa. The last line with --json is one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks import substring
from benchmarks.dedup_corpus import read_corpus, write_jsonl
from benchmarks.dedup_growth import growth
from benchmarks.dedup_runs import PEERS, ROOT, curated, measured, python_of, show
from benchmarks.dedup_truth import Pairs, judge, pairs_of_sets, true_pairs
from cuvee.kernels.minhash import band_keys, permutations, signatures
from cuvee.kernels.shingle_sets import shingle_sets
from cuvee.kernels.shingles import shingle_hashes, word_hashes
from cuvee.operators.bands import Bands
from cuvee.operators.minhash_dedup import MinHashDedup
from cuvee.operators.substring_dedup import SubstringDedup
from cuvee.operators.text_column import text_buffers

CORPUS = ROOT.parent / "shared" / "corpus" / "dev"
PEERS_SCRIPT = Path(__file__).with_name("dedup_peers.py")
QUICK_DOMAINS = ("dialogue", "manuals", "wiki")
THRESHOLDS = (0.7, 0.8, 0.9)
FINEWEB = Bands(14, 8)
N_PERM = 112
SUFFIX_ARRAY_MB_PER_CPU_S = 4200 / 7200
PUBLISHED = (
    "deduplicate-text-datasets publishes no speed: its README gives about two hours on one thread for the "
    "suffix array of LM1B's training set, of a size that it does not tell; 0.58 MB per CPU-s assumes 4.2 GB"
)
PARTS = ("quality", "signatures", "end_to_end", "growth", "substring")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--quick", action="store_true", help="a small part of everything, in a minute")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=None)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--max-docs", type=int, default=None, help="the largest corpus for memory")
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir():
        sys.exit(f"{arguments.corpus} is not there; give a folder of one folder a domain with --corpus")
    domains = sorted(path.name for path in arguments.corpus.iterdir() if path.is_dir())
    domains = [domain for domain in domains if not arguments.quick or domain in QUICK_DOMAINS]
    peers = arguments.peers if arguments.peers is not None else ["rensa"] if arguments.quick else [*PEERS]
    n_max = arguments.max_docs or (40_000 if arguments.quick else 1_000_000)
    console = Console(width=118)
    documents = read_corpus(arguments.corpus, domains)
    with tempfile.TemporaryDirectory() as scratch:
        thresholds = (0.8,) if arguments.quick else THRESHOLDS
        bench = Benchmark(console, Path(scratch), documents, peers, thresholds, n_max)
        figures: dict[str, Any] = {}
        for part in arguments.parts:
            print(f"{part} ...", file=sys.stderr)
            figures |= getattr(bench, part)()
    if arguments.json:
        print(json.dumps(figures))


class Benchmark:
    """One corpus, measured in every way."""

    def __init__(
        self,
        console: Console,
        folder: Path,
        documents: list[dict[str, str]],
        peers: Sequence[str],
        thresholds: Sequence[float],
        n_max: int,
    ) -> None:
        self.console, self.folder, self.documents = console, folder, documents
        self.peers, self.thresholds, self.n_max = peers, thresholds, n_max
        self.jsonl = write_jsonl(folder / "corpus.jsonl", documents)
        self.mb = sum(len(document["text"].encode()) for document in documents) / 1e6
        self.n_runs = 0
        self.peer_runs: dict[str, tuple[Path, float]] = {}

    def run_ours(self, path: Path, **parameters: Any) -> tuple[Path, float]:
        """(run directory, CPU seconds) of a curation with `minhash_dedup` alone."""
        self.n_runs += 1
        run_dir, cpu, _ = curated(path, self.folder / f"run-{self.n_runs}", **parameters)
        return run_dir, cpu

    def run_peer(self, peer: str, path: Path, bands: Bands) -> tuple[Path, float]:
        """(folder with ``kept.txt``, CPU seconds) of a peer, run once."""
        key = f"{peer}-{path.stem}-{bands}"
        if key not in self.peer_runs:
            folder = self.folder / key
            folder.mkdir()
            command = [python_of(PEERS[peer]), PEERS_SCRIPT, peer, path, folder, *map(str, bands)]
            self.peer_runs[key] = folder, measured(command)[0]
        return self.peer_runs[key]

    def quality(self) -> dict[str, Any]:
        """Recall and precision at each threshold, ours and the peers', and the S-curve."""
        pairs = true_pairs([document["text"] for document in self.documents])
        lines = []
        for threshold in self.thresholds:
            for (name, bands), kept in self._removals(threshold).items():
                who = {"threshold": threshold, "what": name, "bands": str(bands)}
                lines.append(who | judge(pairs, kept, threshold))
        show(self.console, "Removals beside every true pair", lines)
        curve = self._s_curve(pairs)
        show(self.console, "S-curve, on pairs that share no document", curve)
        figures = {
            measure: {
                str(threshold): {
                    f"{line['what']} {line['bands']}": line[measure]
                    for line in lines
                    if line["threshold"] == threshold
                }
                for threshold in self.thresholds
            }
            for measure in ("recall", "precision")
        }
        own = self._with_own_words()
        show(
            self.console, "The same with cuvee's words (a letter of an unspaced script is one), verified", own
        )
        return {**figures, "own_words": own, "removals": lines, "s_curve": curve}

    def _with_own_words(self) -> list[dict[str, Any]]:
        shingled = shingle_hashes(*word_hashes(*text_buffers(texts_of(self.documents))), 5)
        sets, bounds = shingle_sets(*shingled)
        pairs = pairs_of_sets(np.unique(sets, return_inverse=True)[1], bounds)
        return [
            {"threshold": threshold} | judge(pairs, self._kept_by_us(threshold=threshold), threshold)
            for threshold in self.thresholds
        ]

    def _removals(self, threshold: float) -> dict[tuple[str, Bands], np.ndarray]:
        """Which documents stay, by what was run with which bands."""
        chosen = MinHashDedup(threshold=threshold).bands
        fineweb = {"n_bands": FINEWEB.n_bands, "rows_per_band": FINEWEB.rows_per_band}
        found = {
            ("cuvee", chosen): self._kept_by_us(threshold=threshold),
            ("cuvee", FINEWEB): self._kept_by_us(threshold=threshold, **fineweb),
            ("cuvee, not verified", FINEWEB): self._kept_by_us(verify="none", **fineweb),
        }
        for peer in self.peers:
            for bands in (chosen, FINEWEB) if PEERS[peer] == "light" else (FINEWEB,):
                folder, _ = self.run_peer(peer, self.jsonl, bands)
                found[peer, bands] = self._kept(set((folder / "kept.txt").read_text("utf-8").split("\n")))
        return found

    def _kept_by_us(self, **parameters: Any) -> np.ndarray:
        run_dir, _ = self.run_ours(self.jsonl, **parameters)
        parts = [pq.read_table(path, columns=["id"]) for path in run_dir.glob("stages/01-*/part-*.parquet")]
        return self._kept(set(pa.concat_tables(parts)["id"].to_pylist()))

    def _kept(self, names: set[str]) -> np.ndarray:
        return np.array([document["id"] in names for document in self.documents])

    def _s_curve(self, pairs: Pairs) -> list[dict[str, Any]]:
        """By true similarity: how many pairs share a band and how many should, in standard errors."""
        pairs = pairs.disjoint()
        shingled = shingle_hashes(*word_hashes(*text_buffers(texts_of(self.documents))), 5)
        curve = []
        for bands in (MinHashDedup().bands, FINEWEB):
            drawn = permutations(bands.n_bands * bands.rows_per_band, 1)
            keys = band_keys(signatures(*shingled, drawn), bands.n_bands)
            shares = (keys[pairs.a] == keys[pairs.b]).any(axis=1)
            for low in np.arange(0.3, 1.0, 0.1):
                inside = (pairs.similarity >= low) & (pairs.similarity < low + 0.1)
                p = bands.candidate_probability(pairs.similarity[inside])
                n_candidates, deviation = int(shares[inside].sum()), (p * (1 - p)).sum() ** 0.5
                line = {"bands": str(bands), "similarity": round(float(low), 1), "n_pairs": len(p)}
                line |= {"n_candidates": n_candidates, "expected": round(float(p.sum()), 1)}
                # Below half a pair's deviation, one pair would look like a wonder.
                errors = round(float((n_candidates - p.sum()) / max(deviation, 0.5)), 2)
                curve.append(line | {"standard_errors": errors})
        return curve

    def signatures(self) -> dict[str, Any]:
        """MB of text per CPU-second, from text to signatures of 112 values over 5-grams of words."""
        part = self.documents[:: max(1, int(self.mb / 15))]  # about 15 MB: the Python peers are slow
        path = write_jsonl(self.folder / "part.jsonl", part)
        speeds: dict[str, list[float]] = {}
        for _ in range(3):
            speeds.setdefault("cuvee", []).append(signing_speed(texts_of(part)))
            for peer in (peer for peer in self.peers if PEERS[peer] == "light"):
                command = [python_of(PEERS[peer]), PEERS_SCRIPT, "signatures", peer, path, N_PERM]
                done = json.loads(measured(command)[1])
                speeds.setdefault(peer, []).append(done["mb"] / done["cpu_s"])
        medians = {name: round(float(np.median(found)), 2) for name, found in speeds.items()}
        ratios = {name: round(medians["cuvee"] / speed, 1) for name, speed in medians.items()}
        lines = [
            {"what": name, "MB per CPU-s": medians[name], "cuvee is faster by": ratios[name]}
            for name in medians
        ]
        show(self.console, "Text to signatures, medians of 3 rounds", lines)
        return {"signature_mb_per_cpu_s": medians, "signature_ratio": ratios}

    def end_to_end(self) -> dict[str, Any]:
        """Read, sign, exchange, verify, write, beside the peers on the same input: whole processes.

        On the corpus itself starting (a second or two for each) takes a good part of ours.
        """
        self.run_ours(self.jsonl)  # warms the kernels' disk cache
        twice, twice_mb = self._repeated(2)
        figures: dict[str, Any] = {}
        for title, path, mb in (("end_to_end", twice, twice_mb), ("end_to_end_short", self.jsonl, self.mb)):
            seconds = {peer: self.run_peer(peer, path, FINEWEB)[1] for peer in self.peers}
            ours = float(np.median([self.run_ours(path)[1] for _ in range(3)]))
            lines = [
                {"what": name, "CPU s": round(cpu, 2), "MB per CPU-s": round(mb / cpu, 2)}
                | {"cuvee is faster by": round(cpu / ours, 2)}
                for name, cpu in ({"cuvee": ours} | seconds).items()
            ]
            show(self.console, f"End to end, one worker, {mb:.0f} MB", lines)
            figures[f"{title}_mb_per_cpu_s"] = {line["what"]: line["MB per CPU-s"] for line in lines}
            figures[f"{title}_ratio"] = {line["what"]: line["cuvee is faster by"] for line in lines[1:]}
        return figures

    def _repeated(self, n: int) -> tuple[Path, float]:
        """The corpus `n` times, each time with other words, so that no copy is a duplicate of another."""
        documents = []
        for k in range(n):
            mark = f" {'-wxyz'[k]}" if k else " "
            for document in self.documents:
                text = document["text"].replace(" ", mark)
                documents.append({"id": f"{k}-{document['id']}", "text": text})
        path = write_jsonl(self.folder / "repeated.jsonl", documents)
        return path, sum(len(document["text"].encode()) for document in documents) / 1e6

    def growth(self) -> dict[str, Any]:
        """See benchmarks/dedup_growth.py."""
        return growth(self.console, self.folder, self.documents, self.n_max)

    def substring(self) -> dict[str, Any]:
        """Passages of 100 bytes, and of 50 words: speed, growth, and what is found of those planted
        (benchmarks/substring.py)."""
        order = np.random.default_rng(0).permutation(len(self.documents))
        texts = [self.documents[i]["text"] for i in order]
        total = substring.n_bytes(texts)
        corpora = [substring.first_bytes(texts, total * k // substring.GROWTH[-1]) for k in substring.GROWTH]
        megabytes = [substring.n_bytes(corpus) / 1e6 for corpus in corpora]
        runs = {
            "100 bytes": substring.growth(SubstringDedup(), corpora),
            "50 words": substring.growth(SubstringDedup(min_tokens=50), corpora),
        }
        lines = [
            {"passages of": name}
            | {"MB": round(mb, 1), "CPU s": round(cpu, 2), "MB per CPU-s": round(mb / cpu, 1)}
            | {"exchanged, B per B": round(n_bytes, 1)}
            for name, (seconds, exchanged) in runs.items()
            for mb, cpu, n_bytes in zip(megabytes, seconds, exchanged, strict=True)
        ]
        show(self.console, "Passages", lines)
        self.console.print(PUBLISHED)
        figures: dict[str, Any] = {
            "substring_published_mb_per_cpu_s": round(SUFFIX_ARRAY_MB_PER_CPU_S, 2),
            "substring_published_assumes": PUBLISHED,
        }
        units = (("", "100 bytes", substring.BYTES), ("_tokens", "50 words", substring.TOKENS))
        for suffix, name, operator in units:
            seconds, _ = runs[name]
            found, n_invented = substring.planted(texts, operator)
            self.console.print(
                f"{name}: of the planted passages {found:.1%} are found; {n_invented} bytes are invented."
            )
            figures |= {
                f"substring{suffix}_mb_per_cpu_s": round(megabytes[-1] / seconds[-1], 1),
                f"substring{suffix}_growth_exponent": round(substring.exponent(seconds, megabytes), 3),
                f"substring{suffix}_planted_found": found,
                f"substring{suffix}_invented_bytes": n_invented,
            }
        return figures


def texts_of(documents: Sequence[dict[str, str]]) -> pa.ChunkedArray:
    """The documents' texts as a column."""
    return pa.chunked_array([pa.array([document["text"] for document in documents], pa.large_string())])


def signing_speed(texts: pa.ChunkedArray) -> float:
    """MB per CPU-second from text to signatures, compiled already."""
    drawn, (data, offsets) = permutations(N_PERM, 1), text_buffers(texts)
    signatures(*shingle_hashes(*word_hashes(data, offsets), 5), drawn)
    start = time.process_time()
    for _ in range(5):
        signatures(*shingle_hashes(*word_hashes(data, offsets), 5), drawn)
    return float(5 * (offsets[-1] - offsets[0]) / 1e6 / (time.process_time() - start))


if __name__ == "__main__":
    main()
