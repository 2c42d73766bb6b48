"""What manifest.json says of a domain's token shards, wherever they lie."""

import json
import re
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import Literal, TypedDict, cast

import numpy as np

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SHARD_NAME = re.compile(r"(?P<split>[a-z]+)-\d{5,}(?:-x(?P<repeat>[1-9]\d*))?\.arrow")
TokenDtype = Literal["uint16", "uint32"]


class ShardEntry(TypedDict):
    """A shard's line in the manifest; documents, tokens and bytes as they lie in the file, once."""

    file: str
    repeat: int
    n_docs: int
    n_tokens: int
    n_bytes: int
    checksum: str


class Manifest(TypedDict):
    """What manifest.json holds."""

    format_version: int
    domain: str
    dtype: TokenDtype
    vocab_size: int
    tokenizer_hash: str
    eos_id: int
    splits: dict[str, list[ShardEntry]]


class StoredTokens:
    """One split of one domain's token shards, as far as the manifest knows them.

    Args:
        place: the folder or URI, for errors.
        manifest: of the domain.
        split: `train`, `validation`, ...
    Raises:
        ValueError: no such split, or no tokens in it.
    """

    def __init__(self, place: str, manifest: Manifest, split: str) -> None:
        self.place, self.split = place, split
        files = manifest["splits"].get(split, [])
        if not files:
            raise ValueError(f"{place}: no split {split!r}; its splits are {sorted(manifest['splits'])}")
        self.domain, self.dtype = manifest["domain"], np.dtype(manifest["dtype"])
        self.vocab_size, self.eos_id = manifest["vocab_size"], manifest["eos_id"]
        self.tokenizer_hash = manifest["tokenizer_hash"]
        self.n_files = len(files)
        self.n_distinct_docs = sum(entry["n_docs"] for entry in files)
        self.n_distinct_tokens = sum(entry["n_tokens"] for entry in files)
        self.max_repeat = max(entry.get("repeat", 1) for entry in files)
        # As an epoch reads them: all once before any comes again.
        self._entries = [
            entry
            for times in range(1, self.max_repeat + 1)
            for entry in files
            if entry.get("repeat", 1) >= times
        ]
        self.n_docs = sum(entry["n_docs"] for entry in self._entries)
        self.n_tokens = sum(entry["n_tokens"] for entry in self._entries)
        if self.n_tokens == 0:
            raise ValueError(
                f"{place}: split {split!r} has {self.n_docs} documents and no tokens; leave it out"
            )

    @property
    def n_shards(self) -> int:
        """Shards as an epoch reads them: the first `n_files` are the files, once each."""
        return len(self._entries)

    def n_tokens_between(self, begin: int, end: int) -> int:
        """Tokens of shards [begin, end)."""
        return sum(entry["n_tokens"] for entry in self._entries[begin:end])

    def n_docs_between(self, begin: int, end: int) -> int:
        """Documents of shards [begin, end)."""
        return sum(entry["n_docs"] for entry in self._entries[begin:end])

    def tokens_before(self, begin: int, end: int) -> list[int]:
        """Tokens before each of shards [begin, end), and of all of them."""
        return [*accumulate((entry["n_tokens"] for entry in self._entries[begin:end]), initial=0)]

    def docs_before(self, begin: int, end: int) -> list[int]:
        """Documents before each of shards [begin, end), and of all of them."""
        return [*accumulate((entry["n_docs"] for entry in self._entries[begin:end]), initial=0)]

    @property
    def n_offset_bytes(self) -> int:
        """Of the cache, which the offsets of its documents take; 0 where they are mapped with the shards."""
        return 0

    @property
    def shard_places(self) -> tuple[str, ...]:
        """The path or URI of each shard."""
        return tuple(f"{self.place.rstrip('/')}/{entry['file']}" for entry in self._entries)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that decides which token stands where; 16 hex digits."""
        return self.fingerprint_of(self.n_shards)

    def fingerprint_of(self, n_shards: int) -> str:
        """The fingerprint of a store that ends after the first `n_shards` of this one."""
        contents = [self.tokenizer_hash, self.vocab_size, self.eos_id, str(self.dtype)]
        checksums = [[entry["n_tokens"], entry["checksum"]] for entry in self._entries[:n_shards]]
        return blake2b(json.dumps([contents, checksums]).encode(), digest_size=8).hexdigest()

    def verify_shard(self, index: int) -> None:
        """Read a shard and compare it with its checksum and the vocabulary.

        Raises:
            ValueError: its contents changed, or its tokens leave the vocabulary.
        """
        raise NotImplementedError


def parse_manifest(text: bytes, place: str) -> Manifest:
    """The manifest that `text` holds.

    Args:
        place: where it was read, for errors.
    Raises:
        ValueError: not JSON, of another format version, or keys are missing.
    """
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON ({error}); write the manifest again") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{place}: format_version is {version!r}; this version of cuvee reads {FORMAT_VERSION}"
        )
    if missing := sorted(Manifest.__required_keys__ - manifest.keys()):
        raise ValueError(f"{place}: {missing} missing; write the manifest again")
    return cast(Manifest, manifest)
