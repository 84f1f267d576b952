"""Prints the program as it is between two passes, as a file that runs beside the user's own model."""

from __future__ import annotations

import textwrap
from pathlib import Path

from autopar.emit.forward import write_forward
from autopar.emit.imports import Imports
from autopar.emit.layout import LINE_LENGTH, call, prefixed, render
from autopar.emit.literals import Writer
from autopar.emit.names import in_text, quoted
from autopar.emit.samples import Source, model_file, relative, sample_inputs
from autopar.errors import ModelError
from autopar.program import Program

__all__ = ["emit_stage"]

_DEFINED = frozenset({"HERE", "MODEL_FILE", "forward", "replica", "sample_inputs"})


def emit_stage(program: Program, *, source: Source, folder: Path, title: str, file_name: str) -> str:
    """Prints a program at any stage.

    Args:
        program: before, between or after passes.
        source: where the printed file will find the model.
        folder: the folder that the file will lie in.
        title: which stage this is, such as ``"after pass 2, shapes"``.
        file_name: of the file, for the text that says how to run it.

    Returns:
        Python source. Run, it compares the program's result with the model's own. A program that Python
        source cannot express comes as torch.fx prints it, and says so.
    """
    what = f"{in_text(program.name)}, {in_text(title)}."
    try:
        function = write_forward(program, model_file=source.file, defined=_DEFINED)
    except ModelError as error:
        return f'"""{what}\n\nFor reading only: {in_text(str(error))}\n"""\n\n{program.code.strip()}\n'
    imports = function.imports
    place = relative(source.file, folder)
    about = (
        "calls the forward below and the model's own with one random input and says whether the results are the same. "
        f"The model comes from {in_text(place)}."
    )
    head = [f'"""{what}', "", f"    python {in_text(file_name)}", "", *textwrap.wrap(about, LINE_LENGTH), '"""']
    compare = _compare(imports, program, source)
    sections = [function.lines, sample_inputs(imports, program), ['if __name__ == "__main__":', *compare]]
    constants = model_file(imports, place)
    lines = [*head, "", *imports.lines(), "", *constants]
    for section in sections:
        lines += ["", "", *section]
    return "\n".join([*lines, ""])


def _compare(imports: Imports, program: Program, source: Source) -> list[str]:
    write = Writer(imports, str)
    arguments = ["MODEL_FILE", quoted(source.name), "forward", "sample_inputs"]
    keywords = [prefixed("modes=", write.expression(dict(program.mode_dependent)))]
    if program.lifted:
        keywords.append(prefixed("lifted=", write.expression(program.lifted)))
    return render(call(f"{imports.member('autopar.emit', 'rerun')}.compare", [*arguments, *keywords]), indent="    ")
