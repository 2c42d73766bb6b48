"""Extraction, web archives and decontamination on real pages and documents.

`python -m benchmarks.web [--shared DIR] [--quick] [--json]`. Seconds are CPU seconds of this process (user
and system), without imports and the compilation of kernels. F1 is that of bags of words (``\\w+`` in
lowercase) against the gold text, averaged over pages.
"""

import argparse
import json
import os
import re
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from cuvee.operators.decontaminate import Decontaminate
from cuvee.operators.extract import Extract
from cuvee.pipeline.listing import list_files, list_shards
from cuvee.pipeline.reading import BrokenShardError, Reader
from cuvee.pipeline.recipe import Input
from cuvee.pipeline.web_archive import decode_page

Pages = list[tuple[bytes, str, str]]  # (HTML, declared charset, gold text)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print tables, and with --json one line of figures at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="folder with web/, eval/, corpus/"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a sample of each input")
    arguments = parser.parse_args(argv)
    step = 8 if arguments.quick else 1
    web = unpacked(arguments.shared / "web" / "web-dev.tar.zst")
    documents = list(read_corpus(arguments.shared / "corpus" / "dev", step))
    figures = {
        **extraction(web, step),
        **archives(web),
        **decontamination(arguments.shared / "eval", [row["text"] for row in documents]),
        "n_cores": os.cpu_count(),
        "quick": arguments.quick,
    }
    if arguments.json:
        print(json.dumps(figures))


def unpacked(archive: Path) -> Path:
    """The folder of the pages, unpacked once below build/."""
    folder = Path("build") / "benchmark-web"
    if not (folder / "dev" / "manifest.jsonl").exists():
        with (
            pa.CompressedInputStream(str(archive), "zstd") as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            tar.extractall(folder, filter="data")
    return folder / "dev"


def read_corpus(folder: Path, step: int) -> Iterator[dict[str, str]]:
    """Every `step`-th document, with the name of its folder as its domain."""
    for path in sorted(folder.glob("*/*.jsonl.zst")):
        lines = pa.CompressedInputStream(str(path), "zstd").read().splitlines()
        for line in lines[::step]:
            yield json.loads(line) | {"domain": path.parent.name}


def cpu_seconds(function: Callable[[], Any]) -> tuple[Any, float]:
    """(result, CPU seconds of this process)."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def extraction(web: Path, step: int) -> dict[str, Any]:
    """F1 and speed of each extractor; the libraries beside us with their own decoding and defaults."""
    pages = list(_gold_pages(web))[::step]
    extractors: dict[str, Callable[[bytes, str], str]] = {
        "cuvee resiliparse": _ours(Extract()),
        "cuvee trafilatura": _ours(Extract(extractor="trafilatura")),
        "cuvee trafilatura, precision": _ours(Extract(extractor="trafilatura", favor="precision")),
        "resiliparse": _resiliparse,
        "trafilatura": _trafilatura,
        "all visible text": _ours(Extract(main_content=False)),
    }
    table = _table(
        f"Extraction, {len(pages)} pages", "extractor", "F1", "precision", "recall", "ms/page", "MB/s"
    )
    f1, speed = {}, {}
    for name, extract in extractors.items():
        extract(pages[0][0], pages[0][1])  # what is loaded or compiled once
        texts, seconds = cpu_seconds(
            lambda extract=extract: [extract(html, charset) for html, charset, _ in pages]
        )
        scores = [overlap(text, gold) for text, (_, _, gold) in zip(texts, pages, strict=True)]
        precision, recall, f1[name] = (sum(column) / len(pages) for column in zip(*scores, strict=True))
        speed[name] = sum(len(html) for html, _, _ in pages) / 1e6 / seconds
        row = (f"{f1[name]:.4f}", f"{precision:.4f}", f"{recall:.4f}", f"{seconds / len(pages) * 1e3:.1f}")
        table.add_row(name, *row, f"{speed[name]:.1f}")
    Console().print(table)
    return {"extraction_f1": f1, "extraction_mb_per_cpu_s": speed, "n_pages": len(pages)}


def _gold_pages(web: Path) -> Iterator[tuple[bytes, str, str]]:
    for line in (web / "manifest.jsonl").read_text("utf-8").splitlines():
        page = json.loads(line)
        if page.get("gold") and not page.get("suspect_pairing"):
            gold = (web / page["gold"]).read_text("utf-8", errors="replace")
            yield (web / page["html"]).read_bytes(), page.get("charset") or "", gold


def _ours(operator: Extract) -> Callable[[bytes, str], str]:
    def extract(html: bytes, charset: str) -> str:
        columns = {"text": pa.array([decode_page(html, charset or None)[0]], pa.large_string())}
        table = pa.table(columns | {"warc.media_type": ["text/html"]})
        return str(operator.apply(table)["text"][0])

    return extract


def _resiliparse(html: bytes, _: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    return str(
        extract_plain_text(bytes_to_str(html, detect_encoding(html, from_html_meta=True)), main_content=True)
    )


def _trafilatura(html: bytes, _: str) -> str:
    from trafilatura import extract

    return extract(html) or ""


def overlap(text: str, gold: str) -> tuple[float, float, float]:
    """(precision, recall, F1) of the bag of words of `text`; 1 where both have none.

    >>> overlap("a b b", "b c")
    (0.3333333333333333, 0.5, 0.4)
    """
    found, wanted = (Counter(re.findall(r"\w+", words.lower())) for words in (text, gold))
    n_common = (found & wanted).total()
    if not found or not wanted:
        return (float(found == wanted),) * 3
    precision, recall = n_common / found.total(), n_common / wanted.total()
    return precision, recall, 2 * n_common / (found.total() + wanted.total())


def archives(web: Path) -> dict[str, Any]:
    """What is in every WARC file, and which records were lost."""
    paths = sorted([*web.glob("warc*/*"), *web.glob("real-warc/*")])
    n_pages = n_records = 0
    lost: dict[str, list[str]] = {}
    start = time.process_time()
    for path in paths:
        source = Input(source="web", path=(str(path.resolve()),), format="warc")
        try:
            for shard in list_shards(0, source, list_files(source, "benchmark"), 1 << 30, "benchmark"):
                reading = Reader(source, 64_000_000).read(shard)
                n_pages += len(reading.table())
                n_records += len(reading.table()) + len(reading.unreadable) + reading.n_no_page.total()
                details = reading.unreadable["read.detail"].to_pylist()
                if details:
                    lost[path.name] = [detail.split(": ", 1)[1][:90] for detail in details]
        except BrokenShardError as error:
            lost[path.name] = [f"whole file: {str(error).split(': ', 1)[1][:70]}"]
    seconds = time.process_time() - start
    n_bytes = sum(path.stat().st_size for path in paths)
    rate = n_bytes / 1e6 / seconds
    table = _table(
        f"Web archives: {len(paths)} files, {n_records} records, {n_pages} pages, {rate:.0f} MB/s",
        "file",
        "lost",
    )
    for name, details in lost.items():
        table.add_row(name, "\n".join(details))
    Console().print(table)
    n_lost = sum(not detail.startswith("whole") for details in lost.values() for detail in details)
    return {"warc_files": len(paths), "warc_pages": n_pages, "warc_records_lost": n_lost, "warc_lost": lost}


def decontamination(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """MB of text that both passes of the operator take in a CPU second, and what is found."""
    operator = Decontaminate(paths=sorted(map(str, folder.glob("*.jsonl"))))
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    state = operator.finish(operator.observe(table.slice(0, 10)))
    operator.scores(table.slice(0, 10), state)  # builds the index, compiles
    partial, observing = cpu_seconds(lambda: operator.observe(table))
    scores, scoring = cpu_seconds(lambda: operator.scores(table, operator.finish(partial)))
    found = Counter(str(item).split(":")[0] for item in scores["decontaminate.item"].drop_null().to_pylist())
    n_bytes = sum(len(text.encode()) for text in texts)
    figures = {
        "decontaminate_mb_per_cpu_s": n_bytes / 1e6 / (observing + scoring),
        "decontaminate_mb_per_cpu_s_one_pass": n_bytes / 1e6 / scoring,
        "decontaminate_documents": dict(found),
    }
    shown = _table(f"Decontamination, {n_bytes / 1e6:.0f} MB", "pass", "MB per CPU second")
    shown.add_row("observe and score", f"{figures['decontaminate_mb_per_cpu_s']:.0f}")
    shown.add_row("score", f"{figures['decontaminate_mb_per_cpu_s_one_pass']:.0f}")
    Console().print(shown, f"documents with an item of: {dict(found)}", highlight=False)
    return figures


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=f"\n{title}", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i and column != "lost" else "left")
    return table


if __name__ == "__main__":
    main()
