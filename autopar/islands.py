"""Islands: submodules of an opaque call that run as graphs of their own while the call itself runs eagerly.

An island's graph takes the place of the submodule's ``forward`` for as long as the program runs, and
of nothing else: hooks run around it as they do around the forward. A call that it is not exact for,
by the guards that whole programs have, gets the submodule's own forward.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.calls import Entry, Facts, call_key, flags
from autopar.program import Program, info

__all__ = ["Island", "StandIn", "around", "eager_parameters", "installed", "kind_of", "stand_ins"]

# Reads the tensors of these names from a module, at each call.
Reader = Callable[[nn.Module, Sequence[str]], Callable[[], Sequence[torch.Tensor]]]


@dataclass(frozen=True, slots=True)
class Island:
    """A submodule of an opaque call that is a graph by itself.

    Attributes:
        program: its forward; the program's ``model`` is the submodule, and all names are relative to it.
        key: the kind of call that it was captured from, see ``autopar.calls.call_key``.
        modes: what besides inputs decided then what operations did.
    """

    program: Program
    key: Any
    modes: tuple[Any, ...]


def kind_of(key: Any, modes: tuple[Any, ...]) -> str:
    """A kind of call and the modes around it as a short text, for files."""
    return hashlib.sha256(repr((key, modes)).encode()).hexdigest()[:16]


def stand_ins(program: Program, reader: Reader | None = None) -> list[StandIn]:
    """What takes the place of a forward while the program runs, for its islands and those inside them.

    Args:
        program: whose islands; lowered or not.
        reader: reads the lifted state of an island; None for programs that are not lowered.
    """
    found = []
    for island in program.islands.values():
        found.append(_stand_in(island, reader))
        found += stand_ins(island.program, reader)
    return found


@contextmanager
def installed(found: Sequence[StandIn]) -> Iterator[None]:
    """Within this block the islands serve the calls of this thread that they are exact for."""
    if not found or compat.has_global_module_hooks() or not torch.is_grad_enabled():
        yield
        return
    mine: list[StandIn] = []
    try:
        for one in found:
            # A forward that somebody replaced is theirs; one of ours is that of another thread, which is served first.
            if "forward" not in vars(one.module):
                one.begin()
                mine.append(one)
        yield
    finally:
        for one in mine:
            one.end()


def around(found: Sequence[StandIn], forward: Callable[..., Any]) -> Callable[..., Any]:
    """``forward`` with the islands in place while it runs; itself where there are none."""
    if not found:
        return forward

    def run(*args: Any) -> Any:
        with installed(found):
            return forward(*args)

    return run


class StandIn:
    """Stands for the ``forward`` of an island's module: its graph where that is exact, else the forward itself.

    Args:
        module: the island's.
        fits: whether the graph is exact for a call, as far as its arguments, modes and the module tell.
        run: runs it.
    """

    def __init__(
        self,
        module: nn.Module,
        fits: Callable[[tuple[Any, ...], dict[str, Any]], bool],
        run: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    ) -> None:
        self.module, self._fits, self._run = module, fits, run
        self._hooks = [
            hooks
            for module in self.module.modules()
            if module is not self.module and not compat.has_module_hooks(module)
            for hooks in compat.module_hooks(module)
        ]
        self._own = MethodType(compat.original_class(self.module).forward, self.module)
        self._thread = 0
        functools.update_wrapper(self, self._own)

    def begin(self) -> None:
        """Takes the place of the forward."""
        self._thread = threading.get_ident()
        vars(self.module)["forward"] = self

    def end(self) -> None:
        """Gives the place back, unless somebody else has it by now."""
        if vars(self.module).get("forward") is self:
            del vars(self.module)["forward"]

    def serves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the graph is exact for this call, here and now."""
        return (
            self._thread == threading.get_ident()
            and torch.is_grad_enabled()
            and not any(self._hooks)
            # A checkpoint around the call runs the forward itself once more and compares what was saved.
            and not compat.saves_through_hooks()
            and self._fits(args, kwargs)
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        return self._run(args, kwargs) if self.serves(args, kwargs) else self._own(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy that a forward makes of its submodules has its own forward."""
        copied = memo.get(id(self.module), self.module)
        return MethodType(compat.original_class(self.module).forward, copied)


def eager_parameters(program: Program) -> set[nn.Parameter]:
    """The trainable parameters that an eager piece of the program owns, alone or beside operations.

    Args:
        program: after ``inline-modules``, which opens what is pure.
    """
    inside = {id(module) for one in program.islands.values() for module in one.program.model.modules()}
    found: set[nn.Parameter] = set()
    for node in program.graph.nodes:
        if node.op == "call_module" and info(node).opaque:
            owner = program.model.get_submodule(info(node).module_path)
            found |= {
                parameter
                for module in owner.modules()
                if id(module) not in inside
                for parameter in module.parameters(recurse=False)
                if parameter.requires_grad
            }
    return found.union(*(eager_parameters(one.program) for one in program.islands.values()))


def _stand_in(island: Island, reader: Reader | None) -> StandIn:
    program, modes = island.program, island.modes
    facts = Facts(program.model, {**flags(program.mode_dependent), **program.attributes})
    run = _runner(program, reader)
    entry = Entry(island.key, facts, run, program)

    def fits(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return compat.ambient_modes() == modes and entry.fits(call_key(args, kwargs), args, kwargs) is True

    return StandIn(program.model, fits, run)


def _runner(program: Program, reader: Reader | None) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    signature, forward = program.signature, compat.compiled_forward(program.graph_module)
    flatten, unflatten = signature.flatten, signature.unflatten
    if reader is None:
        assert not program.lifted, "a lowered island reads its state at each call"
        return lambda args, kwargs: unflatten(forward(*flatten(args, kwargs)))
    read = reader(program.model, program.lifted)
    return lambda args, kwargs: unflatten(forward(*read(), *flatten(args, kwargs)))
