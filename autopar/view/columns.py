"""Prints columns of text: a table on a terminal, aligned plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["GAP", "print_columns"]

GAP = 3  # columns between two columns on a terminal


def print_columns(
    console: Console,
    columns: Mapping[str, Sequence[str]],
    *,
    right: Collection[str] = (),
    styles: Sequence[str] = (),
) -> None:
    """Prints columns under their names.

    Args:
        console: where to print; where it is no terminal, every cell is whole and nothing decorated.
        columns: name to cells, all of one length.
        right: names of the columns that are aligned to the right.
        styles: rich style of each row; none by default.
    """
    rows = list(zip(*columns.values(), strict=True))
    if not console.is_terminal:
        widths = [max(map(len, [name, *cells])) for name, cells in columns.items()]
        for row in (tuple(columns), *rows):
            cells = [
                cell.rjust(width) if name in right else cell.ljust(width)
                for name, cell, width in zip(columns, row, widths, strict=True)
            ]
            console.print("  ".join(cells).rstrip(), soft_wrap=True, markup=False, emoji=False)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for index, row in enumerate(rows):
        table.add_row(*(Text(cell, style=styles[index] if styles else "") for cell in row))
    console.print(table)
