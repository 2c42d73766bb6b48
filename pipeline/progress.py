"""What a person sees while a run goes on: a bar a stage, with rows and MB a second and the time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .shard_work import ShardResult


class Bar:
    """One stage's bar."""

    def __init__(self, progress: Progress, task: TaskID, unit: str) -> None:
        self._progress, self._task, self._unit = progress, task, unit
        self._start = time.monotonic()
        self._rows = self._bytes = 0

    def advance(self, rows: int = 0, n_bytes: int = 0) -> None:
        """One more task is done, of so many rows and bytes of text (or of so many tokens, as `rows`)."""
        self._rows += rows
        self._bytes += n_bytes
        seconds = max(time.monotonic() - self._start, 1e-9)
        speed = f"{self._rows / seconds:,.0f} {self._unit}/s" if self._rows else ""
        speed += f"  {self._bytes / seconds / 1e6:.1f} MB/s" if self._bytes else ""
        self._progress.update(self._task, advance=1, speed=speed)

    def shard(self, result: ShardResult) -> None:
        """A shard is done."""
        found = result.accounting
        self.advance(found.rows_in, found.bytes_in) if found else self.advance()


class RunProgress:
    """The bars of one run, on the error stream; without a terminal one line for each finished stage."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int, n_done: int = 0, unit: str = "rows") -> Iterator[Bar]:
        """A bar of `total` tasks, of which an earlier run did `n_done`."""
        start = time.monotonic()
        columns = (
            TextColumn("{task.description:<44}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        if not self.console.is_terminal:
            with Progress(*columns, console=Console(quiet=True)) as progress:
                bar = Bar(progress, progress.add_task(name, total=total, completed=n_done, speed=""), unit)
                yield bar
            speed = progress.tasks[0].fields["speed"]
            reused = f", {n_done} of them from before" if n_done else ""
            seconds = time.monotonic() - start
            self.say(f"{name}: {total} done{reused} in {seconds:.1f} s  {speed}")
            return
        with Progress(*columns, console=self.console) as progress:
            yield Bar(progress, progress.add_task(name, total=total, completed=n_done, speed=""), unit)

    def say(self, text: str) -> None:
        """A line between the bars."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
