"""Which addresses name one page, and which document of a page stays."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from pydantic import ValidationError

from cuvee.operators.url_dedup import UrlDedup, normalise_url

SAME = [
    ("http://example.com", "https://example.com/"),
    ("http://example.com/a", "http://EXAMPLE.com:80/a/"),
    ("https://example.com:443/a", "http://www.example.com./a"),
    ("http://example.com/%7Eme/%c3%a9", "http://example.com/~me/%C3%A9"),
    ("http://example.com/a/./b/../c", "http://example.com/a/c"),
    ("http://example.com/../../a", "http://example.com/a"),
    ("http://example.com/a?x=1&y=2", "http://example.com/a?y=2&x=1"),
    ("http://example.com/a?x=1&utm_source=news&GCLID=7", "http://example.com/a?x=1"),
    ("http://example.com/a?", "http://example.com/a#"),
    ("http://example.com/a?fbclid=1", "  http://example.com/a\n"),
    ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080"),
]
DIFFERENT = [
    ("http://example.com/a", "http://example.com/A"),
    ("http://example.com/a", "http://example.org/a"),
    ("http://example.com:8080/a", "http://example.com/a"),
    ("http://example.com:443/", "http://example.com/"),
    ("http://example.com/a?x=1", "http://example.com/a?x=2"),
    ("http://example.com/a%2Fb", "http://example.com/a/b"),
    ("http://example.com/a?page=2", "http://example.com/a"),
    ("http://a@example.com/", "http://b@example.com/"),
    ("http://example.com/book#part-1", "http://example.com/book#part-2"),
    ("http://example.com", "ftp://example.com"),
]
QUERIES = st.sampled_from(["keep", "drop_tracking", "drop"])
URLS = st.builds(
    lambda scheme, host, path, query: f"{scheme}://{host}/{'/'.join(path)}?{'&'.join(query)}",
    st.sampled_from(["http", "HTTP", "https"]),
    st.sampled_from(["www.Example.com", "example.com:8080", "u@h", "[::1]", "EXAMPLE.COM."]),
    st.lists(st.sampled_from(["a", "B", ".", "..", "", "%7e", "%2f", "é", "%", "a:b"]), max_size=5),
    st.lists(st.sampled_from(["b=1", "a=%7e", "utm_x=1", "", "a", "a=&b"]), max_size=4),
)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_addresses_of_one_page_have_one_form(one, other):
    assert normalise_url(one) == normalise_url(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_addresses_of_two_pages_have_two_forms(one, other):
    assert normalise_url(one) != normalise_url(other)


@given(url=URLS, query=QUERIES)
def test_a_form_read_as_an_address_has_the_same_form(url, query):
    form = normalise_url(url, query)
    assert normalise_url(f"http://{form}", query) == form


@given(url=st.text(max_size=20) | st.sampled_from(["http://[x/", "http://h:x/", "http:///a", "a:b"]))
def test_what_is_no_web_address_is_compared_as_it_is(url):
    assert normalise_url(url) == url.strip()


def test_a_query_counts_as_far_as_is_asked():
    url = "http://example.com/a?b=1&utm_medium=mail"
    forms = [normalise_url(url, query) for query in ("keep", "drop_tracking", "drop")]
    assert forms == ["example.com/a?b=1&utm_medium=mail", "example.com/a?b=1", "example.com/a"]


def test_a_fragment_may_be_only_a_place_on_the_page():
    one, other = (normalise_url(f"http://example.com/a#{place}", fragment="drop") for place in ("b", "c"))
    assert one == other == "example.com/a"


def _documents(urls, texts=None):
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(len(urls))],
            "text": pa.array(texts or ["text"] * len(urls), pa.large_string()),
            "url": pa.array(urls, pa.string()),
        }
    )


def test_of_one_page_the_first_document_stays(check_operator):
    urls = ["http://a.org/x", None, "https://www.a.org/x/", "", "http://a.org/y", " ", "http://a.org/x#"]
    result = check_operator(UrlDedup(), _documents(urls))
    assert np.flatnonzero(result["reason"].is_valid()).tolist() == [2, 6]
    assert result["url_dedup.keeper"].to_pylist() == [0, 1, 0, 3, 4, 5, 0]
    assert result["url_dedup.cluster_size"].to_pylist() == [3, 1, 3, 1, 1, 1, 3]


def test_of_one_page_the_longest_text_may_stay(check_operator):
    urls = ["http://a.org/x", None, "http://a.org/x", "http://a.org/x"]
    result = check_operator(UrlDedup(keep="longest"), _documents(urls, ["12", "1", "1234", "123"]))
    assert result["url_dedup.rank"].to_pylist() == [2, 0, 0, 1]


def test_a_wrong_parameter_is_refused():
    with pytest.raises(ValidationError, match="query"):
        UrlDedup(query="sort")
