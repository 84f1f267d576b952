"""Takes passes that were written for torch.fx into a pipeline: its ``PassBase``, and functions of a GraphModule."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeAlias, cast

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase

from autopar.errors import PassError
from autopar.passes.base import Pass, PassContext, PassResult
from autopar.program import Program

__all__ = ["ForeignPass", "adapted", "is_foreign"]

ForeignPass: TypeAlias = Callable[..., Any]
"""A subclass of ``PassBase``, or a function that takes a GraphModule and changes it or returns another."""


def is_foreign(found: object) -> bool:
    """Whether this is a pass of torch.fx rather than one of autopar's."""
    return inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, PassBase))


def adapted(
    found: ForeignPass, *, name: str = "", requires: Collection[str] = ("captured",), provides: Collection[str] = ()
) -> type[Pass]:
    """A pass of autopar's that runs one of torch.fx.

    Args:
        found: a subclass of ``torch.fx.passes.infra.pass_base.PassBase``, whose constructor's arguments
            become options, or a function ``fn(gm)``, whose further arguments do.
        name: as it is to stand in a pipeline; by default the function's or class's, with dashes.
        requires, provides: its contract.

    Example:
        >>> def remove_dropout(gm):
        ...     pass
        >>> adapted(remove_dropout).name
        'remove-dropout'
    """
    signature = inspect.signature(found)
    if inspect.isfunction(found):
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    own = name or found.__name__.replace("_", "-")
    body = {
        "__doc__": found.__doc__ or f"Runs ``{found.__module__}.{found.__qualname__}``, which says nothing of itself.",
        "__module__": found.__module__,
        "__signature__": signature,
        "name": own,
        "requires": frozenset(requires),
        "provides": frozenset(provides),
        "foreign": staticmethod(found),
    }
    return cast("type[Pass]", type(found.__name__, (_Adapter,), body))


class _Adapter:
    """Runs ``foreign`` on the graph module, and tells the program what became of it."""

    name: str
    foreign: Callable[..., Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        self.options = inspect.signature(type(self)).bind(*args, **options)

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """The foreign pass on a graph module whose code is up to date."""
        before, module = program.code, program.graph_module
        module.recompile()
        run = self._torchs if inspect.isclass(self.foreign) else self._function
        module, modified = run(module)
        program = dataclasses.replace(program, graph_module=module)
        return PassResult(program, changed=program.code != before if modified is None else modified)

    def _torchs(self, module: fx.GraphModule) -> tuple[fx.GraphModule, bool | None]:
        """As ``PassBase.__call__``, but ``ensures`` sees the graph that the pass returned, not the one it was given."""
        one = self.foreign(*self.options.args, **self.options.kwargs)
        one.requires(module)
        result = one.call(module)
        if result is None:
            raise PassError(f"Pass {self.name!r} returned None.", mend="Let its call() return a torch.fx PassResult.")
        one.ensures(result.graph_module)
        return result.graph_module, bool(result.modified)

    def _function(self, module: fx.GraphModule) -> tuple[fx.GraphModule, bool | None]:
        result = self.foreign(module, *self.options.args, **self.options.kwargs)
        if result is None:
            return module, None
        if isinstance(result, fx.GraphModule):
            return result, None
        if isinstance(getattr(result, "graph_module", None), fx.GraphModule):  # torch's PassResult
            return result.graph_module, bool(result.modified)
        raise PassError(
            f"Pass {self.name!r} returned a {type(result).__name__}.",
            mend="Let the function change the graph module and return it, or nothing.",
        )
