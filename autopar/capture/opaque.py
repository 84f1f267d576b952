"""The last rung: the whole model as one call. It never fails for a model that runs eagerly."""

from __future__ import annotations

from torch import fx, nn

from autopar import compat
from autopar.capture.call import Call
from autopar.program import NodeInfo, Program, Remark, Signature, SourceLine

__all__ = ["wrap_opaque"]


def wrap_opaque(model: nn.Module, call: Call, reason: str, *, source: SourceLine | None = None) -> Program:
    """A Program of one node that stands for the model as it is; its gradients are gathered by hooks.

    The node takes the call's tensors; ``program.signature.call`` gives the user's structure back.

    Args:
        model: the user's model.
        call: the sample call.
        reason: why the model could not be taken apart, as the end of a sentence.
        source: the line that forced it.
    """
    graph = fx.Graph()
    inputs = [graph.placeholder(f"input_{index}") for index in range(len(call.tensors))]
    name = compat.original_class(model).__name__
    node = graph.call_module("model", tuple(inputs))
    nbytes = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    node.meta["autopar"] = NodeInfo(opaque=True, param_bytes=nbytes)
    graph.output(node)
    holder = nn.Module()
    holder.model = model
    remark = Remark(
        code="AP104",
        kind="missed",
        stage="capture",
        message=f"{name} stays one opaque call as a whole: {reason}.",
        source=source,
        mend="Its gradients are still reduced in buckets, by hooks; `autopar view` shows what is inside.",
        nbytes=nbytes,
    )
    return Program(
        graph_module=compat.graph_module(holder, graph, name),
        model=model,
        signature=Signature(
            in_spec=call.spec,
            constants=dict(call.constants),
            inputs=tuple(node.name for node in inputs),
            out_spec=None,
        ),
        front_end="opaque",
        example=call.tensors,
        remarks=[remark],
    )
