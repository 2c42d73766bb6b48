"""Documents that nobody would write: no operator crashes or hangs on them, and scores are the references'."""

import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvee.operators import registry
from cuvee.operators.base import ROW, Operator
from cuvee.operators.c4 import C4
from cuvee.operators.cluster import Cluster
from cuvee.operators.decontaminate import Decontaminate
from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.extract import Extract
from cuvee.operators.fineweb import Fineweb
from cuvee.operators.fineweb2 import Fineweb2
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.operators.length import Length
from cuvee.operators.normalise import Normalise
from cuvee.operators.random_calibrated import RandomCalibrated
from cuvee.operators.rehydrate import Rehydrate
from cuvee.operators.url_filter import UrlFilter
from cuvee.operators.where import Where
from cuvee.operators.word_pass import forget

from ..conftest import run_operator

CLUSTER = Cluster(dimensions=4, n_restarts=1)
PROFILES = ("paper", "datatrove", "dclm", "uax29", "icu")
# Units that, repeated without end, find quadratic regular expressions and buffers that are too short.
UNITS = ("我来到北京", "\u0301\u0323", "1.2.3.", "a@b.c")
MORE_UNITS = (
    "a", " ", "\n", "\r\n", "word ", "ผมชอบ", "😀", "1", "...", "+1 2", "@", "{[1]", "\x00", "Ã¼â€™", "가",
    "\u200d", "א\"", "2001:", "http://a.b/c?d=e ", "a.b-c'd/", "\U0010ffff", "- x\n", "Lorem ipsum. ", "’",
    "ﷺ", "<div>", "&amp;", "U.S.A.",
)  # fmt: skip
ANY_CHARACTER = st.integers(0, 0x10F7FF).map(lambda code: chr(code if code < 0xD800 else code + 0x800))
DOCUMENT = st.none() | st.one_of(
    st.text(ANY_CHARACTER, max_size=30),
    st.lists(st.sampled_from(UNITS + MORE_UNITS) | ANY_CHARACTER, max_size=20).map("".join),
    st.lists(st.sampled_from(UNITS + MORE_UNITS), max_size=6).map(lambda units: "".join(units) * 5),
)


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> list[Operator]:
    """Every built-in operator, the filters under every profile."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "items.jsonl").write_text(
        '{"text": "one two three four five six seven eight nine", "answer": ""}\n'
    )
    (folder / "words.txt").write_text("bad\n")
    by_hand = [
        *(
            kind(profile=profile)
            for kind in (C4, Fineweb, GopherQuality, GopherRepetition, Length)
            for profile in PROFILES
        ),
        Decontaminate(paths=[str(folder / "items.jsonl")]),
        Fineweb2(method="tail", confidence=None),
        UrlFilter(words=[str(folder / "words.txt")]),
        Where(keep='text != "x" and url is not None'),
        Normalise(form="NFKD", casefold=True),
        ExactDedup(normalise="nfkc_casefold"),
        Extract(extractor="trafilatura"),
        CLUSTER,
        RandomCalibrated(score_column="ngram_loss.loss"),
    ]
    handled = {type(operator) for operator in by_hand} | {Rehydrate}
    rest = [kind() for kind in registry.operators().values() if kind not in handled]
    return [*by_hand, *rest, Normalise(), ExactDedup(), Extract()]


def _table(*texts: str | None) -> pa.Table:
    n_rows = len(texts)
    return pa.table(
        {
            "id": [str(i) for i in range(n_rows)],
            "text": pa.array(texts, pa.large_string()),
            "source": ["fuzz"] * n_rows,
            "url": pa.array(["http://e.org/" + text[:50] if text else None for text in texts], pa.string()),
            "lang": pa.array([("en", "zh", None)[i % 3] for i in range(n_rows)], pa.string()),
            "domain": pa.nulls(n_rows, pa.string()),
            ROW: pa.array(np.arange(n_rows), pa.int64()),
        }
    )


def _results(operator: Operator, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that an operator gives, and its reasons if it decides."""
    if any(name.startswith("cluster.") for name in operator.reads):
        table = run_operator(CLUSTER, [table])
    for name in operator.columns_read(operator.model_dump()):
        if name.startswith("ngram_loss."):
            losses = [(1.5, None, float("nan"))[i % 3] for i in range(len(table))]
            table = table.append_column(name, pa.array(losses, pa.float64()))
    done = run_operator(operator, [table])
    return {name: done[name] for name in (*operator.writes, "reason") if name in done.column_names}


@given(texts=st.lists(DOCUMENT, max_size=4))
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
def test_no_document_crashes_an_operator_or_gets_another_number_of_rows(operators, texts):
    table = _table(*texts)
    for operator in operators:
        for name, column in _results(operator, table).items():
            assert len(column) == len(texts), (operator.name, name)


def _references() -> Iterator[tuple[object, str, object]]:
    """(module, name, reference) of each kernel that an operator's module calls and that has a reference."""
    for name, module in list(sys.modules.items()):
        if name.startswith("cuvee.operators."):
            for called, function in list(vars(module).items()):
                home = sys.modules.get(getattr(function, "__module__", None) or "")
                reference = getattr(home, f"{called}_reference", None)
                if reference is not None and home.__name__.startswith("cuvee.kernels."):
                    yield module, called, reference


@given(texts=st.lists(DOCUMENT, max_size=3))
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
def test_scores_by_kernels_are_those_of_the_references(operators, texts):
    table = _table(*texts)
    forget()
    by_kernels = [_results(operator, table) for operator in operators]
    forget()
    with pytest.MonkeyPatch.context() as patch:
        replaced = [
            (patch.setattr(module, name, function), name)[1] for module, name, function in _references()
        ]
        by_references = [_results(operator, table) for operator in operators]
    forget()
    assert {"words", "pieces", "ngram_repetition", "line_statistics", "c4_lines", "casefold"} <= set(replaced)
    for operator, found, expected in zip(operators, by_kernels, by_references, strict=True):
        for name, column in found.items():
            assert column.equals(expected[name]), (operator, name)


@pytest.mark.parametrize("unit", UNITS)
def test_two_megabytes_in_one_line_are_done(operators, unit):
    _do(operators, unit, 2_000_000)


def test_any_unit_is_done_a_hundred_thousand_bytes_long(operators):
    for unit in MORE_UNITS:
        _do(operators, unit, 100_000)


def _do(operators: list[Operator], unit: str, n_bytes: int) -> None:
    table = _table(unit * (n_bytes // len(unit.encode())), "short")
    for operator in operators:
        assert all(len(column) == 2 for column in _results(operator, table).values()), (operator.name, unit)
