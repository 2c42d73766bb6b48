"""A search on disk: one JSON line for each thing that happened; it may be killed at any byte."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .multi_fidelity import FidelityTrend
from .search import Search, Trial
from .search_arguments import EARLIER, VERSION, Record, SearchArguments

BEGINNING = b'{"record": "'  # of every line


class SearchJournal:
    """A `Search` whose every step is on disk before it is acted upon.

    The first line holds the arguments, every other one a trial, a result or a failure. A line counts once it
    is whole: half a line, left by a kill or a full disk, is cut off when the journal is opened again, and
    since `Search.ask` is a pure function of the lines before, the same line is written in its place. A
    journal begun by an earlier version is continued by this one's rules, and `notes` says so.

    One process at a time may write; `pipeline` holds its run directory for that.

    Attributes:
        rounds: numbers of the trials that were asked for one after another, without a result in between.
        is_telling: the last line is a result, and others are awaited.
        notes: what a person should know: the journal began with an earlier version's rules.

    Args:
        path: of the file; made with its first line if it is not there.
        arguments: of the search; None to continue with those in the file.
        trend: see `Search`.
    Raises:
        ValueError: the file's arguments differ (the first field that does is named), a line is no record, or
            there is no file and no arguments.
    """

    def __init__(
        self, path: str | Path, arguments: SearchArguments | None = None, trend: FidelityTrend | None = None
    ) -> None:
        self.path = Path(path)
        records = self._read()
        if not records:
            if arguments is None:
                raise ValueError(f"{self.path}: not there, or no whole line; give the arguments of a search.")
            records = [arguments.to_record()]
            self._append(records[0])
        with self._located(1):
            found = SearchArguments.from_record(records[0])
        if arguments is not None:
            self._check_same(arguments.to_record(), found.to_record())
        self.search = Search(found, trend=trend)
        self.notes = _notes(records[0])
        self.rounds: list[list[int]] = []
        self.is_telling = False
        self._asking = False
        for line, record in enumerate(records[1:], start=2):
            with self._located(line):
                self.search.replay(record)
                self._count(record)

    def ask(self) -> Trial | None:
        """The next trial, written down; None while results must come first, or the budget is spent."""
        record = self.search.ask()
        if record is None:
            return None
        self._append(record)
        self._count(record)
        return self.search.trials[-1]

    def tell(self, number: int, losses: Mapping[str, float]) -> bool:
        """Write a trial's result down; False where it is known already."""
        return self._told(self.search.tell(number, losses))

    def fail(self, number: int, reason: str) -> bool:
        """Write down that a trial has no result; False where that is known already."""
        return self._told(self.search.fail(number, reason))

    def _count(self, record: Record) -> None:
        """Trials asked for one after another are a round."""
        if record["record"] != "trial":
            self.is_telling = bool(self.search.pending)
        elif self._asking:
            self.rounds[-1].append(record["trial"])
        else:
            self.rounds.append([record["trial"]])
        self._asking = record["record"] == "trial"
        self.is_telling = self.is_telling and not self._asking

    def _told(self, record: Record | None) -> bool:
        if record is not None:
            self._append(record)
            self._count(record)
        return record is not None

    def _read(self) -> list[Record]:
        """The whole records. Half of one at the end is cut off the file; a whole one gets its newline."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        *lines, rest = content.split(b"\n")
        is_half = BEGINNING.startswith(rest[: len(BEGINNING)]) and not _is_json(rest)
        records = []
        for number, line in enumerate(lines if is_half else [*lines, rest], start=1):
            with self._located(number):
                records.append(_parse(line))
        if rest:  # only now: a file that is no journal stays as it is
            with self.path.open("r+b") as file:
                file.seek(len(content) - len(rest) if is_half else len(content))
                file.write(b"" if is_half else b"\n")
                file.truncate()
        return records

    def _append(self, record: Record) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def _check_same(self, given: Record, found: Record) -> None:
        for name, value in found.items():
            if given[name] != value:
                now = json.dumps(given[name])
                raise ValueError(
                    f"{self.path}:1: {name} is {json.dumps(value)}, given now is {now}. A search goes on "
                    "with the arguments it began with; start another journal for others."
                )

    @contextmanager
    def _located(self, line: int) -> Iterator[None]:
        """Mistakes in a record, said with file and line."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            what = f"the record lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{self.path}:{line}: {what}") from error


def _notes(record: Record) -> tuple[str, ...]:
    version = record["version"]
    if version == VERSION:
        return ()
    return (
        f"the search began with version {version} of the rules ({EARLIER[version]}); its trials and results "
        f"count, and trials asked for from now on are those of version {VERSION}.",
    )


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse(line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"this is no JSON: {line[:80].decode(errors='replace')!r}.") from error
    if not isinstance(record, dict):
        raise ValueError(f"found {type(record).__name__}; every line is a JSON object.")
    return record
