"""Token shards behind any fsspec URI: which files there are, and how each is fetched and checked."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cache import Cache, Lease, NoRoom, Opened, Wanted
from .manifest import MANIFEST, Manifest, ShardEntry, StoredTokens, parse_manifest
from .shards import Shard, check_offsets, open_shard_of, read_offsets, verify_contents

N_FETCHERS = 8  # requests at once
N_BYTES_OF_REQUEST = 1 << 24


def is_uri(source: object) -> bool:
    """Whether a source is to be fetched, rather than mapped where it lies.

    >>> is_uri("s3://bucket/web"), is_uri("tokens/web")
    (True, False)
    """
    return isinstance(source, str) and "://" in source


class RemoteShard(NamedTuple):
    """One shard that lies elsewhere; plain JSON values."""

    uri: str
    entry: ShardEntry
    dtype: str
    vocab_size: int

    def wanted(self) -> Wanted[Shard]:
        """The shard as a file of a cache, checked by its checksum when it has come."""
        key = f"{self.entry['checksum']} {self.entry['n_bytes']}"
        return Wanted(
            name=f"{_hash(key)}.shard",
            n_bytes=self.entry["n_bytes"],
            place=self.uri,
            fetch=self._fetch,
            check=self._check,
            open=self._open,
        )

    def _open(self, path: Path) -> Shard:
        """Map the file that was fetched. Raises ValueError if it is cut short or another shard."""
        return open_shard_of(self.entry, self.dtype, path)

    def _fetch(self, file: IO[bytes]) -> None:
        for start in range(0, self.entry["n_bytes"], N_BYTES_OF_REQUEST):
            data = read_range(self.uri, start, min(start + N_BYTES_OF_REQUEST, self.entry["n_bytes"]))
            file.write(data)
            if len(data) < N_BYTES_OF_REQUEST:
                return

    def _check(self, path: Path) -> None:
        try:
            shard = self._open(path)
        except ValueError as error:  # of a file that will not be there when this is read
            raise ValueError(f"{self.uri}: {error}") from error
        verify_contents(shard, self.entry, self.vocab_size, self.uri)


class RemoteTokens(StoredTokens):
    """One split of one domain's token shards at an fsspec URI. Opening reads the manifest alone.

    Args:
        uri: of the domain's folder, like ``s3://bucket/tokens/web``. Credentials are fsspec's affair: its
            configuration or the environment.
        split: `train`, `validation`, ...
        cache: where shards are put when they are needed.
    Raises:
        ValueError: no manifest there, another format version, no such split, no tokens.
        OSError: it cannot be read.
    """

    def __init__(self, uri: str, split: str, cache: Cache) -> None:
        super().__init__(uri, _read_manifest(uri), split)
        self._cache = cache
        self.shards = tuple(
            RemoteShard(place, entry, str(self.dtype), self.vocab_size)
            for place, entry in zip(self.shard_places, self._entries, strict=True)
        )

    @property
    def n_offset_bytes(self) -> int:
        return 8 * (self.n_docs + self.n_shards)

    @cached_property
    def offsets(self) -> tuple[NDArray[np.int64], ...]:
        """Where each shard's documents end: int64, (n_docs of the shard + 1,), fetched without the tokens.

        One range of each shard is read, and all of them are kept as one file of the cache, mapped and in use
        as long as this store lives.

        Raises:
            ValueError: offsets that cannot be, or a cache too small for them.
        """
        wanted = Wanted(
            name=f"{_hash(self.fingerprint)}.offsets",
            n_bytes=self.n_offset_bytes,
            place=self.place,
            fetch=self._fetch_offsets,
            check=self._map_offsets,
            open=self._map_offsets,
        )
        self._cache.check_room(wanted.n_bytes, f"the documents' offsets of {self.place}")
        self._lease = self._lease_of(wanted)
        return self._lease.opened

    def verify_shard(self, index: int) -> None:
        self._lease_of(self.shards[index].wanted(), thorough=True).close()

    def _lease_of(self, wanted: Wanted[Opened], *, thorough: bool = False) -> Lease[Opened]:
        try:
            return self._cache.lease(wanted, thorough=thorough)
        except NoRoom:
            return self._cache.wait_for([wanted], thorough=thorough)[0]

    def _fetch_offsets(self, file: IO[bytes]) -> None:
        with ThreadPoolExecutor(N_FETCHERS, "cuvee-fetch") as fetchers:
            for offsets in fetchers.map(_offsets_of, self.shards):
                file.write(offsets.astype("<i8").tobytes())

    def _map_offsets(self, path: Path) -> tuple[NDArray[np.int64], ...]:
        if (n_bytes := path.stat().st_size) != self.n_offset_bytes:
            raise ValueError(f"{path}: {n_bytes} bytes of offsets, expected {self.n_offset_bytes}")
        mapped = tuple(self._cut(np.memmap(path, "<i8", "r")))
        for offsets, shard in zip(mapped, self.shards, strict=True):
            check_offsets(offsets, shard.entry, shard.uri)
        return mapped

    def _cut(self, values: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Each shard's part of all offsets."""
        at = 0
        for entry in self._entries:
            yield np.asarray(values[at : at + entry["n_docs"] + 1])
            at += entry["n_docs"] + 1


def read_range(uri: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of a file; fewer where it ends before.

    Raises:
        FileNotFoundError: names the file, which the stores' own errors need not.
    """
    fs, path = _file_system(uri)
    try:
        data: bytes = fs.cat_file(path, start=start, end=end)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{uri}: not there, though the manifest beside it names it; upload all of the folder"
        ) from error
    return data


def _offsets_of(shard: RemoteShard) -> NDArray[np.int64]:
    return read_offsets(lambda start, end: read_range(shard.uri, start, end), shard.entry, shard.uri)


def _read_manifest(uri: str) -> Manifest:
    place = f"{uri.rstrip('/')}/{MANIFEST}"
    fs, path = _file_system(place)
    try:
        text: bytes = fs.cat_file(path)
    except FileNotFoundError:
        raise ValueError(
            f"{uri}: no {MANIFEST} there; a token store is a folder with one, tokenizing writes it last"
        ) from None
    return parse_manifest(text, place)


def _file_system(uri: str) -> tuple[Any, str]:
    import fsspec  # here, as a loader of local shards does not need it

    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:  # a protocol whose package is not installed, or an unknown one
        raise ValueError(f"{uri}: {error}") from error
    return found


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
