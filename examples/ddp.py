"""Two processes over gloo train as one does, and a third run resumes their state: python -m examples.ddp"""

import json
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from cuvee.streaming import StreamingLoader
from examples.tiny import next_token_loss, seeded_model, token_shards


def train(rank: int, world_size: int, folder: Path, n_steps: int) -> None:
    """Train until step n_steps, going on from the folder's state at whatever world size that was saved."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    dist.init_process_group("gloo", f"file://{folder}/rendezvous-{n_steps}", rank=rank, world_size=world_size)
    loader = StreamingLoader(
        {name: folder / name for name in ("ones", "threes")},
        sequence_length=64,
        global_batch=8,
        emit=("input_ids", "labels", "position_ids", "row_ids"),
        mask_boundaries=False,  # so that every rank's mean is over equally many labels
        rank=rank,
        world_size=world_size,
    )
    module = seeded_model()
    state = folder / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        module.load_state_dict(saved["model"])
        loader.load_state_dict(json.loads(saved["loader"]))
    model = DistributedDataParallel(module)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    while loader.step < n_steps:
        batch = next(loader)
        optimizer.zero_grad()
        next_token_loss(model(batch.input_ids, batch.position_ids), batch.labels).backward()
        optimizer.step()
    if rank == 0:
        torch.save({"model": module.state_dict(), "loader": json.dumps(loader.state_dict())}, state)
    dist.destroy_process_group()


def final_parameters(worlds: dict[int, int]) -> torch.Tensor:
    """Parameters after runs of {until step: world size}, one going on where the last one stopped."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        token_shards(folder)
        for n_steps, world_size in worlds.items():
            if world_size == 1:
                train(0, 1, folder, n_steps)
            else:
                mp.spawn(train, (world_size, folder, n_steps), nprocs=world_size)
        saved = torch.load(folder / "state.pt", weights_only=True)["model"]
        return torch.cat([parameter.flatten() for parameter in saved.values()])


def main() -> None:
    alone, together = final_parameters({20: 1}), final_parameters({9: 2, 20: 1})
    print(f"largest difference of a parameter: {(alone - together).abs().max():.1e}")


if __name__ == "__main__":
    main()
