"""The speeds that predicted times rest on: stated, and never taken for measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopar.errors import OptionError
from autopar.view.units import bytes_text, flops_text

__all__ = ["Rates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast the machines and the network between them are.

    Attributes:
        flops: floating-point operations a second of one rank.
        memory: bytes a second that one rank reads and writes in its memory.
        operation: seconds that any operation takes at least.
        link: bytes a second between two ranks.
        message: seconds that any all-reduce takes at least.
        origin: where the figures are from: ``"assumed"`` or ``"given"``.
    """

    flops: float
    memory: float
    operation: float
    link: float
    message: float
    origin: str = "assumed"

    @classmethod
    def assumed(cls, device: str) -> Rates:
        """Round figures: a server's CPU with 10 Gbit/s Ethernet, or a data-centre GPU with 100 Gbit/s."""
        if device == "cpu":
            return cls(flops=1e11, memory=2e10, operation=5e-6, link=1.25e9, message=1e-4)
        return cls(flops=2e13, memory=1e12, operation=5e-6, link=1.25e10, message=3e-5)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rates:
        """Rates as they stand in a graph document.

        Raises:
            KeyError, TypeError, ValueError: one is missing or no positive number.
        """
        return cls(**{name: _positive(values[name]) for name in _NUMBERS}, origin=str(values["origin"]))

    def to_json(self) -> dict[str, Any]:
        """The rates as JSON values."""
        return dataclasses.asdict(self)

    def given(self, pairs: Mapping[str, str]) -> Rates:
        """These rates with others in their places, from text as a user gives it.

        Raises:
            OptionError: there is no such rate, or the text is no positive number.

        Example:
            >>> Rates.assumed("cpu").given({"link": "5e9"}).link
            5000000000.0
        """
        if not pairs:
            return self
        changed: dict[str, float] = {}
        for name, text in pairs.items():
            if name not in _NUMBERS:
                raise OptionError(f"There is no rate {name!r}.", mend=f"Give one of {', '.join(_NUMBERS)}.")
            try:
                changed[name] = _positive(text)
            except ValueError:
                raise OptionError(
                    f"The rate {name} is {text!r}, which is no positive number.", mend=f"Write {name}=1e9, for example."
                ) from None
        return dataclasses.replace(self, **changed, origin="given")

    def __str__(self) -> str:
        return (
            f"{flops_text(round(self.flops))}FLOP/s, memory {bytes_text(round(self.memory))}/s, "
            f"network {bytes_text(round(self.link))}/s ({self.origin})"
        )


_NUMBERS = ("flops", "memory", "operation", "link", "message")


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(value)
    return number
