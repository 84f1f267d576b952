"""Which nodes of a graph write to a tensor in place, and which only look at another one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from autopar import compat

__all__ = ["base_of", "operation_name", "written_by", "written_reads"]

_IN_PLACE_OPERATORS = frozenset(
    {"iadd", "isub", "imul", "imatmul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"}
    | {"ilshift", "irshift", "setitem"}
)
_VIEWS = frozenset({
    "view", "view_as", "reshape", "reshape_as", "narrow", "select", "squeeze", "unsqueeze", "transpose",
    "swapaxes", "swapdims", "movedim", "moveaxis", "t", "permute", "expand", "expand_as", "flatten",
    "unflatten", "slice", "alias", "as_strided", "unbind", "chunk", "split", "tensor_split", "getitem",
    "diagonal", "detach", "contiguous", "real", "imag", "view_as_real", "view_as_complex", "to", "type_as", "float",
})  # fmt: skip
_VIEW_ATTRIBUTES = frozenset({"data", "T", "mT", "H", "mH", "real", "imag"})


def written_by(node: fx.Node) -> list[fx.Node]:
    """The nodes whose tensors ``node`` writes to in place."""
    name = operation_name(node)
    written: list[object] = []
    if node.op == "call_method" and name.endswith("_") and not name.endswith("__"):
        written = [*node.args[:1]]
    elif node.op == "call_function":
        if name in _IN_PLACE_OPERATORS or (name.endswith("_") and not name.startswith("_")):
            written = [*node.args[:1]]
        if name in ("batch_norm", "instance_norm"):
            statistics = slice(3, 5) if isinstance(node.target, compat.OpOverload) else slice(1, 3)
            written += [*node.args[statistics], node.kwargs.get("running_mean"), node.kwargs.get("running_var")]
        if node.kwargs.get("inplace") is True:
            written += [*node.args[:1], node.kwargs.get("input")]
        written.append(node.kwargs.get("out"))
    return [value for value in written if isinstance(value, fx.Node)]


def base_of(node: fx.Node) -> fx.Node:
    """The node whose memory the node's result may be a view of; itself where it has its own."""
    while True:
        name = operation_name(node)
        looks = node.op in ("call_function", "call_method") and (
            name in _VIEWS or (name == "getattr" and node.args[1] in _VIEW_ATTRIBUTES)
        )
        # What an in-place operation returns is the tensor that it wrote to.
        source = node.args[0] if looks and node.args else next(iter(written_by(node)), None)
        if not isinstance(source, fx.Node) or (not looks and operation_name(node) in ("batch_norm", "instance_norm")):
            return node
        node = source


def written_reads(graph: fx.Graph) -> Iterator[str]:
    """Names of the state that the graph's own operations write to."""
    for node in graph.nodes:
        for written in map(base_of, written_by(node)):
            if written.op == "get_attr":
                yield str(written.target)


def operation_name(node: fx.Node) -> str:
    """What the node's function or method is called, an ATen operator without its overload."""
    if isinstance(node.target, compat.OpOverload):
        return str(node.target.overloadpacket.__name__)
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
