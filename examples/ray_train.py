"""Two workers of Ray Train fail and go on from their checkpoint, exactly: python -m examples.ray_train"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train as ray_train
from ray.train.torch import TorchTrainer, prepare_model

from cuvee.streaming import StreamingLoader
from examples.tiny import next_token_loss, seeded_model, token_shards

EMIT = ("input_ids", "labels", "position_ids")
SAVE_EVERY = 5


def make_loader(shards: dict[str, Path], rank: int, world_size: int) -> StreamingLoader:
    return StreamingLoader(
        shards,
        sequence_length=64,
        global_batch=8,
        emit=EMIT,
        mask_boundaries=False,  # so that every rank's mean is over equally many labels
        rank=rank,
        world_size=world_size,
    )


def digest(parts: list[torch.Tensor]) -> str:
    """Of the global batch that these parts of ranks make up."""
    return hashlib.blake2b(torch.cat(parts).numpy().tobytes(), digest_size=8).hexdigest()


def on_all_ranks(part: torch.Tensor) -> list[torch.Tensor]:
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return parts


def train_worker(config: dict[str, Any]) -> None:
    """One rank's loop, on from Ray's checkpoint if there is one; a report every SAVE_EVERY steps."""
    context = ray_train.get_context()
    loader = make_loader(config["shards"], context.get_world_rank(), context.get_world_size())
    module, digests = seeded_model(), []
    if (checkpoint := ray_train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder) / "state.pt", weights_only=True)
        module.load_state_dict(saved["model"])
        loader.load_state_dict(json.loads(saved["loader"]))
        digests = saved["digests"]
    model = prepare_model(module)  # the loader needs no preparing: each rank has its own rows
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    while loader.step < config["n_steps"]:
        if loader.step == config["fail_at"] and checkpoint is None:
            raise RuntimeError("this worker fails once")
        batch = next(loader)
        digests.append(digest(on_all_ranks(batch.input_ids)))
        optimizer.zero_grad()
        next_token_loss(model(batch.input_ids, batch.position_ids), batch.labels).backward()
        optimizer.step()
        if loader.step % SAVE_EVERY == 0:
            report(module, loader, digests, is_first=context.get_world_rank() == 0)


def report(module: torch.nn.Module, loader: StreamingLoader, digests: list[str], *, is_first: bool) -> None:
    """All ranks report, the first with a checkpoint: the loader's state is the same on all of them."""
    metrics = {"step": loader.step, "digests": digests}
    if not is_first:
        ray_train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        saved = {"model": module.state_dict(), "loader": json.dumps(loader.state_dict()), "digests": digests}
        torch.save(saved, Path(folder) / "state.pt")
        ray_train.report(metrics, checkpoint=ray_train.Checkpoint.from_directory(folder))


def train(shards: dict[str, Path], storage: Path, n_steps: int, fail_at: int | None = None) -> dict[str, Any]:
    """What a run on Ray's cluster ends with: the parameters, and a digest of each global batch."""
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"shards": shards, "n_steps": n_steps, "fail_at": fail_at},
        scaling_config=ray_train.ScalingConfig(num_workers=2, use_gpu=False),
        run_config=ray_train.RunConfig(
            name="tiny",
            storage_path=str(storage),
            failure_config=ray_train.FailureConfig(max_failures=0 if fail_at is None else 1),
        ),
    )
    with trainer.fit().checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / "state.pt", weights_only=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = token_shards(folder / "tokens")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            trained = train(shards, folder / "runs", 20, fail_at=12)
        finally:
            ray.shutdown()
        undisturbed = make_loader(shards, rank=0, world_size=1)
        expected = [digest([next(undisturbed).input_ids]) for _ in range(20)]
        print(
            f"failed at step 12, resumed from step 10, the batches are the same: "
            f"{trained['digests'] == expected}"
        )


if __name__ == "__main__":
    main()
