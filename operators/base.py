"""What an operator is: a frozen set of parameters with one verb over a document table.

The document table has the columns ``id: string, text: large_string, source: string, url: string?,
lang: string?, domain: string?``; whatever else an input holds passes through untouched. An operator adds
columns named ``<operator>.<field>``.

=========== ================================================================== ==========================
kind        methods                                                            examples
=========== ================================================================== ==========================
`Map`       ``apply(table) -> table``                                          pii, extract
`Filter`    ``scores(table) -> columns``, then ``rules()`` over the columns    language, gopher_quality
`FitFilter` ``observe``, ``merge``, ``finish``: a reduction over the corpus;   exact_dedup, minhash_dedup
            then ``scores(table, state) -> columns`` and ``rules()``
`FitMap`    the same reduction, then ``apply(table, state) -> table``          tokenize, cluster
=========== ================================================================== ==========================

A fit may look at the rows twice (`Fit.second_key`): what it needs of a few documents only after it has seen
them all need not be carried for every document.

Every operator is pure: the same rows give the same answer on any engine, in any sharding and any order.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

ROW = "_row"
"""Column that the engine lays over a table while operators look at it: int64, ``shard << 32 | position``.

It names a row across the whole stage, in the order of the inputs, however they were cut into shards."""

SUMMARY = b"cuvee.summary"

Scores = Mapping[str, pa.Array]


def refusal(message: str) -> PydanticCustomError:
    """An error of validation that says `message` as it stands, braces and all."""
    return PydanticCustomError("refused", "{message}", {"message": message})


class UnsuitableDataError(ValueError):
    """The documents are not what an operator's parameters take for granted; the message has the remedy."""


@dataclass(frozen=True)
class Rule:
    """Keep a row whose score lies in ``[minimum, maximum]`` and among `allowed`; else drop it for `reason`.

    A null or NaN score breaks no rule: what could not be measured is no reason to drop.
    """

    reason: str
    score: str
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = None

    def broken_by(self, score: pa.Array) -> pa.BooleanArray:
        """bool, (n_rows,), without nulls: the rows that this rule drops."""
        broken = pa.array(np.zeros(len(score), dtype=bool))
        if self.minimum is not None:
            broken = pc.or_(broken, pc.fill_null(pc.less(score, _bound(self.minimum)), False))
        if self.maximum is not None:
            broken = pc.or_(broken, pc.fill_null(pc.greater(score, _bound(self.maximum)), False))
        if self.allowed is not None:
            known = pc.is_in(score, value_set=pa.array(self.allowed, pa.string()))
            broken = pc.or_(broken, pc.and_(pc.invert(known), pc.is_valid(score)))
        return broken

    def __str__(self) -> str:
        bounds = [f">= {self.minimum:g}"] if self.minimum is not None else []
        bounds += [f"<= {self.maximum:g}"] if self.maximum is not None else []
        if self.allowed is not None:
            bounds.append(f"in {', '.join(self.allowed)}" if self.allowed else "null")
        return f"{self.score} {' and '.join(bounds)}"


def _bound(bound: float) -> float:
    """`bound` as Arrow compares with it: it has no integers of more than 64 bits."""
    return bound if -(2**63) <= bound < 2**63 else float(bound)


class Operator(BaseModel):
    """Base of all operators: the fields of the class are its YAML keys, its docstring is its manual."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ClassVar[str]
    """The operator's key in a recipe and the prefix of its columns."""
    version: ClassVar[int] = 1
    """Part of a stage's hash: raise it when the same parameters give other results."""
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns that the operator reads with parameters as a recipe has them, not validated yet."""
        return cls.reads

    @property
    def holds_gil(self) -> bool:
        """Whether Python's global lock is held most of the time: threads would wait for each other."""
        return False

    @property
    def rewrites_text(self) -> bool:
        """Whether a text that goes in may come out as another one."""
        return "text" in self.writes

    def identity(self) -> dict[str, Any]:
        """The parameters as JSON values, part of a stage's hash. An operator that reads files puts their
        contents' hash here in place of their paths."""
        return self.model_dump(mode="json")


class Map(Operator):
    """An operator that rewrites or adds columns and keeps every row, in order."""

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with this operator's columns set."""
        raise NotImplementedError


class Decides(Operator):
    """The half of a filter that looks at scores alone: a threshold can move without reading text again."""

    def rules(self) -> Sequence[Rule]:
        """The rules in the order in which they are asked; the first one broken names the reason."""
        raise NotImplementedError

    def reasons(self, scores: Scores) -> pa.DictionaryArray:
        """dictionary<int32, string>, (n_rows,): why each row is dropped, null where it is kept."""
        rules = self.rules()
        n_rows = len(next(iter(scores.values())))
        code = np.full(n_rows, -1, dtype=np.int32)
        for i, rule in enumerate(rules):
            broken = rule.broken_by(scores[rule.score]).to_numpy(zero_copy_only=False)
            code[broken & (code < 0)] = i
        return pa.DictionaryArray.from_arrays(
            pa.array(code, mask=code < 0), pa.array([rule.reason for rule in rules], pa.string())
        )


class Filter(Decides):
    """An operator that scores rows; rows whose scores break a rule leave for the ``dropped/`` folder."""

    def scores(self, table: pa.Table) -> Scores:
        """The columns of `writes`, each (n_rows,)."""
        raise NotImplementedError


class Fit(Operator):
    """An operator that sees the whole corpus before it acts: a tree reduction over the shards' partials.

    ``merge`` is associative and commutative up to the bytes of ``finish``, so the order in which shards
    arrive changes nothing. An operator that sets `exchange_key` has its observations brought together by
    that uint64 column first: all rows of one key reach one call of `combine`.
    """

    exchange_key: ClassVar[str | None] = None

    def observe(self, table: pa.Table) -> pa.Table:
        """One shard's partial. `table` has the column `ROW`: each kept row's number in the next stage."""
        raise NotImplementedError

    def combine(self, observations: pa.Table) -> pa.Table:
        """The partial of all observations that share their keys (only with an `exchange_key`)."""
        return observations

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """One partial that stands for all of `partials` (at least one)."""
        raise NotImplementedError

    def finish(self, partial: pa.Table) -> pa.Table:
        """The state that the second half of the operator works with, whatever the order of the merges.

        Of a fit that looks twice this is only what the first look found.
        """
        raise NotImplementedError

    @property
    def second_key(self) -> str | None:
        """Set by a fit that looks twice: the uint64 column that brings second observations together."""
        return None

    @property
    def second_reads(self) -> tuple[str, ...]:
        """The columns that the second look reads."""
        return self.reads

    @property
    def scheme(self) -> Mapping[str, str | int]:
        """The parameters in which an earlier run must agree for its partials to serve this fit."""
        return {}

    @property
    def earlier_runs(self) -> tuple[str, ...]:
        """Run directories of earlier runs with this fit, whose rows come before all others.

        Their rows have negative numbers, ascending from run to run; they are read, never changed.
        """
        return ()

    def observe_again(self, table: pa.Table, found: pa.Table) -> pa.Table:
        """One shard's second partial, knowing what `finish` found over the whole corpus."""
        raise NotImplementedError

    def combine_again(self, observations: pa.Table) -> pa.Table:
        """What follows from all second observations that share their keys."""
        raise NotImplementedError

    def finish_again(self, found: pa.Table, partials: Sequence[pa.Table]) -> pa.Table:
        """The state of a fit that looks twice. Numbers about it for people: see `with_summary`."""
        raise NotImplementedError

    def review(self, state: pa.Table) -> Mapping[str, str]:
        """What people should look at of the state: files for the run directory, text by name."""
        return {}


class FitFilter(Fit, Decides):
    """A filter whose scores need the state of a fit."""

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The columns of `writes`, each (n_rows,). `table` has the column `ROW`."""
        raise NotImplementedError


class FitMap(Fit):
    """A map that needs the state of a fit."""

    def apply(self, table: pa.Table, state: pa.Table) -> pa.Table:
        """`table` with this operator's columns set. `table` has the column `ROW`."""
        raise NotImplementedError


def with_summary(state: pa.Table, **numbers: int) -> pa.Table:
    """`state` with numbers that the manifest of the stage that uses it shall name.

    >>> summary_of(with_summary(pa.table({"row": [1]}), n_removed=3).schema)
    {'n_removed': 3}
    """
    return state.replace_schema_metadata({SUMMARY: json.dumps(numbers)})


def summary_of(schema: pa.Schema) -> dict[str, int]:
    """What `with_summary` put there; empty for other tables."""
    return json.loads((schema.metadata or {}).get(SUMMARY, b"{}"))  # type: ignore[no-any-return]


def no_column(name: str, table: pa.Table) -> str:
    """What to say of a column that a document table lacks.

    >>> no_column("quality.wrds", pa.table({"id": ["a"], "quality.words": [3]}))
    "there is no column 'quality.wrds'; did you mean 'quality.words'?"
    """
    names = [other for other in table.column_names if other != ROW]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    return f"there is no column {name!r}; {hint}"


def set_columns(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """`table` with `columns` replaced where they stand, or appended in the order given.

    >>> set_columns(pa.table({"a": [1], "b": [2]}), {"a": pa.array([3]), "c": pa.array([4])}).to_pydict()
    {'a': [3], 'b': [2], 'c': [4]}
    """
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        table = (
            table.append_column(name, values) if position < 0 else table.set_column(position, name, values)
        )
    return table
