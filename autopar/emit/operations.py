"""Writes one graph node as one Python expression or statement."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from autopar.emit.attributes import attribute
from autopar.emit.imports import Imports
from autopar.emit.layout import Expr, call, flat
from autopar.emit.literals import Writer
from autopar.emit.names import is_identifier, quoted

__all__ = ["IN_PLACE", "Operations"]

_BINARY: Mapping[Any, str] = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/",
    operator.floordiv: "//", operator.mod: "%", operator.matmul: "@", operator.pow: "**",
    operator.and_: "&", operator.or_: "|", operator.xor: "^", operator.lshift: "<<", operator.rshift: ">>",
    operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
}  # fmt: skip
_UNARY: Mapping[Any, str] = {operator.neg: "-", operator.pos: "+", operator.invert: "~", operator.not_: "not "}
IN_PLACE: Mapping[Any, str] = {
    operator.iadd: "+=", operator.isub: "-=", operator.imul: "*=", operator.itruediv: "/=",
    operator.ifloordiv: "//=", operator.imod: "%=", operator.imatmul: "@=", operator.ipow: "**=",
    operator.iand: "&=", operator.ior: "|=", operator.ixor: "^=", operator.ilshift: "<<=", operator.irshift: ">>=",
}  # fmt: skip
_POWER_OPERAND = re.compile(r"[A-Za-z_][\w.]*|-?\d[\w.]*")


class Operations:
    """Writes nodes of one graph.

    Args:
        root: the module that ``self`` stands for.
        imports: gets what the expressions need.
        names: the variable of each node that has one already.
        name_of: the expression for a function or class.
        self_name: what the printed function calls its module.
        special: expressions for targets that do not lead into ``root``.
    """

    def __init__(
        self,
        root: nn.Module,
        imports: Imports,
        names: Mapping[fx.Node, str],
        name_of: Callable[[Callable[..., Any]], str],
        *,
        self_name: str = "self",
        special: Mapping[str, Expr] | None = None,
    ) -> None:
        self.root, self.names, self.name_of, self.self_name = root, names, name_of, self_name
        self.special = special or {}
        self.write = Writer(imports, self.value_of, name_of)

    def value_of(self, node: fx.Node) -> Expr:
        """The expression for a node's value where it is used: its variable, or the read itself."""
        found = self.names.get(node)
        if found is not None:
            return found
        assert node.op == "get_attr", f"{node} is used before it is assigned"
        target = str(node.target)
        return self.special.get(target) or self.path(target)

    def path(self, path: str) -> str:
        """The expression for an attribute of the model."""
        return attribute(self.root, path, root_name=self.self_name)

    def expression(self, node: fx.Node) -> Expr:
        """The right-hand side for a node."""
        if node.op == "get_attr":
            return self.path(str(node.target))
        arguments = self.write.arguments
        if node.op == "call_module":
            return call(self.path(str(node.target)), arguments(node.args, node.kwargs))
        if node.op == "call_method":
            owner, *rest = node.args
            method = str(node.target)
            bound = f"{self._atom(owner)}.{method}"
            if not is_identifier(method):
                bound = f"getattr({flat(self.write.expression(owner))}, {quoted(method)})"
            return call(bound, arguments(tuple(rest), node.kwargs))
        assert callable(node.target), f"{node} is a {node.op}"
        return self._operator(node) or call(self.name_of(node.target), arguments(node.args, node.kwargs))

    def item_assignment(self, node: fx.Node) -> tuple[str, Expr]:
        """``owner[index]`` and the value, for a node of ``operator.setitem``."""
        owner, index, value = node.args
        return f"{self._atom(owner)}[{self.write.index(index)}]", self.write.expression(value)

    def _operator(self, node: fx.Node) -> Expr | None:
        """An operator, subscript or attribute in its own notation; None for everything else."""
        target, args = node.target, node.args
        if node.kwargs:
            return None
        if target in _BINARY and len(args) == 2:
            left, right = (flat(self.write.expression(arg)) for arg in args)
            if target is operator.pow:
                left = f"({left})" if left.startswith("-") else left
                tight = _POWER_OPERAND.fullmatch(left) and _POWER_OPERAND.fullmatch(right)
                return f"{left}**{right}" if tight else f"{left} ** {right}"
            return f"{left} {_BINARY[target]} {right}"
        if target in _UNARY and len(args) == 1:
            return f"{_UNARY[target]}{flat(self.write.expression(args[0]))}"
        if target is operator.getitem and len(args) == 2:
            return f"{self._atom(args[0])}[{self.write.index(args[1])}]"
        if target is getattr and len(args) == 2 and isinstance(args[1], str) and is_identifier(args[1]):
            return f"{self._atom(args[0])}.{args[1]}"
        return None

    def _atom(self, value: Any) -> str:
        """An expression that a dot or a bracket may follow: ``1.real`` would not parse."""
        text = flat(self.write.expression(value))
        return f"({text})" if isinstance(value, (int, float, complex)) else text
