"""Hugging Face's Trainer, stopped and resumed exactly: python -m examples.hf_trainer"""

import tempfile
from pathlib import Path

from transformers import Trainer, TrainingArguments

from cuvee.streaming import StreamingLoader
from cuvee.streaming.adapters import TrainerBatches, trainer_callback
from examples.tiny import TinyModel, next_token_loss, seeded_model, token_shards


class Wrapped(TinyModel):
    """The Trainer takes models that return dictionaries."""

    def forward(self, input_ids, position_ids):
        return {"logits": super().forward(input_ids, position_ids)}


class StreamingTrainer(Trainer):
    """Takes its batches from `train_dataset`, a StreamingLoader, which gives each rank its own."""

    def get_train_dataloader(self) -> TrainerBatches:
        return TrainerBatches(self.train_dataset)


def train(shards: dict[str, Path], output: Path, max_steps: int, resume: bool = False) -> list[float]:
    loader = StreamingLoader(
        shards, sequence_length=64, global_batch=8, emit=("input_ids", "labels", "position_ids")
    )
    arguments = TrainingArguments(
        str(output), max_steps=max_steps, save_steps=10, logging_steps=1, learning_rate=1e-2,
        lr_scheduler_type="constant", report_to=[], ignore_data_skip=True, remove_unused_columns=False,
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = seeded_model()
    model.__class__ = Wrapped
    trainer = StreamingTrainer(
        model,
        arguments,
        train_dataset=loader,
        compute_loss_func=lambda outputs, labels, **_: next_token_loss(outputs["logits"], labels),
        callbacks=[trainer_callback(loader)],
    )
    trainer.train(resume_from_checkpoint=resume)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = token_shards(folder / "tokens")
        undisturbed = train(shards, folder / "whole", 20)
        train(shards, folder / "parts", 10)
        resumed = train(shards, folder / "parts", 20, resume=True)
        print(f"resumed at step 10, the losses are the same: {resumed == undisturbed}")


if __name__ == "__main__":
    main()
