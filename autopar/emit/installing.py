"""What a printed file calls to run its islands: graphs that stand in for forwards inside of opaque calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from autopar import compat
from autopar.calls import Facts, call_key
from autopar.islands import StandIn, installed, kind_of

__all__ = ["Island", "island", "with_islands"]

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Island:
    """A printed island.

    Attributes:
        function: called as ``function(module, *args, **kwargs)``.
        path: of the module whose forward it stands for.
        kind: of the calls that it is exact for, see ``autopar.islands.kind_of``.
        facts: values of attributes, train/eval flags among them, that the source has baked in, by path of
            the module (as seen from the island's) and name.
    """

    function: Function
    path: str
    kind: str
    facts: Mapping[tuple[str, str], Any]

    def stand_in(self, model: nn.Module) -> StandIn:
        """Stands for the forward of the module in this model."""
        module, function = model.get_submodule(self.path), self.function
        facts = Facts(module, self.facts)

        def fits(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
            return facts.hold() and kind_of(call_key(args, kwargs), compat.ambient_modes()) == self.kind

        return StandIn(module, fits, lambda args, kwargs: function(module, *args, **kwargs))


def island(path: str, *, kind: str, facts: Mapping[tuple[str, str], Any]) -> Callable[[Function], Island]:
    """Says of a printed function which forward it stands for, and when; see ``Island``."""
    return lambda function: Island(function, path, kind, facts)


def with_islands(*islands: Island) -> Callable[[Function], Function]:
    """Lets the islands stand for their modules' forwards while a printed forward runs."""

    def around(forward: Function) -> Function:
        known: WeakKeyDictionary[nn.Module, list[StandIn]] = WeakKeyDictionary()

        @functools.wraps(forward)
        def run(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            found = known.get(model)
            if found is None:
                found = known[model] = [one.stand_in(model) for one in islands]
            with installed(found):
                return forward(model, *args, **kwargs)

        return run

    return around
