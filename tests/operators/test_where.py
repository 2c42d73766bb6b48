import re

import pyarrow as pa
import pytest
from pydantic import ValidationError

from cuvee.operators.expression import Expression, ExpressionError
from cuvee.operators.length import Length
from cuvee.operators.where import Where

TABLE = pa.table(
    {"n": [1, 2, None], "q.score": [0.5, 0.1, 0.2], "lang": ["en", "de", None], "flag": [True, False, None]}
)


@pytest.mark.parametrize(
    "operator",
    [Where(keep="stars > 3 or lang == 'en'"), Length(), Length(min_characters=5, max_words=60, max_lines=2)],
)
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    check_operator(operator, documents)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("n > 1", [False, True, None]),
        ("n >= 1 and q.score < 0.3", [False, True, None]),
        ("n > 1 or q.score > 0.1", [True, True, True]),
        ("not n > 1", [True, False, None]),
        ("1 < n + 1 <= 2", [True, False, None]),
        ("n / 4 == q.score / 2", [True, False, None]),
        ("-n < -1.5", [False, True, None]),
        ("lang in ['en', 'fr']", [True, False, None]),
        ("lang not in ('en',)", [False, True, None]),
        ("lang is None", [False, False, True]),
        ("lang is not None and lang == 'en'", [True, False, False]),
        ("n in [2, 3]", [False, True, None]),
        ("flag", [True, False, None]),
        ("not flag", [False, True, None]),
    ],
)
def test_a_condition_holds_as_it_does_in_sql(condition, holds):
    assert Expression(condition).holds(TABLE).to_pylist() == holds


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("n >", "cannot read this"),
        ("", "cannot read this"),
        ("n + 1", "this is a value; a condition compares values\n  n \\+ 1\n  \\^"),
        ("1", "this is a value"),
        (
            "n > 1 and f(n) > 2",
            "Call has no place in a condition; columns, numbers, .* allowed\n.*\n            \\^",
        ),
        ("__import__('os').system('true')", "Call has no place"),
        ("n[0] > 1", "Subscript has no place"),
        ("(lambda: 1) == 1", "Lambda has no place"),
        ("n ** 9 > 1", "BinOp has no place"),
        ("f'{n}' == '1'", "JoinedStr has no place"),
        ("n in q.score", "a list of strings or numbers must follow 'in'"),
        ("n is 3", "only None can follow 'is'; use == here\n  n is 3\n       \\^"),
        ("f().x == 1", "a column's name must stand before this dot"),
        ("(" * 300 + "n > 1" + ")" * 300, "cannot read this"),
    ],
)
def test_what_is_no_condition_is_refused_before_anything_runs(condition, message):
    with pytest.raises(ExpressionError, match=message):
        Expression(condition)
    with pytest.raises(ValidationError, match=message):
        Where(keep=condition)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("q.scores > 1", "there is no column 'q.scores'; did you mean 'q.score'?\n  q.scores > 1\n  ^"),
        ("zzz == 1", "there is no column 'zzz'; there are n, q.score, lang, flag"),
        ("lang > 1", "this does not work on string and int64"),
        ("n == 1 and n", "this does not work on bool and int64"),
        ("n in ['a']", "this does not work on int64"),
        ("lang", "this column holds string; compare it with something"),
    ],
)
def test_a_condition_that_does_not_fit_the_columns_says_where(condition, message):
    with pytest.raises(ExpressionError, match=re.escape(message)):
        Expression(condition).holds(TABLE)


def test_what_a_missing_value_leaves_open_stays():
    operator = Where(keep="n > 1", reason="too_small")
    scores = operator.scores(TABLE)
    assert scores["where.holds"].to_pylist() == [0, 1, None]
    assert operator.reasons(scores).to_pylist() == ["too_small", None, None]


def test_a_dictionary_column_compares_like_its_values():
    table = pa.table({"lang": TABLE["lang"].dictionary_encode()})
    assert Expression("lang == 'de'").holds(table).to_pylist() == [False, True, None]


def test_a_condition_tells_which_columns_it_reads():
    assert Where.columns_read({"keep": "a.b > 1 and c in [1] or a.b < 0"}) == ("a.b", "c")
    assert Where.columns_read({"keep": "a >"}) == ()
    assert Where.columns_read({}) == ()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"min_characters": 9}, "too_few_characters"),
        ({"max_characters": 7}, "too_many_characters"),
        ({"min_words": 4}, "too_few_words"),
        ({"max_words": 2}, "too_many_words"),
        ({"min_lines": 3}, "too_few_lines"),
        ({"max_lines": 1}, "too_many_lines"),
        ({"min_characters": 8, "max_words": 3, "min_lines": 2}, None),
    ],
)
def test_lengths_have_limits_and_reasons(limits, reason, table_of):
    operator = Length(**limits)
    scores = operator.scores(table_of("éa b\nc d"[:8].replace("c d", "cde")))
    assert [values[0].as_py() for values in scores.values()] == [8, 3, 2]
    assert operator.reasons(scores).to_pylist() == [reason]
