import importlib
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from cuvee.streaming import StreamingLoader
from cuvee.streaming.adapters import TitanDataLoader, iterable_dataset
from cuvee.streaming.warm_up import kernels

EMIT = ("input_ids", "labels", "position_ids")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def loaded_kernels() -> None:
    """A thread that loads them meanwhile would put warnings' filters back as they were when it began."""
    kernels.done(wait=True)


@pytest.fixture
def sources(write_stream):
    return {name: write_stream(name, 200, first=10_000 * k) for k, name in enumerate(["code", "web"])}


def loader(sources, **options) -> StreamingLoader:
    return StreamingLoader(sources, **{"sequence_length": 8, "global_batch": 4, "emit": EMIT, **options})


@pytest.fixture
def example(monkeypatch):
    """Imports an example; one whose library is not installed is skipped, and names it."""

    def load(name: str, library: str | None = None):
        if library is not None:
            pytest.importorskip(library)
        monkeypatch.syspath_prepend(ROOT)
        return importlib.import_module(f"examples.{name}")

    return load


def test_torchs_dataloader_hands_on_whole_batches_and_refuses_workers(sources) -> None:
    expected = list(itertools.islice(loader(sources), 5))
    wrapped = DataLoader(iterable_dataset(loader(sources)), batch_size=None)
    for batch, ours in zip(wrapped, expected, strict=False):
        assert set(batch) == set(EMIT)
        assert torch.equal(batch["input_ids"], ours.input_ids)
    several = DataLoader(
        iterable_dataset(loader(sources)), batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    with pytest.raises(ValueError, match="num_workers: every DataLoader worker would give all batches"):
        next(iter(several))


@pytest.mark.filterwarnings("ignore")
def test_a_stateful_dataloader_resumes_where_it_was(sources) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    expected = [batch.input_ids for batch in itertools.islice(loader(sources), 9)]
    running = stateful(iterable_dataset(loader(sources)), batch_size=None)
    batches = iter(running)
    for _ in range(4):
        next(batches)
    resumed = stateful(iterable_dataset(loader(sources)), batch_size=None)
    resumed.load_state_dict(running.state_dict())
    for batch, ours in zip(resumed, expected[4:], strict=False):
        assert torch.equal(batch["input_ids"], ours)


def test_torchtitan_gets_flat_rows_and_one_state_for_all_ranks(sources) -> None:
    whole = iter(TitanDataLoader(loader(sources)))
    ranks = [TitanDataLoader(loader(sources, rank=rank, world_size=2)) for rank in range(2)]
    batches = [iter(rank) for rank in ranks]
    for _ in range(3):
        inputs, labels = next(whole)
        parts = [next(batch) for batch in batches]
        assert inputs["input"].shape == inputs["positions"].shape == labels.shape == (32,)
        for name in ("input", "positions"):
            assert torch.equal(torch.cat([part[0][name] for part in parts]), inputs[name])
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
    (state,) = {json.dumps(rank.state_dict()) for rank in ranks}
    alone = TitanDataLoader(loader(sources))
    alone.load_state_dict({})
    alone.load_state_dict(json.loads(state))
    assert torch.equal(next(iter(alone))[0]["input"], next(whole)[0]["input"])
    alone.close()
    with pytest.raises(ValueError, match="torchtitan needs positions: give StreamingLoader emit"):
        TitanDataLoader(loader(sources, emit=("input_ids", "labels")))


def test_the_plain_loop_resumes_to_the_same_losses(example, tmp_path: Path) -> None:
    train = example("plain_pytorch").train
    undisturbed = train(tmp_path, 12)
    checkpoint = tmp_path / "checkpoint.pt"
    assert train(tmp_path, 5, checkpoint) + train(tmp_path, 12, checkpoint) == undisturbed
    assert undisturbed[-1] < undisturbed[0]


def test_two_ddp_processes_train_as_one(example, monkeypatch) -> None:
    final_parameters = example("ddp").final_parameters
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    alone, together = final_parameters({6: 1}), final_parameters({3: 2, 6: 1})
    # Gradients are summed in another order: some units in the last place of float32, over six steps.
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("hf_trainer", "transformers"),
        ("accelerate_loop", "accelerate"),
        ("lightning_trainer", "lightning"),
        ("stateful_dataloader", "torchdata"),
        ("torchtitan_loop", None),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_trainer_resumes_to_the_same_losses(
    example, name: str, library: str | None, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    example(name, library).main()
    assert "the losses are the same: True" in capsys.readouterr().out
