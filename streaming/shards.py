"""Token shards: the one file that knows how tokens lie on disk.

    tokens/<domain>/train-00000.arrow        Arrow IPC file, one record batch, memory-mapped, never copied
    tokens/<domain>/train-00000-x3.arrow     the same; an epoch reads its documents three times
    tokens/<domain>/validation-00000.arrow
    tokens/<domain>/manifest.json            compiled from the shards' own footers

Columns: `tokens: large_list<uint16 | uint32>`, a document's tokens with its end-of-sequence token last, and
`doc: uint64`, a 64-bit hash of the document's id. Each shard's footer holds a checksum of its contents.
"""

import json
import os
import struct
import uuid
from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .manifest import (
    FORMAT_VERSION,
    MANIFEST,
    SHARD_NAME,
    Manifest,
    ShardEntry,
    StoredTokens,
    TokenDtype,
    parse_manifest,
)

# An Arrow IPC file begins with this, padded to 8 bytes; a message with 4 bytes of ones and its length.
ARROW_MAGIC, N_MESSAGE_PREFIX = b"ARROW1", 8
# Enough for the schema's and the batch's messages, which take some 700 bytes.
N_HEAD_BYTES = 4096
Tokens = NDArray[np.uint16] | NDArray[np.uint32]


class Shard(NamedTuple):
    """One open shard; every array is a view of the mapped file."""

    tokens: Tokens  # (n_tokens,)
    offsets: NDArray[np.int64]  # (n_docs + 1,)
    doc_ids: NDArray[np.uint64]  # (n_docs,)
    checksum: str


def domain_folder(root: str | Path, domain: str) -> Path:
    """The folder of a domain's shards below `root`; any non-empty name gets one of its own.

    >>> domain_folder("tokens", "web/en").as_posix(), domain_folder("tokens", "..").as_posix()
    ('tokens/web%2Fen', 'tokens/%2E.')
    """
    name = quote(domain, safe="")
    if name.startswith("."):  # '.' and '..' are folders already, and a leading dot hides one
        name = "%2E" + name[1:]
    if not 1 <= len(name) <= 255:
        raise ValueError(f"domain {domain!r}: its quoted name has {len(name)} bytes; a folder takes 1 to 255")
    return Path(root) / name


def shard_name(split: str, index: int, repeat: int = 1) -> str:
    """The file of a split's shard whose documents come `repeat` times in an epoch.

    >>> shard_name("train", 7), shard_name("train", 7, repeat=3)
    ('train-00007.arrow', 'train-00007-x3.arrow')
    """
    return f"{split}-{index:05d}{'' if repeat == 1 else f'-x{repeat}'}.arrow"


def write_token_shard(
    path: str | Path,
    values: NDArray[np.integer[Any]],
    offsets: NDArray[np.int64],
    doc_ids: NDArray[np.uint64],
    dtype: TokenDtype,
) -> None:
    """Write one shard, whole or not at all; the same arguments give the same bytes.

    The file appears under its name only when it is complete and on disk. No state is shared: any number of
    threads and processes may write different shards of one folder.

    Args:
        path: as `shard_name` makes it. The folder is made if need be.
        values: integers, (n_tokens,), the documents' tokens one after another.
        offsets: int64, (n_docs + 1,), document d is values[offsets[d]:offsets[d + 1]]; it may be empty.
        doc_ids: uint64, (n_docs,), a hash of each document's id.
        dtype: what tokens are stored as.
    Raises:
        ValueError: the name is not a shard's, the arrays disagree, or a token does not fit the dtype.
    """
    path = Path(path)
    if not SHARD_NAME.fullmatch(path.name):
        raise ValueError(f"{path}: a shard is named like train-00000.arrow")
    tokens = _as_tokens(path, values, dtype)
    offsets, doc_ids = np.asarray(offsets, np.int64), np.asarray(doc_ids, np.uint64)
    if offsets.size != doc_ids.size + 1 or offsets[0] != 0 or offsets[-1] != tokens.size:
        raise ValueError(
            f"{path}: {doc_ids.size} doc_ids and {tokens.size} tokens need {doc_ids.size + 1} offsets "
            f"from 0 to {tokens.size}, not {offsets.size} from {offsets[:1]} to {offsets[-1:]}"
        )
    if (np.diff(offsets) < 0).any():
        raise ValueError(f"{path}: offsets fall at document {int(np.argmax(np.diff(offsets) < 0))}")
    schema = _schema(dtype).with_metadata({"checksum": _checksum(tokens, offsets, doc_ids)})
    lists = pa.LargeListArray.from_arrays(
        pa.array(offsets), pa.array(tokens), type=schema.field("tokens").type
    )
    batch = pa.record_batch([lists, pa.array(doc_ids)], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
    _write_atomically(path, memoryview(sink.getvalue()))


def write_manifest(
    folder: str | Path, *, domain: str, vocab_size: int, tokenizer_hash: str, eos_id: int
) -> Manifest:
    """Compile manifest.json from the shards that lie in `folder`, reading only their footers.

    Args:
        domain: the domain's name, unquoted.
        vocab_size: every token is below it.
        tokenizer_hash: stores are mixed only when theirs agree.
        eos_id: the token that ends every document.
    Returns:
        What was written. Deterministic: splits and files are sorted.
    Raises:
        ValueError: no shards, shards of two dtypes, or a shard that cannot be read.
    """
    folder = Path(folder)
    splits: dict[str, list[ShardEntry]] = {}
    dtypes = set()
    for path in sorted(folder.glob("*.arrow")):
        if match := SHARD_NAME.fullmatch(path.name):
            shard = open_shard(path)
            dtypes.add(str(shard.tokens.dtype))
            entry = ShardEntry(
                file=path.name,
                repeat=int(match["repeat"] or 1),
                n_docs=shard.doc_ids.size,
                n_tokens=shard.tokens.size,
                n_bytes=path.stat().st_size,
                checksum=shard.checksum,
            )
            splits.setdefault(match["split"], []).append(entry)
    if len(dtypes) != 1:
        raise ValueError(f"{folder}: shards of one dtype are needed, found {sorted(dtypes) or 'no shards'}")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        domain=domain,
        dtype=cast(TokenDtype, dtypes.pop()),
        vocab_size=vocab_size,
        tokenizer_hash=tokenizer_hash,
        eos_id=eos_id,
        splits=splits,
    )
    _write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def open_shard(path: str | Path) -> Shard:
    """Map one shard into memory; its tokens are not read.

    Raises:
        ValueError: not a whole Arrow file, or not in the shards' schema.
    """
    try:
        reader = pa.ipc.open_file(_mapped(path))
        schema, batches = reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a whole Arrow file ({error}); write the shard again") from error
    checksum = (schema.metadata or {}).get(b"checksum", b"").decode()
    dtypes: tuple[TokenDtype, TokenDtype] = ("uint16", "uint32")
    if (
        schema.remove_metadata() not in [_schema(dtype) for dtype in dtypes]
        or len(batches) != 1
        or not checksum
    ):
        columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise ValueError(
            f"{path}: not a token shard: {len(batches)} batches of ({columns}), checksum {checksum!r}; "
            "a shard has one batch of (tokens: large_list<uint16 or uint32>, doc: uint64) and a checksum"
        )
    lists, doc_ids = batches[0].columns
    _, offsets, _, values = lists.buffers()
    dtype = np.dtype(str(lists.type.value_type))
    n_docs = len(doc_ids)
    return Shard(
        tokens=_view(values, dtype, len(lists.values)),
        offsets=_view(offsets, np.dtype(np.int64), n_docs + 1),
        doc_ids=_view(doc_ids.buffers()[1], np.dtype(np.uint64), n_docs),
        checksum=checksum,
    )


class TokenStore(StoredTokens):
    """One split of one domain's token shards, memory-mapped: opening is O(shards) and reads no tokens.

    The store is what an epoch reads: a shard of repeat r stands in it r times, as the same mapped bytes, so
    `pieces`, `n_docs`, `n_tokens` and all that is made of them count its documents r times. All shards come
    once before any comes again, so copies of a document lie as far apart as can be.

    Args:
        folder: holds manifest.json and the shards that it names.
        split: `train`, `validation`, ...

    Raises:
        ValueError: no such folder, manifest or split; another format version; a shard that is missing, cut
            short, of another size or other contents than the manifest says; no tokens at all.
    """

    def __init__(self, folder: str | Path, split: str = "train") -> None:
        self.folder = Path(folder)
        super().__init__(str(self.folder), _read_manifest(self.folder), split)
        opened = {entry["file"]: self._open(entry) for entry in self._entries[: self.n_files]}
        self.shards = [opened[entry["file"]] for entry in self._entries]
        self.files = tuple(
            (self.folder / entry["file"], entry.get("repeat", 1)) for entry in self._entries[: self.n_files]
        )

    @property
    def pieces(self) -> tuple[Tokens, ...]:
        """Each shard's tokens, (n_tokens of the shard,), views of the mapped files; each as often as an
        epoch reads it."""
        return tuple(shard.tokens for shard in self.shards)

    @property
    def offsets(self) -> tuple[NDArray[np.int64], ...]:
        """Where each shard's documents end: int64, (n_docs of the shard + 1,), views of the mapped files."""
        return tuple(shard.offsets for shard in self.shards)

    @property
    def shard_paths(self) -> tuple[Path, ...]:
        """The shards' files."""
        return tuple(self.folder / entry["file"] for entry in self._entries)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, end-of-sequence included: int64, (n_docs,). Read on first use."""
        return np.concatenate([np.diff(shard.offsets) for shard in self.shards])

    @cached_property
    def doc_ids(self) -> NDArray[np.uint64]:
        """The hash of each document's id: uint64, (n_docs,). Read on first use."""
        return np.concatenate([shard.doc_ids for shard in self.shards])

    def read(self, start: int, n_tokens: int) -> Tokens:
        """A copy of tokens [start, start + n_tokens) of the shards one after another: dtype, (n_tokens,).

        Raises:
            ValueError: the range leaves [0, self.n_tokens).
        """
        if not 0 <= start <= start + n_tokens <= self.n_tokens:
            raise ValueError(
                f"{self.folder}: tokens [{start}, {start + n_tokens}) of {self.split!r}, "
                f"which holds [0, {self.n_tokens})"
            )
        parts, position = [], 0
        for piece in self.pieces:
            parts.append(piece[max(0, start - position) : max(0, start + n_tokens - position)])
            position += piece.size
        return cast(Tokens, np.concatenate(parts))

    def verify(self) -> None:
        """Read everything and compare it with the checksums and the vocabulary.

        Raises:
            ValueError: names the first shard whose contents changed or whose tokens leave the vocabulary.
        """
        for index in range(self.n_files):
            self.verify_shard(index)

    def verify_shard(self, index: int) -> None:
        verify_contents(self.shards[index], self._entries[index], self.vocab_size, self.shard_paths[index])

    def _open(self, entry: ShardEntry) -> Shard:
        path = self.folder / entry["file"]
        if not path.exists():
            raise ValueError(
                f"{path}: the manifest names it and it is not there; restore it or write the manifest again"
            )
        return open_shard_of(entry, str(self.dtype), path)


def open_shard_of(entry: ShardEntry, dtype: str, path: Path) -> Shard:
    """Map a shard that a manifest names, without reading its tokens.

    Raises:
        ValueError: it is cut short, no shard, or another one than the manifest says.
    """
    if (n_bytes := path.stat().st_size) != entry["n_bytes"]:
        raise ValueError(
            f"{path}: {n_bytes} bytes, the manifest says {entry['n_bytes']}; write the shard again"
        )
    shard = open_shard(path)
    found = (str(shard.tokens.dtype), shard.doc_ids.size, shard.tokens.size, shard.checksum)
    if found != (expected := (dtype, entry["n_docs"], entry["n_tokens"], entry["checksum"])):
        raise ValueError(
            f"{path}: dtype, documents, tokens and checksum are {found}, the manifest says {expected}; "
            "write the manifest again if the shard was replaced on purpose"
        )
    return shard


def verify_contents(shard: Shard, entry: ShardEntry, vocab_size: int, place: str | Path) -> None:
    """Read a shard, and compare it with the manifest's checksum and the vocabulary. About 1 GB/s.

    Raises:
        ValueError: they do not match.
    """
    if _checksum(shard.tokens, shard.offsets, shard.doc_ids) != entry["checksum"]:
        raise ValueError(f"{place}: its contents do not match its checksum; write the shard again")
    if shard.tokens.size and int(shard.tokens.max()) >= vocab_size:
        raise ValueError(f"{place}: token {shard.tokens.max()} is outside vocab_size {vocab_size}")


def read_offsets(
    read: Callable[[int, int], bytes], entry: ShardEntry, place: str | Path
) -> NDArray[np.int64]:
    """Where a shard's documents end, without its tokens: int64, (n_docs + 1,).

    They are the first buffer of the record batch's body, behind the messages of the schema and of the batch;
    both together are one range of the file.

    Args:
        read: returns bytes [start, end) of the shard.
        entry: of the shard.
        place: its path or URI, for errors.
    Raises:
        ValueError: not an Arrow file, or offsets that do not run from 0 to n_tokens.
    """
    n_offset_bytes = 8 * (entry["n_docs"] + 1)
    data = read(0, min(entry["n_bytes"], N_HEAD_BYTES + n_offset_bytes))
    at = 8
    for _ in ("schema", "record batch"):
        if not data.startswith(ARROW_MAGIC) or data[at : at + 4] != b"\xff" * 4 or len(data) < at + 8:
            raise ValueError(f"{place}: begins with {data[:8]!r}; not a token shard, write it again")
        (n_message_bytes,) = struct.unpack_from("<i", data, at + 4)
        at += N_MESSAGE_PREFIX + n_message_bytes
    found = data[at : at + n_offset_bytes]
    if len(found) < n_offset_bytes:  # longer messages than ours
        found = read(at, min(entry["n_bytes"], at + n_offset_bytes))
    offsets = np.frombuffer(found[: len(found) // 8 * 8], "<i8").astype(np.int64)
    check_offsets(offsets, entry, place)
    return offsets


def check_offsets(offsets: NDArray[np.int64], entry: ShardEntry, place: str | Path) -> None:
    """Raise ValueError unless `offsets` rise from 0 to n_tokens, in as many steps as there are documents."""
    if (
        offsets.size != entry["n_docs"] + 1
        or offsets[0] != 0
        or offsets[-1] != entry["n_tokens"]
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError(
            f"{place}: its {offsets.size} offsets run from {offsets[:1]} to {offsets[-1:]}; the manifest's "
            f"{entry['n_docs']} documents of {entry['n_tokens']} tokens have {entry['n_docs'] + 1} that rise "
            f"from 0 to {entry['n_tokens']}; write the shard again"
        )


def splits_of(folder: str | Path) -> list[str]:
    """The splits that a domain's manifest names."""
    return sorted(_read_manifest(Path(folder))["splits"])


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; a token store is a folder with a {MANIFEST}")
    path = folder / MANIFEST
    if not path.exists():
        raise ValueError(
            f"{folder}: no {MANIFEST}; tokenizing was not finished, or this is not a domain's folder"
        )
    return parse_manifest(path.read_bytes(), str(path))


def _mapped(path: str | Path) -> Any:
    """The whole file as one mapped Arrow buffer, which holds no file open.

    A record batch read through Arrow's own mapping has all its pages asked for (MADV_WILLNEED): 0.5 ms for a
    shard of 20 MB that is in memory already, and the reading of a whole corpus when it is opened cold.
    """
    with pa.memory_map(str(path)) as source:
        head = source.read_buffer(1)  # keeps the mapping alive when its file is closed
        return pa.foreign_buffer(head.address, source.size(), base=head)


def _view(buffer: Any, dtype: np.dtype[Any], n_values: int) -> NDArray[Any]:
    """An Arrow buffer as an array, not copied. (Arrow's own `to_numpy` imports pandas: 0.2 s.)"""
    return np.frombuffer(buffer or b"", dtype, n_values)


def _schema(dtype: TokenDtype) -> Any:
    types: dict[TokenDtype, Any] = {"uint16": pa.uint16(), "uint32": pa.uint32()}
    if dtype not in types:
        raise ValueError(f"dtype is {dtype!r}; tokens are stored as 'uint16' or 'uint32'")
    tokens = pa.large_list(pa.field("token", types[dtype], nullable=False))
    return pa.schema(
        [pa.field("tokens", tokens, nullable=False), pa.field("doc", pa.uint64(), nullable=False)]
    )


def _as_tokens(path: Path, values: NDArray[np.integer[Any]], dtype: TokenDtype) -> Tokens:
    _schema(dtype)
    top = int(np.iinfo(dtype).max)
    if values.size and (int(values.min()) < 0 or int(values.max()) > top):
        raise ValueError(
            f"{path}: tokens run from {values.min()} to {values.max()}; {dtype} takes 0 to {top}"
        )
    return cast(Tokens, np.ascontiguousarray(values, dtype))


def _checksum(tokens: Tokens, offsets: NDArray[np.int64], doc_ids: NDArray[np.uint64]) -> str:
    """Of the contents, not of the file: the same in whatever way an Arrow version lays the file out."""
    digest = blake2b(f"{tokens.dtype} {tokens.size} {doc_ids.size}".encode(), digest_size=16)
    for array in (tokens, offsets, doc_ids):
        digest.update(cast(bytes, np.ascontiguousarray(array).view(np.uint8)))  # hashed in place, not copied
    return digest.hexdigest()


def _write_atomically(path: Path, data: bytes | memoryview) -> None:
    """The file gets its name when its bytes are on disk; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "nt":  # folders cannot be opened there
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
