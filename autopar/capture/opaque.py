"""The last rung: the whole model as one call. It never fails for a model that runs eagerly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.program import NodeInfo, Program, Remark, Signature

__all__ = ["wrap_opaque"]


def wrap_opaque(
    model: nn.Module,
    *,
    in_spec: Any,
    tensors: Sequence[torch.Tensor],
    constants: Mapping[int, Any],
    reason: str,
) -> Program:
    """A Program of one node that calls the model as it is; its gradients are gathered by hooks."""
    graph = fx.Graph()
    inputs = [graph.placeholder(f"input_{index}") for index in range(len(tensors))]
    name = compat.original_class(model).__name__
    call = graph.call_module("model", tuple(inputs))
    nbytes = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    call.meta["autopar"] = NodeInfo(opaque=True, param_bytes=nbytes)
    graph.output(call)
    holder = nn.Module()
    holder.model = model
    signature = Signature(
        in_spec=in_spec, constants=dict(constants), inputs=tuple(node.name for node in inputs), out_spec=None
    )
    remark = Remark(
        kind="missed",
        stage="capture",
        message=f"{name} stays one opaque call as a whole: {reason}.",
        mend="Its gradients are still reduced in buckets, by hooks; `autopar view` shows what is inside.",
        nbytes=nbytes,
    )
    return Program(
        graph_module=fx.GraphModule(holder, graph, class_name=name),
        model=model,
        signature=signature,
        front_end="opaque",
        example=tuple(tensors),
        remarks=[remark],
    )
