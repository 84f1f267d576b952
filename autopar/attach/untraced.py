"""Calls of a parallel module inside of a ``torch.compile`` of the user's that run outside of its graph."""

from __future__ import annotations

from typing import Any

import torch

from autopar.attach.attachment import Attachment

__all__ = ["run_untraced"]

_REASON = (
    "autopar runs this call outside of the graph: it has to capture the model first, or to reduce what earlier calls "
    "left. Give example_inputs= to autopar.parallelize, or call the model once before torch.compile; leave "
    "fullgraph=True out where gradients are accumulated."
)


@torch.compiler.disable(reason=_REASON)
def run_untraced(attachment: Attachment, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Attachment.run``, and what lets dynamo follow the next calls: the first call captures and makes the plan."""
    result = attachment.run(args, kwargs)
    attachment.start().prepare_traced()
    return result
