"""The loader in other libraries' contracts: torch's DataLoader, torchtitan, Hugging Face's Trainer.

A trainer that takes any iterable of batches needs none of these: the loader is one, with `state_dict` and
`load_state_dict` (Lightning saves such a loader's state by itself; for Accelerate, register the loader with
`accelerator.register_for_checkpointing` and do not `prepare` it, for it gives each rank its own rows).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .batch import Batch
from .loader import StreamingLoader

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import IterableDataset

STATE_FILE = "cuvee_loader.json"


def iterable_dataset(loader: StreamingLoader) -> "IterableDataset[dict[str, Any]]":
    """A torch dataset of whole batches: `DataLoader(iterable_dataset(loader), batch_size=None)`.

    torchdata's `StatefulDataLoader` finds its state. Batches are made in the process that asks, so
    num_workers must be 0: the loader's own `prefetch` and `workers` do what they would, and give no batch
    twice.
    """
    from torch.utils.data import IterableDataset, get_worker_info

    class Batches(IterableDataset[dict[str, Any]]):
        """Batches as dictionaries, which torch's collation, pinning and moving know."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            if get_worker_info() is not None:
                raise ValueError(
                    "num_workers: every DataLoader worker would give all batches; set it to 0 and give "
                    "StreamingLoader prefetch or workers instead"
                )
            for batch in loader:
                yield {**batch}

        def state_dict(self) -> dict[str, Any]:
            return loader.state_dict()

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            loader.load_state_dict(state)

    return Batches()


class TitanDataLoader:
    """The loader as torchtitan's trainer takes it: flattened rows with positions, and their labels.

    Its state is equal on all ranks, so any number of ranks loads it. (torchtitan's own keeps one for each and
    refuses another number.)

    Args:
        loader: made with `emit` of "position_ids" too, rank and world_size those of data parallelism.
    Raises:
        ValueError: batches have no position_ids.
    """

    def __init__(self, loader: StreamingLoader) -> None:
        if "position_ids" not in loader.emit:
            raise ValueError("torchtitan needs positions: give StreamingLoader emit with 'position_ids'")
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[dict[str, "Tensor"], "Tensor"]]:
        for batch in self._loader:
            yield self._as_titan(batch)

    def state_dict(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:  # torchtitan loads an empty one when its checkpoint has none
            self._loader.load_state_dict(state)

    def close(self) -> None:
        self._loader.close()

    @staticmethod
    def _as_titan(batch: Batch) -> tuple[dict[str, "Tensor"], "Tensor"]:
        inputs = {"input": batch.input_ids.flatten(), "positions": batch.position_ids.flatten()}
        return inputs, batch.labels.flatten()


class TrainerBatches:
    """What `Trainer.get_train_dataloader` returns: the loader's batches as dictionaries, each rank's its own.

    Without `row_ids` and the like, which models would not take. Labels are shifted already: give the Trainer
    a `compute_loss_func`.
    """

    def __init__(self, loader: StreamingLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[dict[str, "Tensor"]]:
        names = [name for name in ("input_ids", "labels", "position_ids") if name in self._loader.emit]
        for batch in self._loader:
            yield {name: batch[name] for name in names}


def trainer_callback(loader: StreamingLoader) -> Any:
    """A `transformers.TrainerCallback` that keeps the loader's state in the Trainer's checkpoints.

    Saving writes checkpoint-N/cuvee_loader.json; resuming from checkpoint-N loads it before the first batch.
    Use it with `TrainerBatches`, from which nothing is taken ahead, and with `ignore_data_skip=True`: the
    loader is where it was, and nothing has to be passed over.

    Raises (when a checkpoint is resumed):
        ValueError: the checkpoint has no loader's state, or one that this loader refuses.
    """
    from transformers import TrainerCallback

    def path(arguments: Any, state: Any) -> Path:
        return Path(arguments.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE

    class LoaderState(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            saved = loader.state_dict()  # on every rank: with a policy they add up what they were told
            if state.is_world_process_zero:
                path(args, state).parent.mkdir(parents=True, exist_ok=True)
                path(args, state).write_text(json.dumps(saved))

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                return
            if not path(args, state).exists():
                raise ValueError(
                    f"{path(args, state)}: not there; the loader's place is lost, begin a new run"
                )
            loader.load_state_dict(json.loads(path(args, state).read_text()))

    return LoaderState()
