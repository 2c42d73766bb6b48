"""Accelerate keeps the loader's state in its checkpoints: python -m examples.accelerate_loop"""

import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator

from cuvee.streaming import StreamingLoader
from examples.tiny import next_token_loss, seeded_model, token_shards


def train(shards: dict[str, Path], n_steps: int, checkpoint: Path) -> list[float]:
    """Train until step n_steps, from the checkpoint if it exists, and leave one; the losses."""
    accelerator = Accelerator(cpu=True)
    loader = StreamingLoader(
        shards,
        sequence_length=64,
        global_batch=8,
        emit=("input_ids", "labels", "position_ids"),
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    model = seeded_model()
    # Not the loader: prepared, it would be dealt out to the ranks a second time.
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    accelerator.register_for_checkpointing(loader)
    if checkpoint.exists():
        accelerator.load_state(str(checkpoint))
    losses = []
    while loader.step < n_steps:
        batch = next(loader).to(accelerator.device)
        loss = next_token_loss(model(batch.input_ids, batch.position_ids), batch.labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    accelerator.save_state(str(checkpoint))
    return losses


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = token_shards(folder / "tokens")
        undisturbed = train(shards, 20, folder / "whole")
        parts = train(shards, 10, folder / "parts") + train(shards, 20, folder / "parts")
        print(f"resumed at step 10, the losses are the same: {parts == undisturbed}")


if __name__ == "__main__":
    main()
