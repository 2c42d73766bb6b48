"""Lightning saves and loads the loader's state by itself: python -m examples.lightning_trainer"""

import tempfile
from pathlib import Path

import lightning
import torch

from cuvee.streaming import Batch, StreamingLoader
from examples.tiny import next_token_loss, seeded_model, token_shards


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.losses = seeded_model(), []

    def training_step(self, batch: Batch) -> torch.Tensor:
        loss = next_token_loss(self.model(batch.input_ids, batch.position_ids), batch.labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def train(shards: dict[str, Path], max_steps: int, checkpoint: Path, resume: bool = False) -> list[float]:
    loader = StreamingLoader(
        shards,
        sequence_length=64,
        global_batch=8,
        emit=("input_ids", "labels", "position_ids"),
        steps=20,  # all of the run: Lightning takes one batch ahead, to know the last
    )
    trainer = lightning.Trainer(
        max_steps=max_steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = Module()
    trainer.fit(module, loader, ckpt_path=str(checkpoint) if resume else None, weights_only=False)
    trainer.save_checkpoint(checkpoint)
    return module.losses


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = token_shards(folder / "tokens")
        undisturbed = train(shards, 20, folder / "whole.ckpt")
        parts = train(shards, 10, folder / "parts.ckpt")
        parts += train(shards, 20, folder / "parts.ckpt", resume=True)
        print(f"resumed at step 10, the losses are the same: {parts == undisturbed}")


if __name__ == "__main__":
    main()
