"""What passes said that they provide is there: later passes and the runtime build on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from autopar import replica_ops
from autopar.passes.dataflow import parameter_reads
from autopar.program import Program, info

__all__ = ["PROMISES", "promises_kept"]

Promise = Callable[[Program], Iterator[str]]


def promises_kept(program: Program) -> Iterator[str]:
    """Every fact in ``program.provides`` that is known here holds."""
    for fact, check in PROMISES.items():
        if fact in program.provides:
            for broken in check(program):
                yield f"it provides {fact!r}, but {broken}"


def _inlined(program: Program) -> Iterator[str]:
    for node in program.find("call_module"):
        owner = program.graph_module.get_submodule(str(node.target))
        if not info(node).opaque and any(parameter.requires_grad for parameter in owner.parameters()):
            yield f"{node.name} still calls a module with parameters and is not marked opaque"


def _shapes(program: Program) -> Iterator[str]:
    if not program.signature.complete:  # said in a remark: such a call cannot be run
        return
    for node in list(program.find("placeholder"))[len(program.lifted) :]:
        if info(node).shape is None:
            yield f"the shape of its input {node.name} is not noted"


def _backward_order(program: Program) -> Iterator[str]:
    trainable = program.trainable()
    for name, count in Counter(program.ready_order).items():
        if name not in trainable:
            yield f"{name!r} in the ready order is no trainable parameter"
        if count > 1:
            yield f"{name!r} is in the ready order {count} times"


def _plan(program: Program) -> Iterator[str]:
    if program.plan is None:
        yield "there is no plan"


def _lifted(program: Program) -> Iterator[str]:
    for node, name in parameter_reads(program).items():
        yield f"{node.name} still reads {name!r} from the module"


def _replicated(program: Program) -> Iterator[str]:
    if program.plan is None or program.plan.options.get("replicas", 1) == 1:
        return
    for function in (replica_ops.scatter, replica_ops.parallel_apply, replica_ops.gather):
        count = sum(1 for _ in program.find("call_function", function))
        if count != 1:
            yield f"it has {count} nodes {function.__name__}"


PROMISES: dict[str, Promise] = {
    "inlined": _inlined,
    "shapes": _shapes,
    "backward-order": _backward_order,
    "plan": _plan,
    "buckets": _plan,
    "synced": _plan,
    "lifted": _lifted,
    "replicated": _replicated,
}
