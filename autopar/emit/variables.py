"""Chooses the variable of every value: the user's own name where their source shows one."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence

from torch import fx, nn

from autopar import ops
from autopar.emit.attributes import resolve
from autopar.emit.names import Scope, is_identifier, to_identifier
from autopar.emit.user_source import Statement, statement_at
from autopar.program import info

__all__ = ["Layout", "Variables", "lay_out"]

_OPERATORS = {
    "Add": "add", "Sub": "sub", "Mult": "mul", "Div": "truediv", "FloorDiv": "floordiv", "Mod": "mod",
    "MatMult": "matmul", "Pow": "pow", "BitAnd": "and_", "BitOr": "or_", "BitXor": "xor",
    "LShift": "lshift", "RShift": "rshift", "USub": "neg", "UAdd": "pos", "Invert": "invert", "Not": "not_",
}  # fmt: skip


class Layout:
    """Which nodes get a statement, and which are part of another one.

    Attributes:
        statements: nodes with a statement of their own, in order.
        unpacked: for a node whose result is taken apart where it is made, the nodes of its parts.
        named: the user's variable for a node, where the source shows it.
    """

    def __init__(self) -> None:
        self.statements: list[fx.Node] = []
        self.unpacked: dict[fx.Node, list[fx.Node]] = {}
        self.named: dict[fx.Node, str] = {}


def lay_out(graph: fx.Graph, root: nn.Module, special: Collection[str] = ()) -> Layout:
    """Decides the statements of a printed function.

    Reads of parameters, buffers and modules stand where they are used: they are names, not
    operations. Only a plain tensor attribute that an opaque module could rebind in between is read
    where the graph reads it.

    Args:
        graph: what to print.
        root: the module that ``self`` stands for.
        special: targets of reads that do not lead into ``root``.
    """
    layout = Layout()
    nodes = list(graph.nodes)
    user = _statements(nodes)
    parts: set[fx.Node] = set()
    for node in nodes:
        if node.op == "call_function" and node.target is ops.sync_gradients:
            layout.unpacked[node] = _items(node, len(node.args))
        elif (found := user.get(node)) is not None and len(found.targets) > 1:
            items = _items(node, len(found.targets))
            if items and all(user.get(item) == found for item in items):
                layout.unpacked[node] = items
                layout.named |= dict(zip(items, found.targets, strict=True))
        parts |= set(layout.unpacked.get(node, ()))
    layout.unpacked = {node: items for node, items in layout.unpacked.items() if items}
    layout.named |= _results(nodes, user, parts)
    for node in nodes:
        inlined = node.op == "get_attr" and (node.target in special or not _needs_variable(node, nodes, root))
        if node.op not in ("placeholder", "output") and not inlined and node not in parts:
            layout.statements.append(node)
    return layout


class Variables:
    """The variable of every value that is not inlined.

    Args:
        layout: of the graph.
        scope: the function's names; its arguments hold theirs already.
    """

    def __init__(self, layout: Layout, scope: Scope) -> None:
        self.names: dict[fx.Node, str] = {}
        self._layout, self._scope = layout, scope
        self._position = {node: index for index, node in enumerate(layout.statements)}

    def last_use(self, node: fx.Node) -> int:
        """Index of the last statement that uses a node's value; the end for what is returned."""
        uses = [self._position.get(user, len(self._position)) for user in node.users]
        return max(uses, default=-1)

    def bind(self, node: fx.Node) -> list[str]:
        """Names the results of the statement of ``node``: one, or one for each part."""
        position = self._position[node]
        bound = self._layout.unpacked.get(node, [node])
        for part in bound:
            wanted = self._layout.named.get(part) or self._fallback(node, part)
            self.names[part] = self._scope.bind(wanted, position, self.last_use(part))
        return [self.names[part] for part in bound]

    def _fallback(self, node: fx.Node, part: fx.Node) -> str:
        if node.target is ops.sync_gradients and part is not node:
            source = node.args[int(part.args[1])]  # type: ignore[arg-type]
            if isinstance(source, fx.Node):
                # A synchronised parameter that is an input already: lifted programs.
                return to_identifier(str(source.target) if source.op == "get_attr" else source.name.rstrip("_"))
        return part.name if is_identifier(part.name) else to_identifier(part.name)


def _items(node: fx.Node, count: int) -> list[fx.Node]:
    """The ``getitem`` nodes of all ``count`` parts, if these are all that uses the node."""
    by_index: dict[int, fx.Node] = {}
    for user in node.users:
        if user.target is not operator.getitem or user.args[0] is not node or not isinstance(user.args[1], int):
            return []
        if user.args[1] in by_index:
            return []
        by_index[user.args[1]] = user
    return [by_index[index] for index in range(count)] if sorted(by_index) == list(range(count)) else []


def _statements(nodes: Iterable[fx.Node]) -> dict[fx.Node, Statement]:
    found = {}
    for node in nodes:
        statement = statement_at(info(node).source)
        if statement is not None and node.op in ("call_function", "call_method", "call_module"):
            found[node] = statement
    return found


def _results(nodes: Sequence[fx.Node], user: dict[fx.Node, Statement], parts: set[fx.Node]) -> dict[fx.Node, str]:
    """Nodes that are the whole value of one of the user's assignments, with the name that it gets.

    A statement leaves a run of nodes in the graph, interrupted by those of the modules that it
    calls. The last node of a run is its value if nothing in the run uses it and it is the operation
    at the top of the right-hand side.
    """
    own = [n for n in nodes if n.op not in ("get_attr", "placeholder") and n not in parts]
    own = [node for node in own if node.target is not ops.sync_gradients]
    named: dict[fx.Node, str] = {}
    for node, following in zip(own, [*own[1:], None], strict=True):
        statement = user.get(node)
        if statement is None or len(statement.targets) != 1:
            continue
        if following is not None and user.get(following) == statement and node in following.all_input_nodes:
            continue
        target = getattr(node.target, "__name__", str(node.target))
        wanted = _OPERATORS.get(statement.operator, "")
        if statement.operator and target != wanted and not (statement.augmented and target == f"i{wanted.rstrip('_')}"):
            continue
        named[node] = statement.targets[0]
    return named


def _needs_variable(node: fx.Node, nodes: Sequence[fx.Node], root: nn.Module) -> bool:
    value = resolve(root, str(node.target))
    if isinstance(value, (nn.Parameter, nn.Module)):
        return False
    start = nodes.index(node)
    last = max((nodes.index(user) for user in node.users), default=start)
    return any(between.op == "call_module" for between in nodes[start:last])
