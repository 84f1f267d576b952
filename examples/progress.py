"""A progress bar on a terminal, a plain line now and then when standard error is a file or a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Steps:
    """Counts training steps aloud on standard error, from those on that are done; only rank 0 of a launch speaks."""

    def __init__(self, title: str, total: int, lines: int = 5, done: int = 0) -> None:
        self.title, self.total, self.note, self.done = title, total, "", done
        self.every = max(1, total // lines)
        self.console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")

    def __iter__(self) -> Iterator[int]:
        if not self.console.is_terminal:
            for step in range(self.done, self.total):
                yield step
                if (step + 1) % self.every == 0 or step + 1 == self.total:
                    self.console.print(
                        f"{self.title}: step {step + 1}/{self.total} {self.note}",
                        highlight=False,
                        soft_wrap=True,
                    )
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(self.title, total=self.total, completed=self.done, note="")
            for step in range(self.done, self.total):
                yield step
                bar.update(task, advance=1, note=self.note)
