"""The speeds that predicted times rest on, with where they are from: assumed, given or measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopar.errors import OptionError

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
        overlap: share of an all-reduce in which the rank goes on computing: 1 where a network card or a
            core of its own carries it, 0 where the rank that computes does.
        origin: where the figures are from: ``"assumed"``, ``"given"`` or ``"measured"``.
    """

    flops: float
    memory: float
    operation: float
    link: float
    message: float
    overlap: float = 1.0
    origin: str = "assumed"

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            _read(name, getattr(self, name))

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
            KeyError, TypeError, ValueError: one is missing or out of range.
        """
        numbers = {name: _read(name, values[name]) for name in _NUMBERS if name != "overlap" or name in values}
        return cls(**numbers, origin=str(values["origin"]))

    def to_json(self) -> dict[str, Any]:
        """The rates as JSON values."""
        return dataclasses.asdict(self)

    def given(self, pairs: Mapping[str, str]) -> Rates:
        """These rates with others in their places, from text as a user gives it.

        Raises:
            OptionError: there is no such rate, or the text is out of its range.

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
                changed[name] = _read(name, text)
            except ValueError:
                wanted, example = ("share from 0 to 1", 0.5) if name == "overlap" else ("positive number", "1e9")
                raise OptionError(
                    f"The rate {name} is {text!r}, which is no {wanted}.", mend=f"Write {name}={example}, for example."
                ) from None
        return dataclasses.replace(self, **changed, origin="given")

    def slowed(self, factor: float) -> Rates:
        """These rates where everything that is computed takes ``factor`` times as long."""
        return dataclasses.replace(
            self, flops=self.flops / factor, memory=self.memory / factor, operation=self.operation * factor
        )

    def all_reduce(self, nbytes: int, ranks: int) -> float:
        """Seconds of one all-reduce: a ring of ``n`` ranks moves ``2 (n - 1) / n`` times the bytes."""
        return self.message + nbytes * _ring(ranks) / self.link if ranks > 1 else 0.0

    def with_messages(self, times: Mapping[int, float], *, ranks: int) -> Rates:
        """These rates with ``message`` and ``link`` fitted to all-reduces that were measured.

        The line is the one of least squares of the relative errors, so that a large message does not
        outweigh the small ones.

        Args:
            times: seconds by bytes, of two sizes at least.
            ranks: how many took part, more than one.

        Example:
            >>> rates = Rates.assumed("cpu").with_messages({1000: 0.003, 2000: 0.004}, ranks=2)
            >>> round(rates.message, 6), round(rates.link)
            (0.002, 1000000)
        """
        weights = {nbytes: seconds**-2 for nbytes, seconds in times.items()}
        total = sum(weights.values())
        mean_bytes = sum(weights[nbytes] * nbytes for nbytes in times) / total
        mean_seconds = sum(weights[nbytes] * seconds for nbytes, seconds in times.items()) / total
        spread = sum(weights[nbytes] * (nbytes - mean_bytes) ** 2 for nbytes in times)
        slope = sum(
            weights[nbytes] * (nbytes - mean_bytes) * (seconds - mean_seconds) for nbytes, seconds in times.items()
        )
        # Noise can make a large message the faster one: then its whole time counts as latency or as bandwidth.
        most = max(times)
        per_byte = max(slope / spread, 1e-3 * times[most] / most)
        message = max(mean_seconds - per_byte * mean_bytes, 1e-3 * min(times.values()))
        return dataclasses.replace(self, message=message, link=_ring(ranks) / per_byte)


_NUMBERS = ("flops", "memory", "operation", "link", "message", "overlap")


def _ring(ranks: int) -> float:
    return 2 * (ranks - 1) / ranks


def _read(name: str, value: Any) -> float:
    number = float(value)
    inside = 0 <= number <= 1 if name == "overlap" else 0 < number < float("inf")
    if not inside:
        raise ValueError(f"the rate {name} is {value!r}")
    return number
