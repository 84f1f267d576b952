"""Progress of a measurement on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Rounds"]


class Rounds:
    """Counts rounds; draws only in `advance`, since a refreshing thread would be in the measured times."""

    def __init__(self, total: int, *, silent: bool = False, lines: int = 10) -> None:
        self.title = ""
        self._console = Console(stderr=True, quiet=silent, highlight=False)
        self._total, self._done, self._lines = total, 0, lines
        self._bar = Progress(
            TextColumn("{task.description:>6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            disable=silent or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Rounds:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One more round is done."""
        self._done += 1
        self._bar.update(self._task, advance=1, description=self.title, refresh=True)
        if self._bar.disable and self._done * self._lines % self._total < self._lines:
            self._console.print(f"{self.title}: round {self._done} of {self._total}", soft_wrap=True)
