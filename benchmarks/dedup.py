"""MinHash deduplication on real text: recall and precision against brute force, speed, memory, and its peers.

    python -m benchmarks.dedup [--corpus FOLDER] [--quick] [--json] [--peers NAME ...] [--parts NAME ...]

FOLDER holds one folder a domain with `*.jsonl.zst` files. Each peer runs in a virtual environment of its own
below build/peers, made if it is not there. CPU seconds are those of whole processes, start and imports
included, except for signatures, which are timed inside their process. --quick takes three domains, one
threshold, small corpora and no peer but rensa: under a minute once there is an environment. The last line
with --json is one JSON object.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.dedup_corpus import paragraphs_of, read_corpus, write_jsonl, write_recombined
from benchmarks.dedup_truth import Pairs, judge, pairs_of_sets, true_pairs
from cuvee.kernels.minhash import band_keys, permutations, signatures
from cuvee.kernels.shingle_sets import shingle_sets
from cuvee.kernels.shingles import shingle_hashes, word_hashes
from cuvee.operators.bands import Bands
from cuvee.operators.minhash_dedup import MinHashDedup
from cuvee.operators.text_column import text_buffers

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "dev"
PEERS_SCRIPT = Path(__file__).with_name("dedup_peers.py")
ENVIRONMENTS = {
    "light": ["rensa", "datasketch>=2"],
    "datatrove": ["datatrove[io,processing]", "spacy"],
    "text-dedup": ["text-dedup==0.4.0"],
}
PEERS = {"rensa": "light", "datasketch": "light", "datatrove": "datatrove", "text-dedup": "text-dedup"}
QUICK_DOMAINS = ("dialogue", "manuals", "wiki")
THRESHOLDS = (0.7, 0.8, 0.9)
FINEWEB = Bands(14, 8)
N_PERM = 112
PARTS = ("quality", "signatures", "end_to_end", "growth")


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
        bench = Benchmark(console, Path(scratch), documents, peers, (0.8,) if arguments.quick else THRESHOLDS)
        figures: dict[str, Any] = {}
        for part in arguments.parts:
            figures |= bench.growth(n_max) if part == "growth" else getattr(bench, part)()
    if arguments.json:
        print(json.dumps(figures))


def measured(command: Sequence[str | Path]) -> tuple[float, str]:
    """(CPU seconds, last line printed) of a command and its children.

    Raises:
        SystemExit: the command failed; with the end of what it said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, done.stdout.strip().rpartition("\n")[2]


def peer_python(peer: str) -> Path:
    """The interpreter of a peer's environment, made if it is not there."""
    folder = ROOT / "build" / "peers" / PEERS[peer]
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[PEERS[peer]]], check=True)
        (folder / "installed").touch()
    return python


class Benchmark:
    """One corpus, measured in every way."""

    def __init__(
        self,
        console: Console,
        folder: Path,
        documents: list[dict[str, str]],
        peers: Sequence[str],
        thresholds: Sequence[float],
    ) -> None:
        self.console, self.folder, self.documents = console, folder, documents
        self.peers, self.thresholds = peers, thresholds
        self.jsonl = write_jsonl(folder / "corpus.jsonl", documents)
        self.mb = sum(len(document["text"].encode()) for document in documents) / 1e6
        self.n_runs = 0
        self.peer_runs: dict[tuple[str, Bands], tuple[Path, float]] = {}

    def run_ours(self, path: Path, n_workers: int = 1, **parameters: Any) -> tuple[Path, float, float]:
        """(run directory, CPU seconds, peak MB) of curating JSONL with `minhash_dedup` alone."""
        self.n_runs += 1
        recipe, run_dir = self.folder / f"recipe-{self.n_runs}.yaml", self.folder / f"run-{self.n_runs}"
        entry = {
            "inputs": [{"source": "corpus", "path": str(path)}],
            "curate": [{"minhash_dedup": parameters}],
        }
        recipe.write_text(yaml.safe_dump(entry), "utf-8")
        command = [sys.executable, "-m", "benchmarks.curate", recipe, run_dir, str(n_workers)]
        cpu, peak_mb = measured(command)
        return run_dir, cpu, float(peak_mb)

    def run_peer(self, peer: str, path: Path, bands: Bands) -> tuple[Path, float]:
        """(folder with ``kept.txt``, CPU seconds) of a peer, run once."""
        if (peer, bands) not in self.peer_runs:
            folder = self.folder / f"{peer}-{bands.n_bands}x{bands.rows_per_band}"
            folder.mkdir()
            command = [peer_python(peer), PEERS_SCRIPT, peer, path, folder, *map(str, bands)]
            self.peer_runs[peer, bands] = folder, measured(command)[0]
        return self.peer_runs[peer, bands]

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
        run_dir, _, _ = self.run_ours(self.jsonl, **parameters)
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
                command = [peer_python(peer), PEERS_SCRIPT, "signatures", peer, path, N_PERM]
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
        """Read, sign, exchange, verify, write, beside the peers, start and imports included."""
        self.run_ours(self.jsonl)  # warms the kernels' disk cache
        seconds = [self.run_ours(self.jsonl)[1]]
        repeated, repeated_mb = self._repeated(4)
        speeds = {"cuvee, 4 corpora": repeated_mb / self.run_ours(repeated)[1]}
        for peer in self.peers:
            speeds[peer] = self.mb / self.run_peer(peer, self.jsonl, FINEWEB)[1]
        seconds.append(self.run_ours(self.jsonl)[1])
        speeds["cuvee"] = self.mb / float(np.mean(seconds))
        lines = [
            {
                "what": name,
                "MB per CPU-s": round(speed, 2),
                "cuvee / it": round(speeds["cuvee"] / speed, 2),
                "cuvee, 4 corpora / it": round(speeds["cuvee, 4 corpora"] / speed, 2),
            }
            for name, speed in speeds.items()
        ]
        show(self.console, f"End to end, one worker, {self.mb:.0f} MB", lines)
        return {
            "end_to_end_mb_per_cpu_s": {line["what"]: line["MB per CPU-s"] for line in lines},
            "end_to_end_ratio": {line["what"]: line["cuvee / it"] for line in lines},
            "end_to_end_ratio_4_corpora": {line["what"]: line["cuvee, 4 corpora / it"] for line in lines},
        }

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

    def growth(self, n_max: int) -> dict[str, Any]:
        """CPU, memory and exchanged bytes as documents grow by 4, and where 3 of 10 are one licence."""
        paragraphs = paragraphs_of(self.documents)
        licence = "\n\n".join(paragraphs[:: len(paragraphs) // 8][:8])
        plain = [self._grown(n_max // 4**k, paragraphs) for k in (3, 2, 1, 0)]
        skewed = [self._grown(n_max // 4**k, paragraphs, licence) for k in (2, 1)]
        show(self.console, "Growth, two workers", plain)
        show(self.console, "The same with 3 of 10 documents one licence", skewed)
        smaller, largest = plain[1], plain[-1]
        more_mb = largest["peak MB"] - smaller["peak MB"]
        exchanged = largest["first look, B per doc"] + largest["second look, B per doc"]
        return {
            "growth": plain,
            "growth_licence": skewed,
            "growth_exponent": exponent(plain[1:], "CPU s"),
            "growth_exponent_memory": exponent(plain[1:], "peak MB"),
            "growth_exponent_licence": exponent(skewed, "CPU s"),
            "bytes_per_document": round(1e6 * more_mb / (largest["n_docs"] - smaller["n_docs"])),
            "peak_mb": largest["peak MB"],
            "n_docs": largest["n_docs"],
            "estimate_per_billion_documents": {
                "cpu_hours": round(1e9 * largest["CPU s"] / largest["n_docs"] / 3600, 1),
                "exchanged_tb": round(exchanged / 1e3, 2),
                "state_gb": largest["state, B per doc"],
            },
        }

    def _grown(self, n_docs: int, paragraphs: list[str], licence: str | None = None) -> dict[str, Any]:
        folder = self.folder / f"grown-{n_docs}-{licence is not None}"
        path, mb = write_recombined(folder, paragraphs, n_docs, licence)
        run_dir, cpu, peak = self.run_ours(path, n_workers=2)
        looks = {
            look: sum(file.stat().st_size for file in run_dir.glob(f"stages/00-*/fit/{look}-*.arrow"))
            / n_docs
            for look in ("part", "again-part")
        }
        state = sum(
            next(run_dir.glob(f"stages/00-*/fit/{name}.arrow")).stat().st_size for name in ("found", "state")
        )
        manifest = json.loads(next(run_dir.glob("stages/01-*/manifest.json")).read_text("utf-8"))
        shutil.rmtree(run_dir)
        shutil.rmtree(folder)
        return {
            "n_docs": n_docs,
            "MB": round(mb),
            "CPU s": round(cpu, 1),
            "MB per CPU-s": round(mb / cpu, 1),
            "peak MB": round(peak),
            "first look, B per doc": round(looks["part"]),
            "second look, B per doc": round(looks["again-part"]),
            "state, B per doc": round(state / n_docs),
            **manifest["fit_summary"],
        }


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


def exponent(lines: Sequence[dict[str, Any]], key: str) -> float:
    """The slope of log(key) over log(documents)."""
    x, y = (np.log([line[name] for line in lines]) for name in ("n_docs", key))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def show(console: Console, title: str, lines: Sequence[dict[str, Any]]) -> None:
    """Dictionaries of the same keys as a table."""
    table = Table(*lines[0], title=f"\n{title}", title_justify="left", box=None, header_style="bold")
    for line in lines:
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in line.values()))
    console.print(table)


if __name__ == "__main__":
    main()
