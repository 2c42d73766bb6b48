"""What the examples share: token shards of nonsense in two domains, and a language model of a few thousand
parameters."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from cuvee.streaming.shards import domain_folder, write_manifest, write_token_shard

VOCAB_SIZE, EOS = 64, 0


def token_shards(root: Path, n_docs: int = 300) -> dict[str, Path]:
    """Two domains whose documents count upwards, by ones and by threes."""
    random, folders = np.random.default_rng(0), {}
    for stride, domain in ((1, "ones"), (3, "threes")):
        lengths = random.integers(5, 60, n_docs)
        documents = [[*(np.arange(n - 1) * stride % (VOCAB_SIZE - 1) + 1), EOS] for n in lengths]
        folders[domain] = domain_folder(root, domain)
        write_token_shard(
            folders[domain] / "train-00000.arrow",
            np.concatenate(documents),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.arange(n_docs, dtype=np.uint64),
            "uint16",
        )
        write_manifest(
            folders[domain], domain=domain, vocab_size=VOCAB_SIZE, tokenizer_hash="tiny", eos_id=EOS
        )
    return folders


class TinyModel(nn.Module):
    """One layer of causal attention that sees no other document of its row."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.tokens, self.out = nn.Embedding(VOCAB_SIZE, width), nn.Linear(width, VOCAB_SIZE)
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        x = self.tokens(input_ids)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        document = (position_ids == 0).cumsum(-1)
        allowed = (document[:, :, None] == document[:, None]).tril()
        return self.out(x + scaled_dot_product_attention(q, k, v, attn_mask=allowed))


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labels that are not masked."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten())


def seeded_model() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel()
