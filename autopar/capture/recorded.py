"""Stand-ins for tensors during tracing that also record what fx's own would lose."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

__all__ = ["RecordedValue", "UntraceableError"]


class UntraceableError(Exception):
    """Tracing this region would not be exact; the message is the reason."""


class _Recording(fx.Proxy):
    """In-place operators and item assignment become nodes; attribute assignment is refused.

    fx's own Proxy turns ``x += 1`` into ``x = x + 1``, which differs where ``x`` has another name,
    and drops ``x.data = y`` without a word.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _OWN:
            raise UntraceableError(f"it assigns the attribute {name!r} of a tensor")
        object.__setattr__(self, name, value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __getattr__(self, name: str) -> _RecordedAttribute:
        attribute: _RecordedAttribute = _RecordedAttribute(self, name)
        return attribute


class RecordedValue(_Recording):
    """The result of a node."""


class _RecordedAttribute(_Recording, fx.proxy.Attribute):
    """``value.name``: a node when it is read, the method's name when it is called."""

    __init__ = fx.proxy.Attribute.__init__


_OWN = frozenset({"node", "tracer", "root", "attr", "_node"})


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def record(self: _Recording, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


for _name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    setattr(_Recording, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))
