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
        "compression": "",
        "sent_bytes": WEIGHT_BYTES,
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


def test_a_module_that_was_not_counted_makes_every_share_unknown() -> None:
    """An opaque LSTM with 0 FLOPs: the figures say what they leave out instead of a share of the rest."""
    document = chain(["a", "b"], opaque=["b"])
    for node in document["after"]["nodes"]:
        node["flops"] = 0 if node["opaque"] else node["flops"]
    figures = summary(document)
    assert figures["flops_unknown"] == ["b (LSTM)"]
    assert [bucket["ready"] for bucket in figures["buckets"]] == [None, None]
    out = io.StringIO()
    print_summary(figures, Console(file=out, highlight=False))
    assert "256 FLOPs a forward without b (LSTM), which is unknown" in out.getvalue()
    assert "estimated from FLOPs, which are unknown here" in out.getvalue()
    assert "100%" not in out.getvalue()


@pytest.mark.parametrize("shape", [[8], [8, 8]])
def test_only_modules_with_a_matrix_can_be_expensive(shape: list[int]) -> None:
    """A norm with hooks is opaque and has 0 FLOPs, too."""
    document = chain(["a"], opaque=["a"], flops=0)
    document["plan"]["parameters"][0]["shape"] = shape
    assert bool(summary(document)["flops_unknown"]) is (len(shape) > 1)


def test_findings_of_passes_are_printed() -> None:
    """With stage, place and mend; not the FLOPs again, which the second line has; and not hundreds of them."""
    document = chain(["a"])
    finding = {"kind": "analysis", "stage": "shapes", "message": "One forward takes 1 FLOP.", "module": ""}
    finding["code"] = "AP204"
    document["remarks"] = [{**finding, "source": None, "mend": "", "bytes": 0}]
    for index in range(25):
        found = {
            "stage": "report",
            "message": f"finding {index}.",
            "source": "model.py:3",
            "mend": "Mend it.",
            "code": "",
        }
        document["remarks"].append({**document["remarks"][0], **found})
    out = io.StringIO()
    print_summary(summary(document), Console(file=out, highlight=False))
    assert "- report: finding 0. (model.py:3)\n  Mend it.\n" in out.getvalue()
    assert "1 FLOP." not in out.getvalue()
    assert "finding 20" not in out.getvalue()
    assert "- and 5 more; --json has all" in out.getvalue()
    assert len(summary(document)["found"]) == 26
