"""Objectives: what they compute, and what they refuse with the place marked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.mixing.objective import Objective

NAMES = ("web", "wiki", "the_pile/cc")
METRICS = np.array([[2.0, 4.0, 3.0], [1.0, 8.0, 5.0]])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("web + 2 * wiki", [10.0, 17.0]),
        ("-web ** 2 / (wiki - 3)", [-4.0, -0.2]),
        ("max(web, wiki - 3, 1.5)", [2.0, 5.0]),
        ("mean(web, wiki, metric['the_pile/cc'])", [3.0, 14 / 3]),
        ("exp(log(wiki) / 2) + abs(-1) + sqrt(4)", [5.0, 3 + 8**0.5]),
        ("min(web, 3) - +1", [1.0, 0.0]),
        ("7", [7.0, 7.0]),
    ],
)
def test_an_expression_has_the_value_of_its_arithmetic(expression, expected):
    found = Objective("expression", expression=expression)(METRICS, NAMES)
    np.testing.assert_allclose(found, expected)


@given(st.floats(0.1, 5), st.floats(0.1, 5))
def test_a_weighted_mean_is_the_expression_that_spells_it_out(a, b):
    spelled = Objective("expression", expression=f"({a!r} * web + {b!r} * wiki) / ({a!r} + {b!r})")
    weighted = Objective("weighted", {"web": a, "wiki": b})
    np.testing.assert_allclose(spelled(METRICS, NAMES), weighted(METRICS, NAMES))


def test_an_expression_reads_any_leading_shape():
    draws = np.random.default_rng(0).uniform(1, 2, (4, 5, 3))
    found = Objective("expression", expression="max(web, wiki)")(draws, NAMES)
    np.testing.assert_array_equal(found, draws[..., :2].max(axis=-1))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("web +", "cannot read this"),
        ("__import__('os')", r"this Call has no place here.*\n  __import__\('os'\)\n  \^"),
        ("web if wiki else 2", "this IfExp has no place"),
        ("web.real", "this Attribute has no place"),
        ("1 + open(web)", r"\n  1 \+ open\(web\)\n      \^"),
        ("True + web", "this Constant has no place"),
        ("log(web, wiki)", "this Call has no place"),
        ("metric[0]", "this Subscript has no place"),
    ],
)
def test_what_is_no_arithmetic_is_refused_where_it_stands(expression, message):
    with pytest.raises(ValueError, match=message):
        Objective("expression", expression=expression)


def test_a_misspelt_metric_is_named_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"there is no metric 'wikii'; did you mean 'wiki'\?\n  web - wikii\n   "
    ):
        Objective("expression", expression="web - wikii")(METRICS, NAMES)


def test_an_expression_belongs_to_its_kind_and_the_kind_to_an_expression():
    with pytest.raises(ValueError, match="the kind 'expression' has one"):
        Objective("mean", expression="web")
    with pytest.raises(ValueError, match="the kind 'expression' has one"):
        Objective("expression")


@pytest.mark.parametrize(
    ("kind", "by_metric", "message"),
    [
        ("weighted", {"web": -1.0}, r"weights are {'web': -1.0}; .* write the expression: --objective=-acc"),
        ("weighted", {"web": 0.0}, r"one of them positive"),
        ("weighted", None, r"weights are {}"),
        ("weighted", {"web": np.inf}, r"they must be finite"),
        ("worst", {"web": np.nan}, r"references are {'web': nan}; they must be finite"),
        ("best", None, r"kind is 'best'; it is one of mean, weighted, worst, expression"),
    ],
)
def test_an_objective_that_cannot_be_is_refused_when_it_is_made(kind, by_metric, message):
    with pytest.raises(ValueError, match=message):
        Objective(kind, by_metric)


@pytest.mark.filterwarnings("error")
def test_an_objective_that_is_not_finite_is_refused_where_a_mixture_is_chosen_by_it():
    objective = Objective("expression", expression="log(web - 2)")
    assert objective.finite(np.array([[3.0, 1.0]]), ("web", "code")).tolist() == [0.0]
    with pytest.raises(ValueError, match=r"'log\(web - 2\)' is nan at web = 1.5, code = 1; take one that is"):
        objective.finite(np.array([[3.0, 1.0], [1.5, 1.0]]), ("web", "code"))
