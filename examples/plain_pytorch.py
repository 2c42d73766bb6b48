"""A training loop that stops in the middle and goes on exactly: python -m examples.plain_pytorch"""

import json
import tempfile
from pathlib import Path

import torch

from cuvee.streaming import StreamingLoader
from examples.tiny import next_token_loss, seeded_model, token_shards


def make_loader(folder: Path) -> StreamingLoader:
    return StreamingLoader(
        token_shards(folder),
        {"ones": 0.25, "threes": 0.75},
        sequence_length=64,
        global_batch=8,
        packing="best_fit",
        emit=("input_ids", "labels", "position_ids", "domain_ids"),
    )


def train(folder: Path, n_steps: int, checkpoint: Path | None = None) -> list[float]:
    """Train until step n_steps, from the checkpoint if it exists, and leave one; the losses."""
    loader, model = make_loader(folder), seeded_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if checkpoint and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(json.loads(saved["loader"]))
    losses = []
    while loader.step < n_steps:
        batch = next(loader)
        loss = next_token_loss(model(batch.input_ids, batch.position_ids), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if checkpoint:
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**states, "loader": json.dumps(loader.state_dict())}, checkpoint)
    return losses


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        undisturbed = train(folder, 40)
        checkpoint = folder / "checkpoint.pt"
        resumed = train(folder, 15, checkpoint) + train(folder, 40, checkpoint)
        print(f"loss {undisturbed[0]:.3f} -> {undisturbed[-1]:.3f}")
        print(f"resumed at step 15, the losses are the same: {resumed == undisturbed}")


if __name__ == "__main__":
    main()
