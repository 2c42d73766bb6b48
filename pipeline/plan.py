"""Recipe + input listing -> stages: what will run, in which order, under which hash."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..operators.base import Fit, Operator
from ..operators.tokenize import Tokenize, load_tokenizer
from .earlier import earlier_stages
from .errors import InputError
from .listing import File, Shard, check_first_records, list_files, list_shards
from .reading import Reader
from .recipe import LoadedRecipe, Recipe
from .row_limits import key_limit
from .run_directory import read_json, write_json
from .web_archive import require_readers

LAYOUT_VERSION = 1
"""Part of every hash: raise it when the same operators write other bytes."""


@dataclass(frozen=True)
class Stage:
    """Operators that run shard by shard in one pass; a `fit` at the end observes what they keep.

    The first operator of the stage after a fit is that fit, bound to its state.
    """

    index: int
    operators: tuple[Operator, ...]
    fit: Fit | None
    hash: str

    @property
    def name(self) -> str:
        """The names of the stage's operators."""
        return "-".join(operator.name for operator in self.operators) or "read"

    @property
    def folder(self) -> str:
        """The stage's folder below ``stages/``."""
        return f"{self.index:02d}-{self.name[:60]}-{self.hash[:8]}"


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before a row is read."""

    readers: tuple[Reader, ...]
    files: tuple[tuple[File, ...], ...]
    shards: tuple[Shard, ...]
    stages: tuple[Stage, ...]

    @property
    def n_bytes(self) -> int:
        """Stored bytes of all inputs."""
        return sum(file.n_bytes for files in self.files for file in files)


def make_plan(loaded: LoadedRecipe, run_dir: Path) -> Plan:
    """List the inputs, cut them into shards, group the operators into stages.

    Args:
        run_dir: where the outcome of counting passes is kept, so that a restart doesn't count again.
    Raises:
        InputError: an input matches no file, or its columns are not what the recipe says.
    """
    recipe = loaded.recipe
    readers, listings, shards = [], [], []
    for index, source in enumerate(recipe.inputs):
        where = loaded.where("inputs", index, "path")
        files = list_files(source, where)
        jsonl = next((file for file in files if _format(source, file) == "jsonl" and file.n_bytes), None)
        if jsonl is not None:
            check_first_records(source, jsonl, where)
        if any(_format(source, file) in ("warc", "wet") for file in files):
            require_readers()
        cut = list_shards(index, source, files, recipe.reading.shard_bytes, where)
        reader = Reader(source, recipe.reading.max_document_bytes, recipe.seed)
        listings.append(tuple(files))
        shards += cut
        readers.append(_with_limit(reader, cut, run_dir))
    listing = [
        [source.model_dump(mode="json", exclude={"path"}), [(f.relative, f.n_bytes, f.stamp) for f in files]]
        for source, files in zip(recipe.inputs, listings, strict=True)
    ]
    reading = recipe.reading.model_dump(mode="json", exclude={"on_bad_shard", "max_unreadable_fraction"})
    input_hash = digest([LAYOUT_VERSION, recipe.seed, reading, listing])
    try:
        tokenizer = tokenize_operator(recipe)
    except InputError as error:
        raise InputError(f"{loaded.where('tokenize', 'tokenizer')}: {error}") from error
    stages = group_stages(recipe.curate, tokenizer, input_hash)
    return Plan(tuple(readers), tuple(listings), tuple(shards), stages)


def _format(source: Any, file: File) -> str:
    return str(file.format if source.format == "auto" else source.format)


def _with_limit(reader: Reader, shards: list[Shard], run_dir: Path) -> Reader:
    """The reader with its row limit's key, counted once for each listing."""
    if reader.source.max_rows is None and reader.source.max_bytes is None:
        return reader
    pieces = [
        (p.file.relative, p.file.n_bytes, p.file.stamp, p.start, p.stop) for s in shards for p in s.pieces
    ]
    known = (
        run_dir
        / "limits"
        / f"{digest([reader.seed, reader.source.model_dump(mode='json'), pieces])[:16]}.json"
    )
    if not known.exists():
        write_json(known, {"key_limit": key_limit(reader.source, reader.seed, shards)})
    return Reader(reader.source, reader.max_document_bytes, reader.seed, read_json(known)["key_limit"])


def tokenize_operator(recipe: Recipe) -> Tokenize | None:
    """The operator of the recipe's `tokenize` section.

    Raises:
        InputError: its `tokenizer` is not there, is none, or has no end-of-text token.
    """
    section = recipe.tokenize
    if section is None:
        return None
    file_hash = None
    if section.tokenizer is not None:
        try:
            content = Path(section.tokenizer).read_bytes()
            load_tokenizer(content.decode())
        except OSError as error:
            raise InputError(f"{section.tokenizer} cannot be read: {error.strerror}") from error
        except Exception as error:  # tokenizers raises Exception itself
            raise InputError(f"{section.tokenizer} is no tokenizer.json that can be used: {error}") from error
        file_hash = hashlib.sha256(content).hexdigest()
    return Tokenize(**section.model_dump(), tokenizer_sha256=file_hash, seed=recipe.seed)


def group_stages(operators: Sequence[Operator], last_fit: Fit | None, input_hash: str) -> tuple[Stage, ...]:
    """Fuse adjacent per-row operators; a fit ends a stage and opens the next one with its state.

    Args:
        last_fit: a fit over what the last stage keeps, for another part of the run (the tokenizer's).
    """
    stages: list[Stage] = []
    current: list[Operator] = []

    def close(fit: Fit | None) -> None:
        upstream = stages[-1].hash if stages else input_hash
        described = [[*map(describe, current)], fit and describe(fit)]
        stages.append(Stage(len(stages), tuple(current), fit, digest([upstream, described])))

    for operator in operators:
        if isinstance(operator, Fit):
            close(operator)
            current = []
        current.append(operator)
    close(last_fit)
    return tuple(stages)


def describe(operator: Operator) -> list[Any]:
    """What makes an operator's results: name, version, parameters; of earlier runs their stages' hashes."""
    described = [operator.name, operator.version, operator.identity()]
    if isinstance(operator, Fit) and operator.earlier_runs:
        described.append([stage.folder.name for stage in earlier_stages(operator)])
    return described


def digest(value: Any) -> str:
    """A hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
