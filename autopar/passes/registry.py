"""Looks up passes by name: registered in this process, or found through entry points."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from autopar.errors import UsageError
from autopar.passes.adapters import ForeignPass, adapted, is_foreign
from autopar.passes.base import Pass
from autopar.passes.plugin_files import load_plugins
from autopar.plugins import Registry

__all__ = ["check_class", "passes", "register_pass"]

AnyPass = TypeVar("AnyPass", bound="type[Pass] | ForeignPass")


class _Passes(Registry["type[Pass]"]):
    """Passes; those of plug-in files count, and one of torch.fx that a package advertises is adapted."""

    def names(self) -> list[str]:
        """All known names, sorted."""
        load_plugins()
        return super().names()

    def get(self, name: str) -> type[Pass]:
        """The pass of that name, see ``Registry.get``."""
        load_plugins()
        found = super().get(name)
        return adapted(found, name=name) if is_foreign(found) else found


passes = _Passes("pass", group="autopar.passes")


def register_pass(
    found: AnyPass, *, name: str = "", requires: Collection[str] = ("captured",), provides: Collection[str] = ()
) -> AnyPass:
    """Makes a pass known under its name for this process; usable as a decorator.

    Args:
        found: a class with the contract of ``autopar.passes.base.Pass``; or a pass of torch.fx: a
            subclass of its ``PassBase``, or a function that takes a GraphModule and changes it.
        name: for a pass of torch.fx; by default that of the function or class, with dashes.
        requires, provides: the contract of a pass of torch.fx.

    Returns:
        What was given.

    Raises:
        UsageError: the class lacks part of the contract, or another pass has that name.

    Example:
        >>> @register_pass
        ... def count_nodes(gm):
        ...     print(len(gm.graph.nodes))
        >>> passes.get("count-nodes").name
        'count-nodes'
        >>> passes.remove("count-nodes")
    """
    if is_foreign(found):
        cls = adapted(found, name=name, requires=requires, provides=provides)
    else:
        cls = found  # type: ignore[assignment]
        check_class(cls)
    passes.add(cls.name, cls)
    return found


def check_class(cls: type[Pass]) -> None:
    """Refuses a class that is no pass.

    Raises:
        UsageError: it lacks part of the contract.
    """
    missing = [part for part in ("name", "requires", "provides", "run") if not hasattr(cls, part)]
    if missing:
        raise UsageError(
            f"{cls.__qualname__} cannot be used as a pass: it has no {', '.join(missing)}.",
            mend="A pass has name, requires, provides and run(program, ctx); see autopar/passes/base.py.",
        )
