import pytest

from cuvee.operators.pii import Pii


def _clean(table_of, text):
    result = Pii().apply(table_of(text))
    return tuple(result[name][0].as_py() for name in ("text", "pii.n_emails", "pii.n_ips"))


@pytest.mark.parametrize("operator", [Pii(), Pii(replace_email="", replace_ip="<ip>")])
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    check_operator(operator, documents)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Mail Anna.Weber+wine@mail.weingut-weber.de.", "Mail email@example.com."),
        ("<a href='mailto:a@b.org'>a@b.org</a>", "<a href='mailto:email@example.com'>email@example.com</a>"),
        ("**team@idyll.org**, x_y@z.co.uk", "**email@example.com**, email@example.com"),
        ("邮箱：anna@weber.de。", "邮箱：email@example.com。"),
        ("a@b.de@c.org", "email@example.com@c.org"),
        ("x" * 63 + "@b.de", "email@example.com"),
    ],
)
def test_an_email_address_is_replaced(text, clean, table_of):
    assert _clean(table_of, text) == (clean, clean.count("email@"), 0)


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com, root@localhost, me@mail.example.org, x@y.test",  # nobody's
        "@app.route('/') and ``@app.cli.command()``",
        "[@octocat](https://github.com/octocat) a@b @ c.de @",
        "{{user}}@host",
    ],
)
def test_what_is_no_email_address_of_anybody_stays(text, table_of):
    assert _clean(table_of, text) == (text, 0, 0)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("from 212.94.201.10.", "from 192.0.2.1."),
        ("http://212.94.201.10:8080/, 1.208.0.0/12", "http://192.0.2.1:8080/, 192.0.2.1/12"),
        ("212.94.201.10-212.94.201.19", "192.0.2.1-192.0.2.1"),
        ("2a00:1450:4001:81b::200e and", "2001:db8::1 and"),
        ("[2606:4700:3033:0000:0000:0000:ac43:a21f]", "[2001:db8::1]"),
    ],
)
def test_a_public_ip_address_is_replaced(text, clean, table_of):
    assert _clean(table_of, text) == (clean, 0, clean.count("192.0.2.1") + clean.count("2001:db8::1"))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1 10.1.200.3 192.168.0.1 172.16.254.1 169.254.3.4 100.64.0.1",  # private
        "0.0.0.0 255.255.255.0 240.0.0.1 224.0.0.251 239.255.255.250",  # reserved, multicast
        "192.0.2.77 198.51.100.1 203.0.113.9",  # documentation
        "see 11.8.3.1, section 9.2.1.4, version 3.3.9.45 and 8.8.8.8",  # below 64
        "1.2.3.400 212.94.201.10.7 v212.94.201.10 212.94.201.010",  # no addresses
        "::1 fe80::1 fd00::1 2001:db8:1::2 3000:: a::b std::vector 20:30:40 2021:12:31",
    ],
)
def test_what_is_no_public_ip_address_stays(text, table_of):
    assert _clean(table_of, text) == (text, 0, 0)


def test_a_second_pass_changes_nothing(documents):
    once = Pii().apply(documents)
    twice = Pii().apply(once)
    assert twice["text"].equals(once["text"])
    counts = [twice[name].to_pylist() for name in ("pii.n_emails", "pii.n_ips", "pii.n_phones")]
    assert {n for column in counts for n in column} == {0}


def test_the_placeholders_are_the_recipes_to_choose(table_of):
    operator = Pii(replace_email="<mail>", replace_ip="<ip>", replace_ipv6="<ipv6>")
    result = operator.apply(table_of("a@b.de 212.94.201.10 2a00:1450:4001:81b::200e"))
    assert result["text"].to_pylist() == ["<mail> <ip> <ipv6>"]


def test_a_missing_text_stays_missing(table_of):
    result = Pii().apply(table_of(None, "a@b.de"))
    assert result["text"].to_pylist() == [None, "email@example.com"]
    assert result["pii.n_emails"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("call +49 30 901820.", "call +1 202-555-0100."),
        ("+44 (0)20 7613 9800, +33 1 44 30 10 00", "+1 202-555-0100, +1 202-555-0100"),
        ("tel:+352224455", "tel:+1 202-555-0100"),
        ("(212) 736-5000 or 212-736-5000", "+1 202-555-0100 or +1 202-555-0100"),
        ("1-800-736-5000; 212.736.5000", "+1 202-555-0100; +1 202-555-0100"),
    ],
)
def test_a_phone_number_is_replaced(text, clean, table_of):
    result = Pii().apply(table_of(text))
    assert result["text"].to_pylist() == [clean]
    assert result["pii.n_phones"].to_pylist() == [clean.count("555")]


@pytest.mark.parametrize(
    "text",
    [
        "+1 202-555-0100 and 212-555-0199",  # of fiction
        "2024-05-17 17:30:00+0100 +10000 +2.941 $16.176 x+12345678 [A-Z]+123456789",
        "ISBN 978-3-16-148410-0, 123-456-7890, 12-345-6789, 1212-736-5000, 212-736-50001",
        "2127365000 order 555-1234 v1.212.736.5000",
    ],
)
def test_what_is_no_phone_number_of_anybody_stays(text, table_of):
    assert Pii().apply(table_of(text))["text"].to_pylist() == [text]


def test_phone_numbers_can_be_left_as_they_are(table_of):
    result = Pii(replace_phone=None).apply(table_of("call +49 30 901820"))
    assert result["text"].to_pylist() == ["call +49 30 901820"]
    assert result["pii.n_phones"].to_pylist() == [0]
