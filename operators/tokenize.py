"""Text to token ids: a byte-level BPE trained on the curated corpus itself, or any `tokenizer.json`."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .base import FitMap, set_columns

END_OF_TEXT = "<|endoftext|>"
TRAIN, VALIDATION = "train", "validation"
REPEAT = "rehydrate.repeat"
MAX_REPEAT = 100
"""A larger weight is a mistake: FineWeb2's largest is 10."""
FLOOR, FLOOR_OF = 4, 16
"""A domain holds out at least so many of its first so many documents."""


class Tokenize(FitMap):
    """Cut text into token ids with byte-level BPE, and hold out a validation split of each domain.

    The vocabulary is learned from a sample of the training documents: those of the smallest hash of
    (seed, id), so the sample is uniform, the same in any sharding, and no validation document is in it. Of a
    document longer than a 16th of the sample only the beginning is taken.
    Every byte is in the vocabulary: there is no unknown token. Each document ends with the end-of-text
    token.

    A document goes to validation if the hash of its id falls below `validation_fraction`, so it stays there
    whatever else joins the corpus. In a small domain that may be nobody; then the smallest hashes go: one
    document of two or more, two of eight, four of sixteen.

    `repeat` names a column that says how often an epoch reads a document for training, such as
    `rehydrate` writes. Of a weight of 2.3 a hash of (seed, id) makes 2 or 3, so that it is 2.3 in the mean; a
    document of no weight counts once, one that comes to 0 leaves the training split, and validation holds
    each document once. Nothing is copied: a shard's name says how often it is read.

    Source: Sennrich, Haddow and Birch 2016 (BPE); Radford et al. 2019, section 2.2 (byte level).
    """

    name: ClassVar[str] = "tokenize"
    reads: ClassVar[tuple[str, ...]] = ("id", "text", "domain")
    writes: ClassVar[tuple[str, ...]] = ("doc", "split", "repeat", "tokens")

    vocab_size: int = Field(
        4096, ge=257, le=1 << 24, description="entries, 256 bytes and end-of-text included"
    )
    tokenizer: str | None = Field(None, description="a tokenizer.json to use instead of training one")
    tokenizer_sha256: str | None = Field(
        None, description="hash of that file, filled in when the recipe is read"
    )
    max_training_bytes: int = Field(
        20_000_000, ge=1, description="UTF-8 bytes of text that the BPE learns from"
    )
    repeat: str | None = Field(
        REPEAT, description="column with how often to train on a document; where there is none: once"
    )
    validation_fraction: float = Field(0.05, ge=0, lt=1, description="expected share of documents held out")
    seed: int = Field(0, description="of the hash that samples and splits")

    def observe(self, table: pa.Table) -> pa.Table:
        """(key uint64, domain string, text large_string or null): candidates for the sample with their text,
        and each domain's smallest keys without."""
        keys = self._keys(table["id"])
        text = _cut(table["text"], max(1, self.max_training_bytes // 16))
        documents = pa.table({"key": keys, "domain": table["domain"], "text": text})
        sampled = documents.filter(pa.array((keys >= self._cut) & (self.tokenizer is None)))
        smallest = documents.set_column(2, "text", pa.nulls(len(documents), pa.large_string()))
        return self.merge([sampled, smallest])

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The texts of the smallest keys up to `max_training_bytes` and the one beyond; of each domain,
        the smallest keys.

        Without the one beyond, a shorter text of a later merge would take its room.
        """
        rows = pa.concat_tables(partials).sort_by([("key", "ascending"), ("text", "ascending")])
        sample = rows.filter(pc.is_valid(rows["text"]))
        ends = np.cumsum(pc.binary_length(sample["text"]).to_numpy())
        sample = sample.slice(0, int(np.searchsorted(ends, self.max_training_bytes, side="right")) + 1)
        rest = rows.filter(pc.is_null(rows["text"]))
        domains = sorted(set(rest["domain"].to_pylist()))
        smallest = [rest.filter(pc.equal(rest["domain"], domain)).slice(0, FLOOR_OF) for domain in domains]
        return pa.concat_tables([sample, *smallest])

    def finish(self, partial: pa.Table) -> pa.Table:
        """(domain string, cut uint64, tokenizer string): the keys below `cut` are the domain's validation
        split; the tokenizer's JSON stands in every row."""
        smallest = partial.filter(pc.is_null(partial["text"]))
        cuts: dict[str, int] = {}
        for domain in sorted(set(smallest["domain"].to_pylist())):
            keys = np.sort(smallest["key"].filter(pc.equal(smallest["domain"], domain)).to_numpy())
            n_held_out = max(1, len(keys) * FLOOR // FLOOR_OF) if len(keys) > 1 else 0
            cuts[domain] = max(self._cut, int(keys[n_held_out - 1]) + 1 if n_held_out else 0)
        if self.tokenizer is not None:
            trained = Path(self.tokenizer).read_text("utf-8")
        else:
            sample = partial.filter(pc.is_valid(partial["text"]))
            ends = np.cumsum(pc.binary_length(sample["text"]).to_numpy())
            sample = sample.filter(pa.array(ends <= self.max_training_bytes))
            is_train = sample["key"].to_numpy() >= _cut_of(sample["domain"], cuts)
            trained = train_bpe(sample["text"].filter(pa.array(is_train)).to_pylist(), self.vocab_size)
        return pa.table(
            {
                "domain": pa.array(cuts, pa.string()),
                "cut": pa.array(cuts.values(), pa.uint64()),
                "tokenizer": [trained] * len(cuts),
            }
        )

    def apply(self, table: pa.Table, state: pa.Table) -> pa.Table:
        """`table` without text, with doc (uint64), split (string), repeat (int64, 0 or more) and tokens
        (large_list<uint16|uint32>).

        Raises:
            ValueError: a document's weight is not between 0 and `MAX_REPEAT`.
        """
        tokenizer, end = load_tokenizer(state["tokenizer"][0].as_py())
        encodings = [encoding.ids for encoding in tokenizer.encode_batch_fast(table["text"].to_pylist())]
        lengths = np.fromiter((len(ids) + 1 for ids in encodings), dtype=np.int64, count=len(encodings))
        ids = [token for encoding in encodings for token in (*encoding, end)]
        values = np.array(ids, dtype=token_dtype(tokenizer.get_vocab_size()))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        keys = self._keys(table["id"])
        cuts = dict(zip(state["domain"].to_pylist(), state["cut"].to_pylist(), strict=True))
        split = np.where(keys < _cut_of(table["domain"], cuts), VALIDATION, TRAIN)
        repeat = np.where(split == TRAIN, self._repeats(table), 1)
        columns = {
            "doc": pa.array(keys),
            "split": pa.array(split, pa.string()),
            "repeat": pa.array(repeat, pa.int64()),
            "tokens": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)),
        }
        return set_columns(table.drop_columns(["text"]), columns)

    def _repeats(self, table: pa.Table) -> np.ndarray:
        """int64, (n_docs,): weights rounded by a hash of (seed, id) that the split does not depend on."""
        if self.repeat is None or self.repeat not in table.column_names:
            return np.ones(len(table), np.int64)
        weights = pc.fill_null(table[self.repeat].cast(pa.float64()), 1.0).to_numpy()
        if (is_wrong := ~((weights >= 0) & (weights <= MAX_REPEAT))).any():
            row = int(np.argmax(is_wrong))
            raise ValueError(
                f"document {table['id'][row].as_py()!r}: {self.repeat} is {weights[row]:g}; how often to "
                f"train on a document is between 0 and {MAX_REPEAT}"
            )
        whole = np.floor(weights)
        (rows,) = np.nonzero(weights > whole)
        draws = self._keys(table["id"].take(pa.array(rows)), b"repeat") / 2.0**64
        repeats: np.ndarray = whole.astype(np.int64)
        repeats[rows] += draws < (weights - whole)[rows]
        return repeats

    def _keys(self, ids: pa.ChunkedArray, purpose: bytes = b"") -> np.ndarray:
        """uint64, (n_docs,): a hash of (seed, id), another one for each purpose."""
        key = self.seed.to_bytes(8, "little", signed=True)
        digests = (
            hashlib.blake2b(name.encode(), digest_size=8, key=key, person=purpose).digest()
            for name in ids.to_pylist()
        )
        return np.frombuffer(b"".join(digests), dtype="<u8")

    @property
    def _cut(self) -> int:
        """The key below which a document is held out."""
        return int(self.validation_fraction * 2**64)


def _cut(text: pa.ChunkedArray, n_bytes: int) -> pa.ChunkedArray:
    """`text` with at most the first `n_bytes` bytes of each document, whole characters only."""
    is_long = pc.fill_null(pc.greater(pc.binary_length(text), n_bytes), False).combine_chunks()
    long_texts = text.filter(is_long).to_pylist()
    if not long_texts:
        return text
    beginnings = [value.encode()[:n_bytes].decode(errors="ignore") for value in long_texts]
    return pa.chunked_array(
        [pc.replace_with_mask(text.combine_chunks(), is_long, pa.array(beginnings, text.type))]
    )


def _cut_of(domains: pa.ChunkedArray, cuts: Mapping[str, int]) -> np.ndarray:
    """uint64, (n_docs,): each document's domain's cut."""
    return np.array([cuts[domain] for domain in domains.to_pylist()], dtype=np.uint64)


def train_bpe(texts: Sequence[str], vocab_size: int) -> str:
    """A byte-level BPE of at most `vocab_size` entries, as JSON. The same texts give the same bytes.

    >>> tokenizer, end = load_tokenizer(train_bpe(["low lower lowest"] * 4, 260))
    >>> tokenizer.decode(tokenizer.encode("lowest ✓").ids)
    'lowest ✓'
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


@lru_cache(maxsize=4)
def load_tokenizer(text: str) -> tuple[Tokenizer, int]:
    """(tokenizer, id of its end-of-text token) from JSON.

    Raises:
        ValueError: there is no token that a tokenizer calls end of text.
    """
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a text that spells the token out does not end there
    for name in (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>"):
        if (end := tokenizer.token_to_id(name)) is not None:
            return tokenizer, end
    raise ValueError(
        f"the tokenizer has none of the end-of-text tokens {END_OF_TEXT}, </s>, <|end_of_text|>, <eos>; "
        "add one to it"
    )


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The narrowest dtype that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"
