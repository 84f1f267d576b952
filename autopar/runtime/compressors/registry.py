"""Compressors by the name of their pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from autopar.errors import OptionError, UnknownNameError
from autopar.passes.changing.compression import Compression
from autopar.passes.pipeline import build, parse
from autopar.runtime.compressors.base import Compressor, Wire
from autopar.runtime.compressors.casting import Casting
from autopar.runtime.compressors.powersgd import LowRank
from autopar.runtime.compressors.topk import Largest

__all__ = ["COMPRESSORS", "make_compressor", "method_of", "register_compressor"]

Maker = Callable[[Any, Sequence[torch.Size], Wire], Compressor]

COMPRESSORS: dict[str, Maker] = {
    "fp16": lambda method, shapes, wire: Casting(torch.float16, wire),
    "bf16": lambda method, shapes, wire: Casting(torch.bfloat16, wire),
    "reduce-dtype": lambda method, shapes, wire: Casting(getattr(torch, method.dtype), wire),
    "powersgd": LowRank,
    "topk": Largest,
}


def register_compressor(name: str, make: Maker) -> None:
    """Makes a compressor known for the pass of that name.

    Args:
        name: of a pass that derives from ``autopar.passes.changing.compression.Compression``.
        make: called for each bucket with the pass, the shapes of its parameters, and what to send through.
    """
    COMPRESSORS[name] = make


def method_of(text: str) -> Compression:
    """The pass that a plan's or an option's text names, such as ``"topk{ratio=0.01}"``.

    Raises:
        PipelineError, UnknownNameError, OptionError: it cannot be read, there is none, or it refuses its options.
    """
    entries = parse(text)
    (method,) = build(entries[:1])
    if len(entries) > 1 or not isinstance(method, Compression):
        raise OptionError(f"{text!r} is no compression.", mend=f"Known: {', '.join(COMPRESSORS)}.")
    return method


def make_compressor(text: str, shapes: Sequence[torch.Size], wire: Wire) -> Compressor:
    """What sums the messages of a bucket.

    Args:
        text: how the plan says that it is compressed.
        shapes: of its parameters, in order.
        wire: what it sends through.

    Raises:
        UnknownNameError: there is no compressor for that pass; or as ``method_of``.
    """
    method = method_of(text)
    if method.name not in COMPRESSORS:
        raise UnknownNameError("compressor", method.name, COMPRESSORS)
    return COMPRESSORS[method.name](method, shapes, wire)
