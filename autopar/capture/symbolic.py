"""Front end 1: symbolic tracing with torch.fx, region by region.

The user's modules are traced through; a module whose forward cannot be traced exactly stays one
call, and so does every module of ``torch.nn`` (the pass ``inline-modules`` opens those that are
pure). What fx would get wrong without a word is turned into a refusal of that module instead: see
``autopar.capture.watch`` and ``autopar.capture.recorded``.
"""

from __future__ import annotations

from torch import fx, nn

from autopar import compat
from autopar.capture.call import Call
from autopar.capture.recorded import UntraceableError
from autopar.capture.state import ModelState, RandomStreams
from autopar.capture.tracer import STALE, RegionTracer, reason_to_keep_whole
from autopar.program import Program, Signature

__all__ = ["trace_symbolic"]


def trace_symbolic(model: nn.Module, call: Call, state: ModelState) -> Program:
    """Traces the model on symbolic stand-ins for the call's tensors.

    A module whose forward turns out to change the model, or to draw random numbers that no node
    shows, is made one call in another round.

    Args:
        model: the user's model; it is put back as it was.
        call: the sample call.
        state: the model's state before.

    Returns:
        A Program in which every module that could not be traced is one call, with a remark.

    Raises:
        UntraceableError: the root itself cannot be traced.
        Exception: what else the root's forward raised on stand-ins; see ``refusal``.
    """
    reason = reason_to_keep_whole(model, hooks=False)
    if reason is not None:
        raise UntraceableError(reason)
    stateful: dict[nn.Module, str] = {}
    hidden: dict[nn.Module, set[str]] = {}
    draws = False
    while True:
        tracer = RegionTracer(model, call, stateful, follow_random=draws)
        streams = RandomStreams()
        for module, names in hidden.items():
            vars(module).update(dict.fromkeys(names, STALE))
        try:
            graph = tracer.capture()
        finally:
            changes, drew = state.restore(), streams != RandomStreams()
            streams.restore()
        changed = {module: set(names) - hidden.get(module, set()) for module, names in changes.items()}
        found = {
            module: f"its forward changes the attribute {', '.join(map(repr, sorted(names)))}"
            for module, names in changed.items()
            if names
        } | tracer.buffer_writers(graph)
        if not found and not drew:
            break
        if (drew and draws) or (found and found.keys() <= stateful.keys()):
            raise UntraceableError("its forward changes what no graph shows")
        if model in found:
            raise UntraceableError(found[model])
        stateful |= found
        hidden |= {module: hidden.get(module, set()) | changed[module] for module in changed}
        draws = draws or drew
    module = fx.GraphModule(model, graph, class_name=compat.original_class(model).__name__)
    return Program(
        graph_module=module,
        model=model,
        signature=Signature(
            in_spec=call.spec,
            constants=dict(call.constants),
            inputs=tuple(node.name for node in graph.nodes if node.op == "placeholder"),
            out_spec=tracer.out_spec,
            out_constants=tracer.out_constants,
        ),
        front_end="symbolic",
        example=call.tensors,
        mode_dependent={tracer.path_of_module(m): flag for m, flag in tracer.watch.read_training.items()},
        attributes={
            (tracer.path_of_module(module), name): value
            for (module, name), value in tracer.watch.read_attributes.items()
        },
        remarks=tracer.remarks(),
    )
