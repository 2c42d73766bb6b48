"""What selecting costs beside a training step of a proxy of the default size: see coreset.py."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from cuvee.proxy_models.features import ProxyModel
from cuvee.proxy_models.training import TrainingConfig
from cuvee.proxy_models.transformer import ModelShape
from cuvee.streaming import StreamingLoader
from cuvee.streaming.features import FeatureExtractor
from cuvee.streaming.selectors import load_selector

from .online_feedback import write_stream
from .online_training import Proxy, Setting

N_DOMAINS, N_UNTIMED = 11, 5


def share_of_a_step(
    methods: dict[str, dict[str, Any]], factor: int, width: int, n_steps: int = 25
) -> dict[str, dict[str, float]]:
    """By method, CPU ms (medians of steps) of training on a batch, of scoring its candidates and of `select`.

    A proxy of ModelShape's and TrainingConfig's defaults: 368,960 parameters, 4 rows of 128 tokens a step,
    out of `factor` times as many. Scoring is forward passes; reference losses are stored beforehand.
    """
    torch.set_num_threads(1)
    shape = ModelShape(vocab_size=2048)
    setting = Setting(batch_rows=TrainingConfig().batch_tokens // shape.sequence_length, shape=shape)
    with tempfile.TemporaryDirectory() as folder:
        sources = {f"d{k:02d}": write_stream(Path(folder), f"d{k:02d}") for k in range(N_DOMAINS)}
        return {
            method: _of_method(sources, setting, method, parameters, factor, width, n_steps)
            for method, parameters in methods.items()
        }


def _of_method(
    sources: dict[str, Path],
    setting: Setting,
    method: str,
    parameters: dict[str, Any],
    factor: int,
    width: int,
    n_steps: int,
) -> dict[str, float]:
    proxy, needs = Proxy(setting, 0), load_selector(method, **parameters).needs
    kind: Any = "head_gradients" if "features" in needs else "none"
    extract = FeatureExtractor(ProxyModel(proxy.model), kind, n_dimensions=width)
    loader = StreamingLoader(
        sources,
        sequence_length=setting.shape.sequence_length,
        global_batch=setting.batch_rows,
        mask_boundaries=False,
        emit=("input_ids", "labels", "domain_ids", "row_ids", "weights"),
        prefetch=0,
    )
    times: list[tuple[int, int, int]] = []
    for _, candidates in zip(
        range(N_UNTIMED + n_steps), loader.superbatches(factor, method, **parameters), strict=False
    ):
        clock, given = [time.process_time_ns()], dict[str, Any]()
        if needs:
            losses, features = extract(candidates.batch.input_ids, candidates.batch.labels)
            found = {"losses": losses, "reference_losses": losses * 0.9, "features": features}
            given = {"scores" if name == "losses" else name: found[name] for name in needs & found.keys()}
        clock.append(time.process_time_ns())
        batch = candidates.select(**given)
        clock.append(time.process_time_ns())
        proxy.update(batch, batch.weights)
        clock.append(time.process_time_ns())
        times.append((clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2]))
    score, select, step = (statistics.median(column) / 1e6 for column in zip(*times[N_UNTIMED:], strict=True))
    return {"step_ms": step, "score_ms": score, "select_ms": select, "share": select / step}
