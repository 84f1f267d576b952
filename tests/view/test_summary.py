"""The summary: figures that add up, and text that fits."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autopar.view.summary import print_summary, summary
from tests.view.documents import WEIGHT_BYTES, chain


def test_buckets() -> None:
    """Size, readiness, first and last parameter of each bucket."""
    first, last = summary(chain(["a", "b"]))["buckets"]
    assert first == {
        "index": 0,
        "parameters": 1,
        "bytes": WEIGHT_BYTES,
        "ready": pytest.approx(2 / 3),
        "first": "b.weight",
        "last": "b.weight",
    }
    assert last["ready"] == 1


def test_share_at_operation_level() -> None:
    """Half of the parameter bytes lie in an opaque module."""
    figures = summary(chain(["a", "b"], opaque=["b"]))
    assert figures["operation_level"] == 0.5
    (opaque,) = figures["opaque"]
    assert (opaque["module"], opaque["bytes"], opaque["source"]) == ("b", WEIGHT_BYTES, "model.py:9")


def test_nothing_known() -> None:
    """Without a plan there are no shares, and no division by zero."""
    figures = summary({**chain(["a"], flops=0), "plan": None})
    assert (figures["operation_level"], figures["buckets"], figures["bytes_per_step"]) == (None, [], 0)
    assert summary(chain(["a"], flops=0))["buckets"][0]["ready"] is None


@pytest.mark.parametrize("width", [60, 80])
def test_fits_the_terminal(width: int) -> None:
    """Long names are shortened, the rest wraps between words."""
    out = io.StringIO()
    names = [f"encoder.layers.{index}.self_attention.output_projection" for index in range(3)]
    console = Console(file=out, width=width, force_terminal=True, color_system=None, highlight=False)
    print_summary(summary(chain(names, opaque=names[:1])), console, files=["out/plan.json"])
    assert max(len(line) for line in out.getvalue().splitlines()) <= width
    assert "wrote out/plan.json" in out.getvalue()


def test_opaque_is_said_with_place_reason_and_mend() -> None:
    """In a pipe each remark is one line, and its mend the next."""
    out = io.StringIO()
    print_summary(summary(chain(["a", "b"], opaque=["b"])), Console(file=out, highlight=False))
    text = out.getvalue()
    assert "- b (LSTM) stays one opaque call: its forward is not pure. (model.py:9) 256 B." in text
    assert "  Nothing is wrong with it." in text
    assert "50% of the parameter bytes" in text
