"""torch's DataLoader around the loader, whose state it keeps: python -m examples.stateful_dataloader"""

import tempfile
from pathlib import Path

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from cuvee.streaming import StreamingLoader
from cuvee.streaming.adapters import iterable_dataset
from examples.tiny import next_token_loss, seeded_model, token_shards


def train(shards: dict[str, Path], first: int, n_steps: int, checkpoint: Path) -> list[float]:
    """Train from step `first`, at which the checkpoint was left, until step n_steps; the losses."""
    loader = StreamingLoader(
        shards,
        sequence_length=64,
        global_batch=8,
        emit=("input_ids", "labels", "position_ids"),
        steps=n_steps,
    )
    # Its own processes would give all batches each: StreamingLoader's prefetch and workers do their work.
    batches = StatefulDataLoader(iterable_dataset(loader), batch_size=None, num_workers=0)
    model = seeded_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if first:
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        batches.load_state_dict(saved["batches"])
    losses = []
    for batch in batches:
        loss = next_token_loss(model(batch["input_ids"], batch["position_ids"]), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.save({"model": model.state_dict(), "batches": batches.state_dict()}, checkpoint)
    return losses


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = token_shards(folder / "tokens")
        undisturbed = train(shards, 0, 20, folder / "whole.pt")
        parts = train(shards, 0, 10, folder / "parts.pt") + train(shards, 10, 20, folder / "parts.pt")
        print(f"resumed at step 10, the losses are the same: {parts == undisturbed}")


if __name__ == "__main__":
    main()
