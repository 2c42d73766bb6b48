"""torchtitan's contract, as its trainer uses it: python -m examples.torchtitan_loop

Its trainer takes ({"input", "positions"}, labels), flattened, out of a loader that its configuration builds,
and hands the loader to torch's distributed checkpoints as a part with a state.
"""

import tempfile
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from cuvee.streaming import StreamingLoader
from cuvee.streaming.adapters import TitanDataLoader
from examples.tiny import next_token_loss, seeded_model, token_shards

SEQUENCE_LENGTH = 64


def build(shards: dict[str, Path], dp_rank: int = 0, dp_world_size: int = 1) -> TitanDataLoader:
    return TitanDataLoader(
        StreamingLoader(
            shards,
            sequence_length=SEQUENCE_LENGTH,
            global_batch=8,
            packing="best_fit",
            emit=("input_ids", "labels", "position_ids"),
            rank=dp_rank,
            world_size=dp_world_size,
        )
    )


def train(shards: dict[str, Path], first: int, n_steps: int, checkpoint: Path) -> list[float]:
    """Train from step `first`, at which the checkpoint was left, until step n_steps; the losses."""
    loader, model = build(shards), seeded_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parts = {"model": model, "dataloader": loader}
    if first:
        dcp.load(parts, checkpoint_id=checkpoint)
    losses = []
    for _, (inputs, labels) in zip(range(first, n_steps), loader, strict=False):
        tokens, positions = (inputs[name].view(-1, SEQUENCE_LENGTH) for name in ("input", "positions"))
        loss = next_token_loss(model(tokens, positions), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    dcp.save(parts, checkpoint_id=checkpoint)
    loader.close()
    return losses


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = token_shards(folder / "tokens")
        undisturbed = train(shards, 0, 20, folder / "whole")
        parts = train(shards, 0, 10, folder / "parts") + train(shards, 10, 20, folder / "parts")
        print(f"resumed at step 10, the losses are the same: {parts == undisturbed}")


if __name__ == "__main__":
    main()
