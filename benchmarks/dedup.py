"""MinHash deduplication on real text: recall and precision against brute force, speed and memory, beside its peers.

    python -m benchmarks.dedup [--corpus FOLDER] [--quick] [--json] [--peers NAME ...] [--parts NAME ...] [--max-docs N]

FOLDER holds one folder a domain with `*.jsonl.zst` files. Each peer runs in a virtual environment of its own below
build/peers, which is made if it is not there. CPU seconds are those of whole processes, start and imports included,
unless said otherwise. --quick takes three domains, no peer but rensa, and small corpora: under a minute once there is
an environment. The last line with --json is one JSON object.
"""

import argparse
import json
import resource
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
from benchmarks.dedup_truth import Pairs, judge, true_pairs
from cuvee.kernels.minhash import band_keys, permutations, signatures
from cuvee.kernels.shingles import shingle_hashes, word_hashes
from cuvee.operators.bands import Bands, choose_bands
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
        bench = Benchmark(
            console, Path(scratch), documents, peers, THRESHOLDS[1:2] if arguments.quick else THRESHOLDS
        )
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

    def __init__(self, console: Console, folder: Path, documents: list[dict[str, str]], peers: Sequence[str],
                 thresholds: Sequence[float]) -> None:  # fmt: skip
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

    def kept(self, names: set[str]) -> np.ndarray:
        """Which documents stay, (n_docs,)."""
        return np.array([document["id"] in names for document in self.documents])

    def quality(self) -> dict[str, Any]:
        """Recall and precision at each threshold, ours and the peers', and the S-curve."""
        pairs = true_pairs([document["text"] for document in self.documents])
        table = Table("threshold", "what", "bands", "true pairs", "both kept", "recall", "removed", "justified",
                      "precision", box=None, header_style="bold")  # fmt: skip
        found: dict[str, dict[str, Any]] = {}
        for threshold in self.thresholds:
            chosen = MinHashDedup(threshold=threshold).bands
            rows = {("cuvee", chosen): self._kept_by_us(threshold=threshold)}
            rows["cuvee, not verified", FINEWEB] = self._kept_by_us(
                threshold=threshold, verify="none", n_bands=14, rows_per_band=8
            )
            for peer in self.peers:
                for bands in {FINEWEB, chosen} if PEERS[peer] == "light" else {FINEWEB}:
                    if bands == chosen or threshold == 0.8:
                        folder, _ = self.run_peer(peer, self.jsonl, bands)
                        rows[peer, bands] = self.kept(
                            set((folder / "kept.txt").read_text("utf-8").split("\n"))
                        )
            for (name, bands), kept in rows.items():
                judged = judge(pairs, kept, threshold)
                found.setdefault(str(threshold), {})[f"{name} {bands.n_bands}x{bands.rows_per_band}"] = judged
                table.add_row(str(threshold), name, f"{bands.n_bands} x {bands.rows_per_band}", *(
                    f"{judged[key]:,}" for key in ("n_pairs", "n_both_kept", "recall", "n_removed", "n_justified", "precision")
                ))  # fmt: skip
        self.console.print(table)
        recall = {t: {name: judged["recall"] for name, judged in rows.items()} for t, rows in found.items()}
        precision = {
            t: {name: judged["precision"] for name, judged in rows.items()} for t, rows in found.items()
        }
        return {"recall": recall, "precision": precision, "quality": found, "s_curve": self._s_curve(pairs)}

    def _kept_by_us(self, **parameters: Any) -> np.ndarray:
        run_dir, _, _ = self.run_ours(self.jsonl, **parameters)
        (stage,) = run_dir.glob("stages/01-*")
        parts = [pq.read_table(path, columns=["id"]) for path in stage.glob("part-*.parquet")]
        return self.kept(set(pa.concat_tables(parts)["id"].to_pylist()))

    def _s_curve(self, pairs: Pairs) -> list[dict[str, float]]:
        """By true similarity: how many pairs share a band, how many should, in standard errors of a binomial."""
        pairs = pairs.disjoint()
        data, offsets = text_buffers(
            pa.chunked_array([pa.array([d["text"] for d in self.documents], pa.large_string())])
        )
        shingled = shingle_hashes(*word_hashes(data, offsets), 5)
        curve = []
        for bands in (choose_bands(0.8, N_PERM, 0.995), FINEWEB):
            keys = band_keys(
                signatures(*shingled, permutations(bands.n_bands * bands.rows_per_band, 1)), bands.n_bands
            )
            shares = (keys[pairs.a] == keys[pairs.b]).any(axis=1)
            for low in np.arange(0.3, 1.0, 0.1):
                inside = (pairs.similarity >= low) & (pairs.similarity < low + 0.1)
                p = bands.candidate_probability(pairs.similarity[inside])
                n_found, n_expected, deviation = shares[inside].sum(), p.sum(), (p * (1 - p)).sum() ** 0.5
                curve.append({
                    "bands": f"{bands.n_bands}x{bands.rows_per_band}", "similarity": round(float(low), 1),
                    "n_pairs": int(inside.sum()), "n_candidates": int(n_found), "expected": round(float(n_expected), 1),
                    "standard_errors": round(float((n_found - n_expected) / max(deviation, 0.5)), 2),
                })  # fmt: skip
        show(self.console, "S-curve, on pairs that share no document", curve)
        return curve

    def signatures(self) -> dict[str, Any]:
        """MB of text per CPU-second, from text to signatures of 112 values over 5-grams of words."""
        part = self.documents[:: max(1, int(self.mb / 15))]  # about 15 MB: the Python peers are slow
        path = write_jsonl(self.folder / "part.jsonl", part)
        column = pa.chunked_array([pa.array([document["text"] for document in part], pa.large_string())])
        mb = len("".join(document["text"] for document in part).encode()) / 1e6
        drawn = permutations(N_PERM, 1)
        speeds: dict[str, list[float]] = {"cuvee": []}
        data, offsets = text_buffers(column)
        signatures(*shingle_hashes(*word_hashes(data, offsets), 5), drawn)
        for peer in [None, *(peer for peer in self.peers if PEERS[peer] == "light")] * 3:
            if peer is None:
                start = time.process_time()
                for _ in range(5):
                    signatures(*shingle_hashes(*word_hashes(data, offsets), 5), drawn)
                speeds["cuvee"].append(5 * mb / (time.process_time() - start))
            else:
                command = [peer_python(peer), PEERS_SCRIPT, "signatures", peer, path, str(N_PERM)]
                done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                speeds.setdefault(peer, []).append(done["mb"] / done["cpu_s"])
        medians = {name: round(float(np.median(found)), 2) for name, found in speeds.items()}
        ratios = {name: round(medians["cuvee"] / speed, 1) for name, speed in medians.items()}
        show(self.console, "Text to signatures, medians of 3 rounds", [
            {"what": name, "MB per CPU-s": speed, "cuvee is faster by": ratios[name]} for name, speed in medians.items()
        ])  # fmt: skip
        return {"signature_mb_per_cpu_s": medians, "signature_ratio": ratios}

    def end_to_end(self) -> dict[str, Any]:
        """Read, sign, exchange, verify, write, beside the peers, start and imports included."""
        self.run_ours(self.jsonl)  # warms the kernels' disk cache
        big, big_mb = self._repeated(4)
        results = {
            "cuvee": self.mb / self.run_ours(self.jsonl)[1],
            "cuvee, 4 corpora": big_mb / self.run_ours(big)[1],
        }
        for peer in self.peers:
            results[peer] = self.mb / self.run_peer(peer, self.jsonl, FINEWEB)[1]
        results["cuvee again"] = self.mb / self.run_ours(self.jsonl)[1]
        ours = (results["cuvee"] + results.pop("cuvee again")) / 2
        results["cuvee"] = ours
        lines = [{"what": name, "MB per CPU-s": round(speed, 2), "cuvee": round(ours / speed, 2),
                  "cuvee, 4 corpora": round(results["cuvee, 4 corpora"] / speed, 2)} for name, speed in results.items()]  # fmt: skip
        show(self.console, f"End to end, one worker, {self.mb:.0f} MB", lines)
        ratio = {line["what"]: line["cuvee, 4 corpora"] for line in lines}
        return {
            "end_to_end_mb_per_cpu_s": {line["what"]: line["MB per CPU-s"] for line in lines},
            "end_to_end_ratio": ratio,
            "end_to_end_ratio_one_corpus": {line["what"]: line["cuvee"] for line in lines},
        }

    def _repeated(self, n: int) -> tuple[Path, float]:
        """The corpus `n` times, words of each copy turned so that copies are no duplicates of each other."""
        path = self.folder / "repeated.jsonl"
        copies = (
            {
                "id": f"{k}-{document['id']}",
                "text": document["text"].replace(" ", f" {'xyz'[k - 1]}" if k else " "),
            }
            for k in range(n)
            for document in self.documents
        )
        write_jsonl(path, copies)
        with path.open(encoding="utf-8") as lines:
            return path, sum(len(json.loads(line)["text"].encode()) for line in lines) / 1e6

    def growth(self, n_max: int) -> dict[str, Any]:
        """CPU, memory and exchanged bytes as the corpus grows by 4, and where 3 of 10 documents are one licence."""
        paragraphs = paragraphs_of(self.documents)
        lines = []
        for licence in (None, "\n\n".join(paragraphs[::997][:8])):
            for n_docs in (
                [n_max // 4**k for k in (3, 2, 1, 0)] if licence is None else (n_max // 16, n_max // 4)
            ):
                folder = self.folder / f"grown-{n_docs}-{licence is not None}"
                path, mb = write_recombined(folder, paragraphs, n_docs, licence)
                run_dir, cpu, peak = self.run_ours(path, n_workers=2)
                exchanged = sum(file.stat().st_size for file in run_dir.glob("stages/00-*/fit/*part-*.arrow"))
                manifest = json.loads(next(run_dir.glob("stages/01-*/manifest.json")).read_text())
                lines.append({"licence": licence is not None, "n_docs": n_docs, "MB": round(mb), "CPU s": round(cpu, 1),
                              "peak MB": round(peak), "exchanged B per doc": round(exchanged / n_docs),
                              "MB per CPU-s": round(mb / cpu, 1), **manifest["fit_summary"]})  # fmt: skip
        show(self.console, "Growth, two workers", lines)
        plain, skewed = [x for x in lines if not x["licence"]], [x for x in lines if x["licence"]]
        return {
            "growth": lines,
            "growth_exponent": exponent(plain[1:], "CPU s"),
            "growth_exponent_memory": exponent(plain[1:], "peak MB"),
            "growth_exponent_licence": exponent(skewed, "CPU s"),
            "bytes_per_document": round(
                1e6
                * (plain[-1]["peak MB"] - plain[-2]["peak MB"])
                / (plain[-1]["n_docs"] - plain[-2]["n_docs"])
            ),
            "peak_mb": plain[-1]["peak MB"],
            "n_docs": plain[-1]["n_docs"],
        }


def exponent(lines: Sequence[dict[str, Any]], key: str) -> float:
    """The slope of log(key) over log(documents)."""
    x, y = (np.log([line[name] for line in lines]) for name in ("n_docs", key))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def show(console: Console, title: str, lines: Sequence[dict[str, Any]]) -> None:
    """Dictionaries of the same keys as a table."""
    table = Table(*lines[0], title=f"\n{title}", title_justify="left", box=None, header_style="bold")
    for line in lines:
        table.add_row(
            *(f"{value:,}" if isinstance(value, int | float) else str(value) for value in line.values())
        )
    console.print(table)


if __name__ == "__main__":
    main()
