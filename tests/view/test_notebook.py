"""What a notebook shows of a Program."""

from __future__ import annotations

import base64
import re

import torch
from torch import nn

from autopar.api import trace
from autopar.compilation import compile_program
from autopar.strategies import DDP


def _picture(text: str) -> str:
    (encoded,) = re.findall(r'src="data:image/svg\+xml;base64,(.*?)"', text)
    return base64.b64decode(encoded).decode()


def test_captured_program_shows_its_graph() -> None:
    """There is no plan yet: boxes and arrows, and a table."""
    text = trace(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.randn(3, 4))._repr_html_()
    assert "F.linear 0" in _picture(text)
    assert "<td>F.linear</td><td>3x2 f32</td><td>40 B</td>" in text


def test_planned_program_shows_its_plan() -> None:
    """The main picture, with the buckets."""
    compilation = compile_program(nn.Linear(4, 2), (torch.randn(3, 4),), {}, DDP())
    assert "on the wire" in _picture(compilation.program._repr_html_())


def test_names_are_text() -> None:
    """A module with markup in its name is written out."""
    model = nn.Sequential()
    model.add_module("<b>x</b>", nn.Linear(4, 2))
    text = trace(model, torch.randn(3, 4))._repr_html_()
    assert "<td>&lt;b&gt;x&lt;/b&gt;</td>" in text
    assert "<b>" not in text
