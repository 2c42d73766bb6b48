import pyarrow as pa
import pytest

from cuvee.operators.url_filter import UrlFilter


@pytest.fixture
def lists(tmp_path):
    def lists(**content):
        parameters = {}
        for field, lines in content.items():
            path = tmp_path / f"{field}.txt"
            path.write_text("\n".join(lines), "utf-8")
            parameters[field] = [str(path)]
        return UrlFilter(**parameters)

    return lists


def _reasons(operator, *urls):
    return operator.reasons(operator.scores(pa.table({"url": pa.array(urls, pa.string())}))).to_pylist()


def test_it_keeps_the_contract_of_an_operator(lists, documents, check_operator):
    urls = ["https://bad.org/a", "https://good.org/casino", None, ""] + ["http://good.org"] * 9
    table = documents.set_column(3, "url", pa.array(urls, pa.string()))
    result = check_operator(lists(domains=["bad.org"], words=["casino"]), table)
    assert result["reason"].to_pylist()[:4] == ["domain", "word", None, None]


@pytest.mark.parametrize(
    "url",
    [
        "https://bad.org",
        "HTTP://WWW.BAD.ORG/path?x#y",
        "https://user:pw@a.b.bad.org:8080/",
        "bad.org/x",
        "//bad.org./x",
        "https://1.2.3.4:80/x",
    ],
)
def test_a_listed_domain_blocks_itself_and_all_below_it(url, lists):
    assert _reasons(lists(domains=["# comment", "bad.org  # why", "", "1.2.3.4"]), url) == ["domain"]


@pytest.mark.parametrize(
    "url", ["https://notbad.org", "https://bad.org.uk", "https://good.org/bad.org", "https://11.2.3.4"]
)
def test_other_domains_stay(url, lists):
    assert _reasons(lists(domains=["bad.org", "1.2.3.4"]), url) == [None]


def test_one_word_is_enough_and_soft_words_may_stand_alone(lists):
    operator = lists(words=["casino"], soft_words=["sexy", "girls"], subwords=["pornhub"])
    assert _reasons(
        operator,
        "https://x.org/best-casino/",
        "https://x.org/casinos",
        "https://x.org/sexy",
        "https://x.org/sexy_girls",
        "https://x.org/sexy/sexy",
        "https://x.org/my.Porn-Hub.9",
    ) == ["word", None, None, "soft_words", None, "subword"]


def test_the_scores_name_what_was_found(lists):
    operator = lists(domains=["bad.org"], words=["casino"], urls=["https://x.org/a"])
    scores = operator.scores(pa.table({"url": ["https://a.bad.org/casino", "https://X.org/a"]}))
    assert scores["url_filter.domain"].to_pylist() == ["bad.org", None]
    assert scores["url_filter.words"].to_pylist() == ["casino", None]
    assert operator.reasons(scores).to_pylist() == ["domain", "url"]


def test_compressed_lists_are_read(tmp_path):
    import gzip

    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"bad.org\n"))
    assert _reasons(UrlFilter(domains=[str(path)]), "http://bad.org") == ["domain"]


def test_the_identity_follows_the_lists_content_not_their_place(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("bad.org")
    two.write_text("bad.org")
    assert UrlFilter(domains=[str(one)]).identity() == UrlFilter(domains=[str(two)]).identity()
    two.write_text("worse.org")
    assert UrlFilter(domains=[str(one)]).identity() != UrlFilter(domains=[str(two)]).identity()


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file or directory; correct the path"):
        UrlFilter(domains=["/nowhere/list"])
    (tmp_path / "latin").write_bytes(b"caf\xe9.fr")
    with pytest.raises(ValueError, match="byte 3 is not UTF-8"):
        _reasons(UrlFilter(domains=[str(tmp_path / "latin")]), "http://x.org")
