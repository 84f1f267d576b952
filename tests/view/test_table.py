"""The table: right figures, and no wider than the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autopar.view.table import print_table
from tests.view.documents import chain

LONG = [f"encoder.layers.{index}.feed_forward.projection" for index in range(3)]


def _printed(document: dict[str, object], width: int | None = None) -> str:
    out = io.StringIO()
    terminal = width is not None
    console = Console(file=out, width=width or 80, force_terminal=terminal, color_system=None, highlight=False)
    print_table(document, console)
    return out.getvalue()


def test_rows_are_in_order_with_their_figures() -> None:
    """Module, operation, output, parameter bytes, FLOPs and bucket of one row."""
    lines = _printed(chain(["a", "b"])).splitlines()
    assert lines[0].split() == ["module", "operation", "output", "params", "FLOPs", "bucket"]
    assert lines[3].split() == ["a", "F.linear", "2x8", "f32", "256", "B", "256", "1"]
    assert [line.split()[0] for line in lines[1:6]] == ["-", "-", "a", "-", "b"]


def test_totals() -> None:
    """The last line adds up."""
    last = _printed(chain(["a", "b"])).splitlines()[-1]
    assert last == ("Chain: 3 operations; 512 FLOPs a forward; 512 B of trainable parameters; 2 buckets, 512 B a step.")


def test_opaque_is_marked() -> None:
    """An opaque call is named with its class."""
    assert "LSTM (opaque)" in _printed(chain(["a", "b"], opaque=["b"]))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_fits_the_terminal(width: int) -> None:
    """No line is wider than the terminal, and every row still has its bucket."""
    lines = _printed(chain(LONG), width).splitlines()
    assert max(map(len, lines)) <= width
    assert "bucket" in lines[0]
    assert sum("F.linear" in line for line in lines) == 3


def test_narrow_terminal_loses_columns_not_names() -> None:
    """At 60 columns FLOPs go first; paths are shortened in their middle."""
    narrow = _printed(chain(LONG), 60)
    assert "FLOPs" not in narrow.splitlines()[0]
    assert "projection" in narrow


def test_pipe_is_plain_and_whole() -> None:
    """In a pipe nothing is shortened or decorated, however long the names are."""
    text = _printed(chain(["deep." * 30 + "end"]))
    assert "deep." * 30 + "end" in text
    assert "\x1b" not in text
    assert "─" not in text


def test_markup_in_names_is_text() -> None:
    """A module called like console markup is printed as it is."""
    assert "[red]x[/red]" in _printed(chain(["[red]x[/red]"]), 120)
