import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.operators.fix_unicode import FixUnicode

ftfy = pytest.importorskip("ftfy", reason="ftfy is not installed")


def test_it_keeps_the_contract_of_an_operator(documents, check_operator):
    texts = documents["text"].to_pylist()
    texts[2] = "schÃ¶n\nund gut"
    check_operator(FixUnicode(), documents.set_column(1, "text", pa.array(texts, pa.large_string())))


def test_mojibake_is_repaired_and_its_lines_are_counted(table_of):
    result = FixUnicode().apply(table_of("schÃ¶n\nund gut\nSchÃ¼ler", "schön", None))
    assert result["text"].to_pylist() == ["schön\nund gut\nSchüler", "schön", None]
    assert result["fix_unicode.n_lines"].to_pylist() == [2, 0, 0]


def test_what_is_only_unusual_stays(table_of):
    texts = ["\u201ccurly\u201d \ufb01sh \uff21\uff22", "e\u0301 de\u0301compose\u0301", "a\r\nb\u2028c"]
    assert FixUnicode().apply(table_of(*texts))["text"].to_pylist() == texts


def test_the_recipe_chooses_what_is_changed(table_of):
    result = FixUnicode(uncurl_quotes=True, normalization="NFC").apply(table_of("\u201ce\u0301\u201d"))
    assert result["text"].to_pylist() == ['"é"']


PIECES = ["a", "&lt;", "<b>", "schÃ¶n", "\x0c", "\x07", "\r", "\u2028", "\n", "\n\n"]


@given(
    texts=st.lists(
        st.text(st.characters(max_codepoint=0x100))
        | st.text("&lt;\x1b[0m\x07\t\n a")
        | st.lists(st.sampled_from(PIECES)).map("".join),
        max_size=5,
    ),
    fix_line_breaks=st.booleans(),
)
def test_the_shortcut_for_sound_lines_changes_no_result(texts, fix_line_breaks):
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    operator = FixUnicode(fix_line_breaks=fix_line_breaks)
    expected = [ftfy.fix_text(text, operator._config) for text in texts]
    assert (
        operator.apply(pa.table({"text": pa.array(texts, pa.large_string())}))["text"].to_pylist() == expected
    )


@pytest.mark.parametrize("line", ["\r\n", "é\n", "\x07\n"])
def test_equal_lines_are_looked_at_once(table_of, monkeypatch, line):
    looked_at = []
    fix_text = ftfy.fix_text

    def noted(text, config):
        looked_at.append(text)
        return fix_text(text, config)

    monkeypatch.setattr(ftfy, "fix_text", noted)
    result = FixUnicode().apply(table_of(f"{line * 1000}é\r\n"))
    assert sorted(looked_at) == sorted({line, "é\r\n"} - {"\r\n"})
    assert result["text"].to_pylist() == [fix_text(f"{line * 1000}é\r\n", FixUnicode()._config)]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("cuvee.operators.files.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"pip install 'cuvee\[unicode\]'"):
        FixUnicode()
