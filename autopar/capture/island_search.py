"""Finds the largest submodules of an opaque call that are graphs by themselves.

The model runs once more as it is. The first call of a submodule below an opaque call is captured on
the spot, with the very arguments that it gets; where that gives a graph, the submodule is an island,
and what is below it is not looked at. Else its forward runs, and its own submodules get their turn.
So each module is tried at most once, and what is tried at each depth is at most one model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.calls import call_key
from autopar.capture.call import Call
from autopar.capture.falls import Fall
from autopar.capture.rules import reason_to_keep_whole
from autopar.capture.source import one_line
from autopar.islands import Island
from autopar.program import Program

__all__ = ["Budget", "Search"]

_PATIENCE = 30.0  # seconds for all the islands of one capture


class Budget:
    """The time that looking for islands may take, those inside islands included."""

    def __init__(self, seconds: float = _PATIENCE) -> None:
        self.seconds = seconds
        self._end: float | None = None

    def left(self) -> bool:
        """Whether there is any; the clock starts at the first question."""
        if self._end is None:
            self._end = time.monotonic() + self.seconds
        return time.monotonic() < self._end


Capture = Callable[[nn.Module, Call], "Program | Fall"]


class Search:
    """One run of a model, in which the submodules of its opaque calls are tried.

    Args:
        model: the root.
        paths: of its opaque calls; the root's is empty.
        capture: makes a program of a submodule and its call, or says why there is none.
        budget: the time that is left.

    Attributes:
        islands: by path.
        falls: by path, the modules that were tried and are no graphs, or were given up.
        untried: paths of the modules for which no time was left.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], capture: Capture, budget: Budget) -> None:
        self.islands: dict[str, Island] = {}
        self.falls: dict[str, Fall] = {}
        self.untried: list[str] = []
        self._model, self._capture, self._budget = model, capture, budget
        self._thread, self._idle = threading.get_ident(), False
        names = {module: path for path, module in model.named_modules()}
        chosen: dict[nn.Module, str] = {}
        for path in paths:
            owner = model.get_submodule(path)
            for module in _own_python(owner):
                # An opaque call itself was tried before, unless nobody did for its hooks, which run around an island.
                itself = module is owner and (not path or not compat.has_module_hooks(module))
                if not itself and "forward" not in vars(module) and _trains(module):
                    chosen[module] = names[module]
        self._probes = {module: _Probe(self, module, path) for module, path in chosen.items()}

    def run(self, forward: Callable[[], Any]) -> Any:
        """Runs the model, and tries what it calls."""
        with _standing(list(self._probes.items())):
            return forward()

    def uncalled(self) -> list[str]:
        """Paths of the modules with parameters of their own that no run has called so far, nor a module around them."""
        covered = {module for path in self.islands for module in self._model.get_submodule(path).modules()}
        seen = {*self.falls, *self.untried}
        return [
            probe.path
            for module, probe in self._probes.items()
            if module not in covered and probe.path not in seen and _trains(module, recurse=False)
        ]

    def call(self, probe: _Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A submodule's forward, and the decision about it when it is called first."""
        if self._idle or threading.get_ident() != self._thread:
            return probe.own(*args, **kwargs)
        path = probe.path
        if path not in self.islands and path not in self.falls and path not in self.untried:
            found = self._try(probe, args, kwargs)
            if isinstance(found, Island):
                self.islands[path] = found
            elif found is None:
                self.untried.append(path)
            else:
                self.falls[path] = found
        if path not in self.islands:
            return probe.own(*args, **kwargs)
        before = compat.tree_flatten((args, kwargs))
        self._idle = True
        try:
            result = probe.own(*args, **kwargs)
        finally:
            self._idle = False
        if not _same(before, compat.tree_flatten((args, kwargs))):  # a graph has no list to append to
            del self.islands[path]
            self.falls[path] = Fall("symbolic", "it changes a container that it is given")
        return result

    def _try(self, probe: _Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Island | Fall | None:
        """An island, or why there is none; None where no time is left."""
        below = [(module, self._probes[module]) for module in probe.module.modules() if module in self._probes]
        with _standing(below, away=True):
            obstacle = _obstacle(probe.module)
            if obstacle is not None:
                return Fall("symbolic", obstacle)
            call = Call.of(args, kwargs)
            if call.foreign:
                return Fall("symbolic", f"it takes a {type(call.foreign[0]).__name__} as an argument")
            if not self._budget.left():
                return None
            key, modes = call_key(args, kwargs), compat.ambient_modes()
            try:
                found = self._capture(probe.module, call)
            except Exception as error:
                return Fall("symbolic", f"run by itself, its forward raised {one_line(error)}")
        return Island(found, key, modes) if isinstance(found, Program) else found


@dataclass(slots=True)
class _Probe:
    """Stands for the forward of a module that is looked at."""

    search: Search
    module: nn.Module
    path: str

    def own(self, *args: Any, **kwargs: Any) -> Any:
        return compat.original_class(self.module).forward(self.module, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.search.call(self, args, kwargs)


@contextmanager
def _standing(probes: Sequence[tuple[nn.Module, _Probe]], *, away: bool = False) -> Iterator[None]:
    """Within this block the probes stand for the forwards, or (``away``) do not."""
    _place(probes, away)
    try:
        yield
    finally:
        _place(probes, not away)


def _place(probes: Sequence[tuple[nn.Module, _Probe]], away: bool) -> None:
    for module, probe in probes:
        if not away:
            vars(module)["forward"] = probe
        elif vars(module).get("forward") is probe:
            del vars(module)["forward"]


def _obstacle(module: nn.Module) -> str | None:
    """Why a submodule cannot be an island here, whatever its forward does."""
    if not torch.is_grad_enabled():
        return "it runs without gradients"
    if compat.saves_through_hooks():
        return "it runs inside a checkpoint"
    if compat.in_function_transform():
        return "it runs inside a transform of torch.func"
    reason = reason_to_keep_whole(module, hooks=False)
    if reason is not None:
        return reason
    if any(isinstance(value, torch.Tensor) and value.grad_fn is not None for value in _plain_tensors(module)):
        return "it uses a tensor that is computed before its forward"
    return None


def _own_python(module: nn.Module) -> Iterator[nn.Module]:
    """A module and what is below it, but for what is compiled: code that looks at forwards as it pleases."""
    if compat.is_compiled(module) or isinstance(module, torch.jit.ScriptModule):
        return
    yield module
    for child in module.children():
        yield from _own_python(child)


def _plain_tensors(module: nn.Module) -> Iterator[Any]:
    for one in module.modules():
        yield from vars(one).values()


def _trains(module: nn.Module, *, recurse: bool = True) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse))


def _same(one: tuple[list[Any], Any], other: tuple[list[Any], Any]) -> bool:
    return one[1] == other[1] and all(mine is theirs for mine, theirs in zip(one[0], other[0], strict=True))
