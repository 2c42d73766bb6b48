"""What tests of every folder share."""

import os
import pickle
from collections.abc import Callable, Sequence

import hypothesis
import numpy as np
import pyarrow as pa
import pytest

from cuvee.operators.base import ROW, Filter, Fit, FitFilter, FitMap, Map, Operator, set_columns

# The first call of a kernel compiles it, which no deadline of an example allows for, and a loaded machine
# draws examples slowly. The same examples in every run: HYPOTHESIS_PROFILE=explore looks for others.
COMMON = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("cuvee", derandomize=True, **COMMON)
hypothesis.settings.register_profile("explore", derandomize=False, **COMMON)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "cuvee"))

# Ray's workers are nice by 15, so beside another test on two cores they would hardly get on.
os.environ.setdefault("RAY_worker_niceness", "0")

FIRST = ("operators", "streaming")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come early, so that no worker is left alone with one at the end.

    Files of operators and of streaming take turns, since they compile different kernels; then the pipeline's
    processes, many at a time, find all kernels compiled. The types take one core for a minute.
    """
    files = list(dict.fromkeys(item.path for item in items))
    turns = {
        path: turn for name in FIRST for turn, path in enumerate(p for p in files if p.parent.name == name)
    }
    later = {"tests": 0, "pipeline": 1}
    order = sorted(files, key=lambda path: turns.get(path, len(files) + later.get(path.parent.name, 2)))
    places = {path: place for place, path in enumerate(order)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(scope="session")
def check_operator() -> Callable[[Operator, pa.Table], pa.Table]:
    """Holds an operator to its contract on a table of documents, and returns the table with its columns."""
    return _check_operator


def _check_operator(operator: Operator, documents: pa.Table) -> pa.Table:
    table = documents.append_column(ROW, pa.array(np.arange(documents.num_rows), pa.int64()))
    whole = run_operator(operator, [table])

    _check_columns(operator, table, whole)
    random = np.random.default_rng(0)
    for n_shards in (2, 7):
        cuts = np.sort(random.integers(0, table.num_rows + 1, n_shards - 1))  # equal cuts make an empty shard
        shards = [table.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, table.num_rows], strict=True)]
        assert run_operator(operator, shards).equals(whole), f"{n_shards} shards give other results"
    order = random.permutation(table.num_rows)
    assert run_operator(operator, [table.take(order)]).equals(whole.take(order)), (
        "another order of rows, other results"
    )

    twin = pickle.loads(pickle.dumps(operator))
    assert twin == operator
    assert run_operator(twin, [table]).equals(whole)

    for few in (table.slice(0, 0), table.slice(0, 1), _without_values(table.slice(0, 2))):
        result = run_operator(operator, [few])
        assert result.schema.equals(whole.schema), "an empty, short or null table gives other types"
        assert result.num_rows == few.num_rows
    return whole


def run_operator(operator: Operator, shards: Sequence[pa.Table]) -> pa.Table:
    """All rows with the operator's columns, and for filters with `reason`, as an engine would make them."""
    match operator:
        case Map():
            return pa.concat_tables([operator.apply(shard) for shard in shards]).combine_chunks()
        case Filter():
            scores = [operator.scores(shard) for shard in shards]
        case FitFilter():
            state = fit(operator, shards)
            scores = [operator.scores(shard, state) for shard in shards]
        case FitMap():
            state = fit(operator, shards)
            return pa.concat_tables([operator.apply(shard, state) for shard in shards]).combine_chunks()
    scored = [
        set_columns(shard, {**columns, "reason": operator.reasons(columns).cast(pa.string())})
        for shard, columns in zip(shards, scores, strict=True)
    ]
    return pa.concat_tables(scored).combine_chunks()


def fit(operator: Fit, shards: Sequence[pa.Table]) -> pa.Table:
    """The state, by way of an exchange over three partitions and of merges in twos, last shard first."""
    partials = [operator.observe(shard) for shard in shards]
    if operator.exchange_key:
        partials = _exchange(partials, operator.exchange_key, operator.combine)
    merged = operator.merge(partials[-1:])
    for partial in partials[-2::-1]:
        merged = operator.merge([merged, partial])
    assert operator.finish(merged).equals(operator.finish(operator.merge(partials))), (
        "merge is not associative"
    )
    found = operator.finish(merged)
    if operator.second_key is None:
        return found
    again = [operator.observe_again(shard, found) for shard in reversed(shards)]
    return operator.finish_again(found, _exchange(again, operator.second_key, operator.combine_again))


def _exchange(
    partials: Sequence[pa.Table], key: str, combine: Callable[[pa.Table], pa.Table]
) -> list[pa.Table]:
    observations = pa.concat_tables(partials)
    partition = observations[key].to_numpy() % 3
    return [combine(observations.filter(pa.array(partition == i))) for i in range(3)]


def _check_columns(operator: Operator, table: pa.Table, result: pa.Table) -> None:
    added = [name for name in result.column_names if name not in table.column_names and name != "reason"]
    assert set(added) <= set(operator.writes), "a column is written that `writes` does not declare"
    assert set(operator.writes) <= set(result.column_names), "a column of `writes` is missing"
    untouched = [name for name in table.column_names if name not in operator.writes]
    assert result.select(untouched).equals(table.select(untouched).combine_chunks()), (
        "rows or other columns changed"
    )


def _without_values(table: pa.Table) -> pa.Table:
    return set_columns(
        table,
        {
            field.name: pa.nulls(table.num_rows, field.type)
            for field in table.schema
            if field.name in ("text", "url", "lang", "domain")
        },
    )
