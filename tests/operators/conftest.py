"""A small corpus in which every operator of curation finds something to do."""

import pyarrow as pa
import pytest

PROSE = (
    "The cellar master tastes each vat in spring and writes down what the wine of that year has to offer. "
    "A blend is composed from many of them, and none of the parts is as good as the whole they make. "
    "To find it, one has to try many mixtures with small glasses before the casks are opened for real."
)
GERMAN = (
    "Der Kellermeister kostet im Frühjahr jedes Fass und schreibt auf, was der Wein zu bieten hat. "
    "Aus vielen entsteht die Cuvée, und kein Teil ist so gut wie das Ganze, das sie zusammen ergeben."
)
JAPANESE = "蔵の主は春にそれぞれの樽を味わい、その年の葡萄酒に何があるかを書き留める。"
CONTACT = f"{PROSE} Write to Anna.Weber@weingut-weber.de or see 212.94.201.10 and 2a00:1450:4001:81b::200e."
TEXTS = [
    PROSE,
    GERMAN,
    PROSE.replace("for real", "at last"),
    JAPANESE,
    "",
    PROSE,
    " \n\t ",
    PROSE.upper().replace(" ", "  ") + "\n",
    "- one\n- two\n- three",
    CONTACT,
    "### 12 34 ... 56 \u2026",
    GERMAN,
    PROSE + " And then it is summer.",
]


@pytest.fixture(scope="session")
def documents() -> pa.Table:
    n_rows = len(TEXTS)
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(n_rows)],
            "text": pa.array(TEXTS, pa.large_string()),
            "source": ["test"] * n_rows,
            "url": pa.array([None] * n_rows, pa.string()),
            "lang": pa.array(["en", *[None] * (n_rows - 1)], pa.string()),
            "domain": pa.array([None] * n_rows, pa.string()),
            "stars": range(n_rows),
        }
    )


@pytest.fixture(scope="session")
def table_of():
    """Makes a document table of texts."""

    def table_of(*texts: str | None, lang: list[str | None] | None = None) -> pa.Table:
        return pa.table(
            {
                "id": [f"doc-{i}" for i in range(len(texts))],
                "text": pa.array(texts, pa.large_string()),
                "lang": pa.array(lang or [None] * len(texts), pa.string()),
            }
        )

    return table_of
