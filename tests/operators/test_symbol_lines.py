import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.operators.symbol_lines import SymbolLines


def _without_symbol_lines(text, symbols, blank_line):
    """What stays of a text, line by line, and how many lines go."""
    left, n_lines, is_open = [], 0, False
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        body = line.rstrip("\n")
        is_symbols = bool(body.strip(" ")) and not body.strip(" " + symbols)
        if not is_symbols:
            left.append(line)
        elif blank_line and not is_open:
            left.append("\n")
        n_lines, is_open = n_lines + is_symbols, is_symbols
    return "".join(left), n_lines


def test_it_keeps_the_contract_of_an_operator(documents, check_operator):
    texts = documents["text"].to_pylist()
    texts[2] = "| a | b |\n|  |\n||"
    check_operator(SymbolLines(), documents.set_column(1, "text", pa.array(texts, pa.large_string())))


def test_empty_rows_of_a_table_go_and_full_ones_stay(table_of):
    result = SymbolLines().apply(table_of("Before\n| |\n||\nafter\n| a |\n\n|", "no table", None))
    assert result["text"].to_pylist() == ["Before\n\nafter\n| a |\n\n\n", "no table", None]
    assert result["symbol_lines.n_lines"].to_pylist() == [3, 0, 0]


@pytest.mark.parametrize("blank_line", [True, False])
@given(texts=st.lists(st.text("|]^-\\ a\né"), max_size=4), symbols=st.text("|]^-\\[", min_size=1, max_size=4))
def test_lines_go_that_are_symbols_and_spaces_alone(blank_line, texts, symbols):
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    result = SymbolLines(symbols=symbols, blank_line=blank_line).apply(table)
    found = zip(result["text"].to_pylist(), result["symbol_lines.n_lines"].to_pylist(), strict=True)
    assert list(found) == [_without_symbol_lines(text, symbols, blank_line) for text in texts]
