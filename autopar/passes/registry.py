"""Looks up passes by name: registered in this process, or found through entry points."""

from __future__ import annotations

from autopar.errors import UsageError
from autopar.passes.base import Pass
from autopar.plugins import Registry

__all__ = ["check_class", "passes", "register_pass"]

passes: Registry[type[Pass]] = Registry("pass", group="autopar.passes")


def register_pass(cls: type[Pass]) -> type[Pass]:
    """Makes a pass known under its ``name`` for this process; usable as a class decorator.

    Raises:
        UsageError: the class lacks part of the contract, or another pass has that name.

    Example:
        >>> from autopar.passes.base import PassResult
        >>> @register_pass
        ... class CountNodes:
        ...     name = "count-nodes"
        ...     requires = frozenset()
        ...     provides = frozenset()
        ...     def run(self, program, ctx):
        ...         return PassResult(program, changed=False)
        >>> passes.get("count-nodes").name
        'count-nodes'
        >>> passes.remove("count-nodes")
    """
    check_class(cls)
    passes.add(cls.name, cls)
    return cls


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
