import pyarrow as pa
import pytest

from cuvee.operators.extract import Extract, looks_like_html

pytest.importorskip("resiliparse", reason="resiliparse is not installed")

PAGE = """<!DOCTYPE html><html><head><title>Wine</title></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/shop">Shop</a></li></ul></nav>
<article><h1>The cellar</h1><p>The cellar master tastes each vat in spring &amp; writes down what the wine of
that year has to offer, and a blend is composed from many of them.</p>
<ul><li>vats</li></ul><p>None of the parts is as good as the whole that they make together.</p></article>
<footer>Imprint, privacy policy</footer></body></html>"""


@pytest.fixture
def extract(table_of):
    def extract(text, **parameters):
        return Extract(**parameters).apply(table_of(text))["text"][0].as_py()

    return extract


def test_it_keeps_the_contract_of_an_operator(documents, check_operator):
    texts = documents["text"].to_pylist()
    texts[2] = PAGE
    check_operator(Extract(), documents.set_column(1, "text", pa.array(texts, pa.large_string())))


def test_the_main_content_stays_and_navigation_goes(extract):
    text = extract(PAGE)
    assert "tastes each vat in spring & writes" in text
    assert "Shop" not in text
    assert "privacy policy" not in text


def test_the_whole_page_can_be_asked_for(extract):
    text = extract(PAGE, main_content=False, list_bullets=False)
    assert "Shop" in text
    assert "privacy policy" in text


def test_elements_can_be_left_out_by_selector(extract):
    assert "The cellar\n" in extract(PAGE)
    assert "The cellar\n" not in extract(PAGE, skip_elements=["h1"])


def test_trafilatura_finds_the_same_content(extract):
    pytest.importorskip("trafilatura", reason="trafilatura is not installed")
    text = extract(PAGE, extractor="trafilatura")
    assert "tastes each vat in spring & writes" in text
    assert "privacy policy" not in text
    assert extract("<html></html>", extractor="trafilatura") == ""


def test_elements_nested_without_end_take_no_time_in_the_square_of_their_depth(extract):
    assert extract(f"<html><body>{'<div><b>' * 20_000}deep down") == "deep down"
    assert extract(f"<html><body>{'</b>' * 900}{'<div>' * 600}deep down{'</div>' * 600}") == "deep down"


@pytest.mark.parametrize(
    "text", ["Prose with a < b and c > d.", "", "a <p> in the middle", '{"html": "<p>"}', "<3 you"]
)
def test_text_that_is_no_html_stays_as_it_is(text, table_of):
    result = Extract().apply(table_of(text))
    assert result["text"].to_pylist() == [text]
    assert result["extract.n_html_characters"].to_pylist() == [0]


def test_what_the_archive_calls_html_is_html(table_of):
    table = table_of("no tag at first <p>one</p>", "no tag at first <p>one</p>")
    table = table.append_column("warc.media_type", pa.array(["text/html", "text/plain"]))
    result = Extract(main_content=False).apply(table)
    assert result["text"].to_pylist() == ["no tag at first\n\none", "no tag at first <p>one</p>"]
    assert result["extract.n_html_characters"].to_pylist() == [26, 0]


@pytest.mark.parametrize(
    "text",
    [
        "<p>a",
        " \n<!DOCTYPE HTML>",
        "<!-- c --><html>",
        '<?xml version="1.0"?><html>',
        "<HTML>",
        "<a href=x>",
        "<h1>",
    ],
)
def test_a_document_that_begins_with_a_tag_is_html(text):
    assert looks_like_html(text)


def test_an_extractor_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("cuvee.operators.files.find_spec", lambda package: None)
    with pytest.raises(
        ValueError, match=r"'trafilatura' is not installed: pip install 'cuvee\[trafilatura\]'"
    ):
        Extract(extractor="trafilatura")
