"""What ``transform`` does while the passes run: prints programs, keeps them as files, and writes down a failure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from autopar.cli.output import write_folder
from autopar.cli.terminal import messages
from autopar.emit import Source, emit_repro, emit_stage
from autopar.errors import PassError
from autopar.passes.base import Pass, PassContext, PassResult
from autopar.passes.observers import PassObserver
from autopar.program import Program

if TYPE_CHECKING:
    from autopar.cli.compiling import Request
    from autopar.scripts.candidates import FoundModel

__all__ = ["Instruments"]

_STAGES = "passes"  # the folder for dumped programs, within the output folder


class Instruments(PassObserver):
    """Prints and dumps what a request asks for.

    Args:
        request: what is compiled and how.
        found: the model.

    Attributes:
        files: dumped programs by file name, within the output folder.
    """

    def __init__(self, request: Request, found: FoundModel) -> None:
        self.request = request
        self.source = Source(file=Path(found.script.path).resolve(), name=found.name)
        self.files: dict[str, str] = {}
        self._number = 0
        self._before: tuple[Program, PassContext] | None = None
        self._changed = False
        self._repro = ""

    def before_pass(self, one: Pass, program: Program, ctx: PassContext) -> None:
        """Keeps the program, for the case that the pass fails."""
        if self._number == 0 and self.request.dump_after in ("all", "changed"):
            self._dump(program, "as it was captured", "captured")
        self._number += 1
        if self.request.folder is not None:
            self._before = (program.snapshot(), ctx)

    def after_pass(self, one: Pass, program: Program, result: PassResult) -> None:
        """Takes down whether the pass changed anything."""
        self._changed = result.changed

    def verified(self, one: Pass, program: Program) -> None:
        """Prints and dumps."""
        if self.request.print_after in ("all", one.name):
            messages().print(f"# after {one.name}\n{program.code.strip()}\n", soft_wrap=True)
        if self.request.dump_after in ("all", one.name) or (self.request.dump_after == "changed" and self._changed):
            self._dump(program, f"after pass {self._number}, {one.name}", one.name)

    def failed(self, one: Pass, error: Exception) -> None:
        """Writes ``repro.py``; not for what passes say about the user's model."""
        if not isinstance(error, PassError) or self._before is None or self.request.folder is None:
            return
        program, ctx = self._before
        self._repro = emit_repro(
            program,
            ctx,
            passed=self._number - 1,
            error=error,
            source=self.source,
            folder=self.request.folder.absolute(),
        )

    def reported(self, error: PassError) -> PassError:
        """The error, with where its reproduction is; that and what was dumped so far are written now."""
        if not self._repro or self.request.folder is None:
            return error
        write_folder(self.request.folder, {**self.files, "repro.py": self._repro})
        again = f"`python {self.request.folder / 'repro.py'}` shows it again."
        return type(error)(error.what, why=error.why, mend=f"{error.mend} {again}".strip(), code=error.code)

    def _dump(self, program: Program, title: str, name: str) -> None:
        file = f"{self._number:02}-{re.sub(r'[^A-Za-z0-9_-]', '-', name)}.py"
        folder = (self.request.folder or Path()).absolute() / _STAGES
        self.files[f"{_STAGES}/{file}"] = emit_stage(
            program, source=self.source, folder=folder, title=title, file_name=file
        )
