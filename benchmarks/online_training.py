"""Real training at the scale of minutes: the dev corpus as tokens, a tiny transformer, its held-out losses.

What benchmarks of the loader's choices (online weights, selected batches) train with: equal tokens, equal
initial weights and orders of documents for each seed, so that differences are paired. Held-out losses are
means over fixed rows of each domain, and over domains either with their natural weights or alike.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: CPU seconds are those of one core

import time  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.stats import t as student  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from cuvee.pipeline.proxy_work import keep_freed_memory  # noqa: E402
from cuvee.pipeline.recipe import load_recipe  # noqa: E402
from cuvee.pipeline.run import run  # noqa: E402
from cuvee.proxy_models.proxies import validation_rows  # noqa: E402
from cuvee.proxy_models.training import TrainingConfig, clip_each_model  # noqa: E402
from cuvee.proxy_models.transformer import IGNORED_LABEL, GroupedTransformer, ModelShape  # noqa: E402
from cuvee.streaming import Batch, StreamingLoader, TokenStore  # noqa: E402
from cuvee.streaming.online import OnlineMixing  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "dev"
N_VALIDATION_ROWS = 64  # of each domain


@dataclass(frozen=True)
class Setting:
    """How long and how large; the defaults train in some six CPU seconds."""

    n_steps: int = 300
    batch_rows: int = 8
    learning_rate: float = 8e-3
    shape: ModelShape = field(
        default_factory=lambda: ModelShape(
            vocab_size=2048, sequence_length=64, n_layers=2, d_model=32, n_heads=2, d_ff=96
        )
    )

    @property
    def config(self) -> TrainingConfig:
        """The learning rate's course and the clipping that proxies have."""
        batch_tokens = self.batch_rows * self.shape.sequence_length
        return TrainingConfig(self.n_steps * batch_tokens, batch_tokens, learning_rate=self.learning_rate)


class Proxy:
    """One model in training, its rows' losses apart."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.n_updates = setting, 0
        self.model = GroupedTransformer(setting.shape, [seed])
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

    def logits(self, batch: Batch) -> Tensor:
        """float32, (rows, sequence_length, vocab_size)."""
        logits: Tensor = self.model(batch.input_ids[None])[0]
        return logits

    def row_losses(self, batch: Batch, logits: Tensor | None = None) -> Tensor:
        """Mean loss of each row's labels, nats: float32, (rows,)."""
        logits = self.logits(batch) if logits is None else logits
        per_token = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
        ).view(batch.labels.shape)
        counts = (batch.labels != IGNORED_LABEL).sum(1).clamp(min=1)
        losses: Tensor = per_token.sum(1) / counts
        return losses

    def update(self, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """One step on a batch; its rows' losses before it.

        Args:
            weights: (rows,), mean one; the rows' importance.
        """
        self.n_updates += 1
        losses = self.row_losses(batch)
        loss = (losses if weights is None else losses * weights).mean()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        clip_each_model(self.model, self.setting.config.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self.setting.config.learning_rate_at(self.n_updates)
        self._optimizer.step()
        return losses.detach()


Batches = Callable[[Proxy, StreamingLoader], Iterator[Batch]]


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    losses: NDArray[np.float64]  # (n_domains,), held-out, nats per token
    weights: dict[str, float]  # shares of the rows trained on
    cpu_seconds: float  # of training, without evaluation


@dataclass(frozen=True)
class Corpus:
    """Token shards by domain, and the rows that are held out."""

    sources: Mapping[str, Path]
    natural: dict[str, float]
    held_out: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def uniform(self) -> dict[str, float]:
        return dict.fromkeys(self.sources, 1 / len(self.sources))


def prepare(corpus: Path, folder: Path, setting: Setting) -> Corpus:
    """The corpus as token shards below `folder`; made once."""
    domains = sorted(path.name for path in corpus.iterdir() if path.is_dir())
    recipe = folder / "online.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    inputs = "\n".join(f"  - {{source: {name}, path: '{corpus / name}/*.jsonl.zst'}}" for name in domains)
    recipe.write_text(
        f"inputs:\n{inputs}\ncurate: [exact_dedup]\n"
        f"tokenize: {{vocab_size: {setting.shape.vocab_size}, validation_fraction: 0.1}}\n"
    )
    tokens = run(load_recipe(recipe), folder / "run").run_dir / "tokens"
    sources = {store.domain: store.folder for store in map(TokenStore, sorted(tokens.glob("*/")))}
    sizes = {name: TokenStore(source).n_tokens for name, source in sources.items()}
    natural = {name: size / sum(sizes.values()) for name, size in sizes.items()}
    length = setting.shape.sequence_length
    held_out = {name: validation_rows(source, length, N_VALIDATION_ROWS) for name, source in sources.items()}
    return Corpus(sources, natural, held_out)


def train(
    corpus: Corpus,
    setting: Setting,
    seed: int,
    weights: Mapping[str, float] | None = None,
    *,
    policy: OnlineMixing | None = None,
    batches: Batches | None = None,
    loader_rows: int | None = None,
) -> Trained:
    """Train one model and measure it.

    Args:
        weights: of the mixture, a policy's prior; the natural ones by default.
        policy: of online weights, which is told each step's losses.
        batches: makes the batches to train on out of the loader's, such as selected ones; they end the
            training at n_steps.
        loader_rows: of the loader's batches, where they are not those trained on.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    loader = StreamingLoader(
        corpus.sources,
        weights or corpus.natural,
        sequence_length=setting.shape.sequence_length,
        global_batch=loader_rows or setting.batch_rows,
        mask_boundaries=False,
        emit=("input_ids", "labels", "domain_ids", "row_ids", "weights"),
        seed=seed,
        policy=policy,
    )
    proxy, drawn = Proxy(setting, seed), np.zeros(len(loader.domains))
    begin = time.process_time()
    source = iter(loader) if batches is None else batches(proxy, loader)
    for _ in range(setting.n_steps):
        batch = next(source)
        losses = proxy.update(batch, batch.weights)
        if policy is not None:
            loader.feedback(batch, loss_per_row=losses)
        drawn += np.bincount(batch.domain_ids.numpy(), minlength=drawn.size)
    spent = time.process_time() - begin
    found = evaluate(proxy, corpus)
    return Trained(found, dict(zip(loader.domains, (drawn / drawn.sum()).tolist(), strict=True)), spent)


def evaluate(proxy: Proxy, corpus: Corpus) -> NDArray[np.float64]:
    """Held-out losses by domain: float64, (n_domains,), nats per token."""
    means = []
    with torch.inference_mode():
        for inputs, labels in corpus.held_out.values():
            means.append(float(proxy.row_losses(Batch(0, inputs, labels)).double().mean()))
    return np.array(means)


def objectives(losses: NDArray[np.float64], corpus: Corpus) -> dict[str, float]:
    """Means over the domains: by natural weights, and all alike."""
    natural = np.array([corpus.natural[name] for name in corpus.sources])
    return {"natural": float(natural @ losses), "uniform": float(losses.mean())}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval, by Student's t.

    >>> [round(value, 3) for value in interval([1.0, 2.0, 3.0])]
    [2.0, 2.484]
    """
    n = len(values)
    if n < 2:
        return float(values[0]), math.inf
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(np.mean(values)), float(student.ppf(0.975, n - 1)) * error
