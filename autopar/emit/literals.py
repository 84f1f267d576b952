"""Writes constants as Python."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from autopar.emit.imports import Imports
from autopar.emit.layout import Expr, call, collection, flat, prefixed
from autopar.emit.names import is_identifier, quoted
from autopar.emit.targets import callable_name
from autopar.errors import ModelError

__all__ = ["Writer"]


class Writer:
    """Turns the arguments of graph nodes into expressions.

    Args:
        imports: gets what the expressions need.
        value_of: the expression for a node's value.
        name_of: the expression for a function or class.
    """

    def __init__(
        self,
        imports: Imports,
        value_of: Callable[[fx.Node], Expr],
        name_of: Callable[[Callable[..., Any]], str] | None = None,
    ) -> None:
        self.imports, self.value_of = imports, value_of
        self.name_of = name_of or (lambda target: callable_name(target, imports))

    def expression(self, value: Any) -> Expr:
        """Any argument of a node: nodes, constants, and containers of them.

        Raises:
            ModelError: a constant that has no form in Python source.
        """
        if isinstance(value, fx.Node):
            return self.value_of(value)
        if isinstance(value, dict):
            items = [prefixed(f"{flat(self.expression(key))}: ", self.expression(v)) for key, v in value.items()]
            return collection("{}", items)
        if isinstance(value, torch.Size):
            items = [collection("[]", map(self.expression, value))]
            return call(f"{self.imports.module('torch')}.Size", items)
        if isinstance(value, tuple):
            if hasattr(value, "_fields"):
                return call(self.name_of(type(value)), map(self.expression, value))
            return collection("()", map(self.expression, value))
        if isinstance(value, list):
            return collection("[]", map(self.expression, value))
        if isinstance(value, slice):
            return call("slice", (self.expression(v) for v in (value.start, value.stop, value.step)))
        return self.constant(value)

    def constant(self, value: Any) -> str:
        """A constant leaf."""
        if value is Ellipsis:
            return "..."
        if isinstance(value, enum.Enum):
            return f"{self.name_of(type(value))}[{quoted(value.name)}]"
        if type(value) in (type(None), bool, int, bytes, range):
            return repr(value)
        if type(value) is str:
            return quoted(value)
        if type(value) is float:
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        if type(value) is complex:
            finite = math.isfinite(value.real) and math.isfinite(value.imag)
            parts = (self.constant(value.real), self.constant(value.imag))
            return repr(value) if finite else f"complex({', '.join(parts)})"
        if isinstance(value, torch.device):
            return f"{self.imports.module('torch')}.device({quoted(str(value))})"
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return f"{self.imports.module('torch')}.{str(value).removeprefix('torch.')}"
        if isinstance(value, type) or callable(value):
            return self.name_of(value)
        raise ModelError(
            f"The graph holds a constant of type {type(value).__name__} that cannot be written as Python.",
            mend="Keep it in a submodule's attribute, or pass it as a tensor.",
        )

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Expr]:
        """The arguments of a call; a keyword that is no identifier goes through ``**{...}``."""
        written = [self.expression(arg) for arg in args]
        odd = {name: value for name, value in kwargs.items() if not is_identifier(name)}
        written += [prefixed(f"{k}=", self.expression(v)) for k, v in kwargs.items() if k not in odd]
        return [*written, prefixed("**", self.expression(odd))] if odd else written

    def index(self, value: Any) -> str:
        """What stands between the brackets of a subscript."""
        if isinstance(value, tuple) and len(value) > 1 and not hasattr(value, "_fields"):
            return ", ".join(self._slice(item) for item in value)
        return self._slice(value)

    def _slice(self, value: Any) -> str:
        if not isinstance(value, slice):
            return flat(self.expression(value))
        bounds = [value.start, value.stop] if value.step is None else [value.start, value.stop, value.step]
        parts = ["" if bound is None else flat(self.expression(bound)) for bound in bounds]
        if all(part.isidentifier() or part.removeprefix("-").isdigit() or not part for part in parts):
            return ":".join(parts)
        # Formatters put spaces around the colon where a bound is more than a name or a number.
        spaced = parts[0]
        for part in parts[1:]:
            spaced += (" :" if spaced else ":") + (f" {part}" if part else "")
        return spaced
