"""What is shown of buckets that travel compressed: in the picture, on the terminal, and in the printed program."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import nn

import autopar
from autopar.cli.formats import rendered
from autopar.compilation import Compilation, compile_program
from autopar.emit.body import bucket_text
from autopar.view.graph_json import graph_document
from autopar.view.summary import print_summary, summary

GRADIENTS, SENT = "16.2 KiB", "8.1 KiB"  # of a linear layer of 64 by 64


@pytest.fixture(scope="module")
def compressed() -> Compilation:
    """One bucket, as bfloat16."""
    return compile_program(nn.Linear(64, 64), (torch.ones(2, 64),), {}, autopar.DDP(compression="bf16"))


def test_pictures(compressed: Compilation) -> None:
    """Bytes before and after, and the form where the pointer is."""
    document = graph_document(compressed, strategy="ddp", world_size=2)
    svg = rendered(document, "svg")
    assert f"averages {GRADIENTS} of gradients, sent as {SENT}, over 2 ranks" in svg
    assert "8,320 bytes as bf16" in svg
    assert "bf16" in rendered(document, "html")


def test_summary(compressed: Compilation) -> None:
    """For people and for programs."""
    figures = summary(graph_document(compressed, strategy="ddp", world_size=2))
    assert (figures["bytes_per_step"], figures["sent_bytes_per_step"]) == (16_640, 8_320)
    out = io.StringIO()
    print_summary(figures, Console(file=out, highlight=False))
    assert f"1 bucket, {GRADIENTS} all-reduced a step, sent as {SENT} by bf16" in out.getvalue()


def test_comment_of_the_printed_program(compressed: Compilation) -> None:
    """Beside size and readiness."""
    (bucket,) = compressed.plan.buckets
    assert bucket_text(compressed.plan, bucket).endswith(f"ready 1st in backward, sent as bf16, {SENT}")
