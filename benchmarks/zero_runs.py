"""Tokens of a corpus and proxies trained on them, kept below build/: a second run trains nothing.

    python -m benchmarks.zero_runs [--corpus FOLDER] [--quick] [--width 64] [--part 0 --parts 2]

trains what `benchmarks.zero` needs first; several parts can be trained at a time. Files are named by a hash
of all that they depend on.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: times are those of one core

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import yaml  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from cuvee.mixing.design import sample_design  # noqa: E402
from cuvee.pipeline.plan import digest  # noqa: E402
from cuvee.pipeline.proxy_work import TrainingTask, read_results, run_training  # noqa: E402
from cuvee.proxy_models.training import TrainingConfig  # noqa: E402
from cuvee.proxy_models.transformer import ModelShape  # noqa: E402
from cuvee.streaming.shards import TokenStore, domain_folder  # noqa: E402

Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "dev"
VOCAB_SIZE = 2048
VALIDATION_TOKENS = 16_384  # of each domain; they are noise that all mixtures share
GROUP = 4  # models trained side by side


@dataclass(frozen=True)
class Plan:
    """How much is trained.

    Attributes:
        n_mixtures, n_tokens: of the proxies that rank and search.
        race_tokens, race_seeds: of the models that decide between found mixtures.
        width: d_model of all of them; 64 makes 0.37 M parameters, 32 0.16 M.
    """

    n_mixtures: int = 32
    n_tokens: int = 700_000
    race_tokens: int = 700_000
    race_seeds: tuple[int, ...] = (1, 2, 3)
    width: int = 64

    @property
    def shape(self) -> ModelShape:
        return ModelShape(VOCAB_SIZE, d_model=self.width, d_ff=3 * self.width)


QUICK = Plan(12, 60_000, 60_000, (1, 2))


@dataclass(frozen=True)
class Corpus:
    """Token shards by domain."""

    tokens: Path
    domains: tuple[str, ...]

    @property
    def folders(self) -> dict[str, Path]:
        return {domain: domain_folder(self.tokens, domain) for domain in self.domains}

    @property
    def natural(self) -> Floats:
        """Each domain's share of the training tokens."""
        n = np.array([TokenStore(folder, "train").n_tokens for folder in self.folders.values()])
        return np.asarray(n / n.sum())


def tokenised(corpus: Path) -> Corpus:
    """The corpus without exact duplicates, 5 % of its documents held out, as tokens of a BPE of 2,048."""
    domains = tuple(sorted(path.name for path in corpus.iterdir() if path.is_dir()))
    sizes = {str(path): path.stat().st_size for path in sorted(corpus.glob("*/*"))}
    recipe = {
        "inputs": [{"source": name, "path": f"{corpus}/{name}/*"} for name in domains],
        "curate": ["exact_dedup"],
        "tokenize": {"vocab_size": VOCAB_SIZE, "max_training_bytes": "8MB", "validation_fraction": 0.05},
    }
    folder = ROOT / "build" / "zero" / f"tokens-{digest([recipe, sizes])}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
        command = [Path(sys.executable).parent / "cuvee", "run", folder / "recipe.yaml"]
        subprocess.run([*command, "--run-dir", folder / "run", "--workers", "1"], check=True)
        (folder / "done").touch()
    return Corpus(folder / "run" / "tokens", domains)


def trained(
    corpus: Corpus, mixtures: Floats, n_tokens: int, seeds: Sequence[int], shape: ModelShape
) -> tuple[pa.Table, float]:
    """Rows of losses, one for each mixture and seed, and the CPU seconds that training them took."""
    groups = training_groups(corpus, mixtures, n_tokens, seeds, shape)
    seconds = sum(map(train_group, groups))
    return read_results([group.result for group in groups]), seconds


def training_groups(
    corpus: Corpus, mixtures: Floats, n_tokens: int, seeds: Sequence[int], shape: ModelShape
) -> list[TrainingTask]:
    """Mixtures and seeds in groups, each with the file that keeps its losses."""
    config = TrainingConfig(n_tokens, device="cpu")
    folder = ROOT / "build" / "zero" / "proxies"
    groups = []
    for start in range(0, len(mixtures), GROUP):
        part = tuple(tuple(row) for row in mixtures[start : start + GROUP].round(9).tolist())
        of_part = tuple(seeds[start : start + GROUP])
        key = digest(
            [str(corpus.tokens.parent.parent.name), corpus.domains, part, of_part, vars(config), vars(shape)]
        )
        groups.append(
            TrainingTask(
                corpus.tokens,
                corpus.domains,
                tuple(f"{start + i}" for i in range(len(part))),
                part,
                of_part,
                shape,
                config,
                VALIDATION_TOKENS,
                folder / f"{key}.parquet",
            )
        )
    return groups


def train_group(group: TrainingTask) -> float:
    """Train what is not kept yet; the CPU seconds it took, now or then."""
    took = group.result.with_suffix(".seconds")
    if not took.exists():
        took.parent.mkdir(parents=True, exist_ok=True)
        begun = time.process_time()
        run_training(group)
        took.write_text(str(time.process_time() - begun), "utf-8")
    return float(took.read_text("utf-8"))


def ranking_design(corpus: Corpus, plan: Plan) -> Floats:
    """The mixtures on which fidelity zero is judged, and from which both searches learn."""
    return sample_design(corpus.natural, plan.n_mixtures, seed=0)


def main() -> None:
    """Train the proxies of `benchmarks.zero`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--width", type=int, default=64, help="of the proxies (default: 64)")
    parser.add_argument("--part", type=int, default=0, help="which groups: PART, PART + PARTS, ...")
    parser.add_argument("--parts", type=int, default=1)
    arguments = parser.parse_args()
    plan = replace(QUICK if arguments.quick else Plan(), width=arguments.width)
    corpus = tokenised(arguments.corpus)
    design = ranking_design(corpus, plan)
    groups = training_groups(corpus, design, plan.n_tokens, [0] * len(design), plan.shape)
    for group in groups[arguments.part :: arguments.parts]:
        seconds = train_group(group)
        print(f"proxies {', '.join(group.names)}: {seconds:.0f} CPU-s", flush=True)


if __name__ == "__main__":
    main()
