"""Curated parts -> token shards: one folder a domain, a training and a validation split."""

import difflib
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..operators.tokenize import REPEAT, VALIDATION, Tokenize, load_tokenizer, token_dtype
from ..streaming import TokenStore
from ..streaming.manifest import Manifest, ShardEntry
from ..streaming.shards import domain_folder, shard_name, write_manifest, write_token_shard
from .curation import Curation
from .errors import DamagedRunError, InputError, UserError
from .plan import LAYOUT_VERSION, describe, digest
from .run_directory import explained, read_json, write_json, written_whole
from .shard_work import (
    Accounting,
    AccountingError,
    part_name,
    read_accounting,
    read_arrow,
    read_part,
    write_part,
)

HASH_FILE = "stage.json"
RECORD = pa.schema(
    [
        ("domain", pa.string()),
        ("split", pa.string()),
        ("repeat", pa.int64()),
        ("n_docs", pa.int64()),
        ("n_tokens", pa.int64()),
    ]
)
NOT_REPEATED = "tokenize.repeat_0"


@dataclass(frozen=True)
class TokenTask:
    """One curated part to cut into tokens, picklable."""

    index: int
    operator: Tokenize
    state: Path
    upstream: Path
    records: Path
    tokens: Path

    @property
    def record(self) -> Path:
        """Documents and tokens by domain, split and repeat. That it exists means that the shard is done."""
        return self.records / part_name(self.index)


@dataclass(frozen=True)
class TokenResult:
    """What one shard gave."""

    n_tokens: int
    n_bytes: int


def tokenize_shard(task: TokenTask) -> TokenResult:
    """Write one part's token shards, then its record.

    Raises:
        EnvironmentFailure: the disk is full or cannot be written.
    """
    table = read_part(task.upstream)
    wanted = ("id", "text", "domain", task.operator.repeat)
    table = table.select([name for name in dict.fromkeys(wanted) if name in table.column_names])
    n_bytes = pc.sum(pc.binary_length(table["text"])).as_py() or 0
    state = read_arrow(task.state)
    tokenizer, _ = load_tokenizer(state["tokenizer"][0].as_py())
    dtype = token_dtype(tokenizer.get_vocab_size())
    try:
        cut = task.operator.apply(table, state)
    except ValueError as error:
        raise InputError(f"tokenize: {error}") from error
    rows = []
    for (domain, split, repeat), group in _groups(cut):
        tokens = group["tokens"].combine_chunks()
        offsets = tokens.offsets.to_numpy().astype(np.int64)
        path = _folder(task.tokens, domain) / shard_name(split, task.index, repeat)
        with explained(path.parent):
            write_token_shard(path, tokens.values.to_numpy(), offsets, group["doc"].to_numpy(), dtype)
        rows.append((domain, split, repeat, len(group), int(offsets[-1])))
    is_left = pc.equal(cut["repeat"], 0)
    n_left = pc.sum(is_left).as_py() or 0
    n_bytes_left = pc.sum(pc.binary_length(table["text"].filter(is_left))).as_py() or 0
    accounting = Accounting(
        rows_in=len(table),
        rows_kept=sum(n for *_, n, _ in rows),
        bytes_in=n_bytes,
        bytes_kept=n_bytes - n_bytes_left,
        dropped={NOT_REPEATED: n_left} if n_left else {},
    )
    accounting.check(str(task.record))
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(RECORD)
    write_part(task.record, pa.table(columns, schema=RECORD), accounting)
    return TokenResult(sum(n for *_, n in rows), n_bytes)


def _folder(tokens: Path, domain: str) -> Path:
    try:
        return domain_folder(tokens, domain)
    except ValueError as error:
        raise InputError(f"{error}; shorten it where the input's domain comes from") from None


def _groups(table: pa.Table) -> list[tuple[tuple[str, str, int], pa.Table]]:
    """The rows of each (domain, split, repeat), in their order; those of repeat 0 are in none."""
    columns = ("domain", "split", "repeat")
    keys = sorted(set(zip(*(table[name].to_pylist() for name in columns), strict=True)))
    found = []
    for key in keys:
        domain, split, repeat = (
            pc.equal(table[name], value) for name, value in zip(columns, key, strict=True)
        )
        if key[2]:
            found.append((key, table.filter(pc.and_(pc.and_(domain, split), repeat))))
    return found


def tokenize_corpus(curation: Curation, operator: Tokenize) -> tuple[Path, list[str], str]:
    """Cut everything that curation kept.

    Returns:
        the folder of the domains, the domains' names sorted, and the hash of all that decides their content.
    Raises:
        InputError: a domain has no training or no validation documents.
        AccountingError: documents got lost.
    """
    last = curation.plan.stages[-1]
    stage_hash = digest([LAYOUT_VERSION, last.hash, describe(operator)])
    records = curation.run_dir / "stages" / f"{last.index + 1:02d}-tokenize-{stage_hash[:8]}"
    tokens = curation.run_dir / "tokens"
    claim(tokens, stage_hash, records)
    tasks = [
        TokenTask(upstream.index, operator, curation.state(last), upstream.part, records, tokens)
        for upstream in curation.tasks(last)
        if upstream.part.exists()
    ]
    _check_repeat(operator, tasks)
    missing = [task for task in tasks if not task.record.exists()]
    title = f"{last.index + 1:02d} tokenize"
    with curation.progress.stage(title, len(tasks), len(tasks) - len(missing), unit="tokens") as bar:
        curation.engine.map_shards(
            tokenize_shard, missing, lambda result: bar.advance(result.n_tokens, result.n_bytes)
        )
    domains = _finish(tasks, tokens, curation.state(last))
    return tokens, domains, stage_hash


def _check_repeat(operator: Tokenize, tasks: Sequence[TokenTask]) -> None:
    """Refuse a weight that was asked for by name and that no document has."""
    if operator.repeat in (None, REPEAT) or not tasks:
        return
    there = pq.read_schema(tasks[0].upstream).names
    if operator.repeat not in there:
        near = difflib.get_close_matches(str(operator.repeat), there, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there)}"
        raise InputError(f"tokenize.repeat: the documents have no column {operator.repeat!r}; {hint}")


def claim(folder: Path, content_hash: str, *also: Path) -> None:
    """Make `folder` the place of one content: what an older content left there, and in `also`, goes first.

    The hash goes first and is written last, so after a kill in between no content finds the folder its own.
    """
    mark = folder / HASH_FILE
    if mark.exists() and read_json(mark) == content_hash:
        return
    with explained(folder):
        mark.unlink(missing_ok=True)
        for stale in (*also, folder):
            if stale.exists():
                shutil.rmtree(stale)
    write_json(mark, content_hash)


def _finish(tasks: Sequence[TokenTask], tokens: Path, state: Path) -> list[str]:
    """Write the tokenizer and the domains' manifests, which say that the tokens are complete."""
    record = pa.concat_tables([pq.read_table(task.record) for task in tasks])
    for task in tasks:
        accounting, _ = read_accounting(task.record)
        n_docs = pc.sum(pq.read_table(task.record)["n_docs"]).as_py() or 0
        n_left = sum(accounting.dropped.values())
        if accounting.rows_in != n_docs + n_left:
            raise AccountingError(
                f"{task.record}: {accounting.rows_in} documents in, {n_docs} in token shards, {n_left} to be "
                "read no times"
            )
    domains = sorted(set(record["domain"].to_pylist()))
    text = read_arrow(state)["tokenizer"][0].as_py()
    saved = tokens / "tokenizer.json"
    if not saved.exists():
        with written_whole(saved) as temporary:
            temporary.write_text(text, "utf-8")
    for domain in domains:
        manifest = _write_manifest(domain_folder(tokens, domain), domain, text)
        for split in ("train", VALIDATION):
            _check_split(record, domain, split, manifest["splits"].get(split, []))
    return domains


def _write_manifest(folder: Path, domain: str, tokenizer_json: str) -> Manifest:
    tokenizer, end = load_tokenizer(tokenizer_json)
    try:
        with explained(folder):
            return write_manifest(
                folder,
                domain=domain,
                vocab_size=tokenizer.get_vocab_size(),
                tokenizer_hash=hashlib.sha256(tokenizer_json.encode()).hexdigest()[:16],
                eos_id=end,
            )
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise DamagedRunError(f"{error}; remove {folder.parent} and run again") from error


def _check_split(record: pa.Table, domain: str, split: str, shards: Sequence[ShardEntry]) -> None:
    """Hold the domain's token shards to the records of what was written, and refuse an empty split."""
    of_domain = record.filter(pc.equal(record["domain"], domain))
    of_split = of_domain.filter(pc.equal(of_domain["split"], split))
    written = [pc.sum(of_split[count]).as_py() or 0 for count in ("n_docs", "n_tokens")]
    found = [sum(shard["n_docs"] for shard in shards), sum(shard["n_tokens"] for shard in shards)]
    if found != written:
        raise DamagedRunError(
            f"domain {domain!r}: {written[0]} documents of {written[1]} tokens were written to its {split} "
            f"split, its shards hold {found[0]} of {found[1]}; remove the run's tokens/ and run again"
        )
    if not written[1]:
        raise InputError(
            f"domain {domain!r} has {pc.sum(of_domain['n_docs']).as_py():,} documents and none of them fell "
            f"into its {split} split; change tokenize.validation_fraction, give the domain more documents, "
            "or merge it into another"
        )


def open_stores(tokens: Path, domains: Sequence[str], split: str = "train") -> dict[str, TokenStore]:
    """The domains' token stores."""
    return {domain: TokenStore(domain_folder(tokens, domain), split) for domain in domains}
