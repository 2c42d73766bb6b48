"""Corpora for the deduplication benchmark: one JSONL file, and any number of documents made from its own."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa

LINES_A_FILE = 50_000


def read_corpus(folder: Path, domains: list[str]) -> list[dict[str, str]]:
    """id, text and domain of every document of the domains, in the order of the files."""
    documents = []
    for domain in domains:
        for path in sorted((folder / domain).glob("*.jsonl.zst")):
            with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
                rows = map(orjson.loads, filter(bytes.strip, stream.read().split(b"\n")))
                documents += [{"id": row["id"], "text": row["text"], "domain": domain} for row in rows]
    return documents


def write_jsonl(path: Path, documents: Iterator[dict[str, str]] | list[dict[str, str]]) -> Path:
    """One document a line."""
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    return path


def paragraphs_of(documents: list[dict[str, str]]) -> list[str]:
    """Distinct paragraphs of middling length."""
    found = {
        part for document in documents for part in document["text"].split("\n\n") if 150 <= len(part) <= 600
    }
    return sorted(found)


def recombined(
    paragraphs: list[str], n_docs: int, seed: int, licence: str | None = None
) -> Iterator[dict[str, str]]:
    """Documents of three random paragraphs; of 20, one repeats an earlier one, two differ from one by words.

    Args:
        licence: this text with a varying line below it stands for 3 of 10 documents.
    """
    random_ = random.Random(seed)
    recent = [""] * 1000
    for i in range(n_docs):
        kind = random_.random()
        if licence is not None and kind < 0.3:
            text = f"{licence} (c) {random_.randrange(50)} of many authors"
        elif i > len(recent) and kind > 0.85:
            text = random_.choice(recent)
            if kind > 0.9:
                words = text.split(" ")
                for _ in range(random_.randrange(1, 6)):
                    words[random_.randrange(len(words))] = str(random_.randrange(10**6))
                text = " ".join(words)
        else:
            text = "\n\n".join(random_.choice(paragraphs) for _ in range(3))
        recent[i % len(recent)] = text
        yield {"id": f"{seed}-{i}", "text": text}


def write_recombined(
    folder: Path, paragraphs: list[str], n_docs: int, licence: str | None = None
) -> tuple[Path, float]:
    """`n_docs` documents in files of `LINES_A_FILE`; returns their folder and their text in MB."""
    folder.mkdir(parents=True)
    n_chars = 0
    for k, start in enumerate(range(0, n_docs, LINES_A_FILE)):
        documents = list(recombined(paragraphs, min(LINES_A_FILE, n_docs - start), k, licence))
        n_chars += sum(len(document["text"].encode()) for document in documents)
        write_jsonl(folder / f"part-{k:03d}.jsonl", documents)
    return folder, n_chars / 1e6
