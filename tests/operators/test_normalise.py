import unicodedata

import pytest

from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.normalise import Normalise

VARIANTS = ["Straße Ångström", "STRASSE  A\u030angstro\u0308m\n", "strasse \u212bngstr\u00f6m"]


@pytest.mark.parametrize(
    "operator", [Normalise(), Normalise(form="NFKD", casefold=True), Normalise(form=None, casefold=True)]
)
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    check_operator(operator, documents)


def test_texts_are_in_the_form_and_the_changed_ones_are_known(table_of):
    texts = ["re\u0301sume\u0301", "résumé", "plain", None, "ﬁn 2⁵"]
    table = Normalise(form="NFC").apply(table_of(*texts))
    assert table["text"].to_pylist() == ["résumé", "résumé", "plain", None, "ﬁn 2⁵"]
    assert table["normalise.changed"].to_pylist() == [True, False, False, False, False]
    table = Normalise(form="NFKC", casefold=True).apply(table_of(*texts[3:], "SS ß"))
    assert table["text"].to_pylist() == [None, "fin 25", "ss ss"]


def test_a_slice_of_a_table_is_its_own_text(table_of):
    table = table_of("aé" * 3, "e\u0301", "x").slice(1)
    assert Normalise().apply(table)["text"].to_pylist() == ["é", "x"]


def test_exact_duplicates_may_differ_in_forms_of_letters(documents, table_of, check_operator):
    operator = ExactDedup(normalise="nfkc_casefold")
    check_operator(operator, documents)
    expected = {" ".join(unicodedata.normalize("NFKC", text.casefold()).split()) for text in VARIANTS}
    assert len(expected) == 1
    whole = check_operator(operator, _with_ids(documents.slice(0, 3), VARIANTS))
    assert whole["reason"].to_pylist() == [None, "duplicate", "duplicate"]
    plain = check_operator(
        ExactDedup(normalise="whitespace_case"), _with_ids(documents.slice(0, 3), VARIANTS)
    )
    assert plain["reason"].to_pylist() == [None, None, None]


def _with_ids(table, texts):
    return table.set_column(table.column_names.index("text"), "text", [texts])
