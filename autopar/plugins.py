"""One kind of registry for everything that other packages may add: passes, strategies, backends."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from autopar.errors import UnknownNameError, UsageError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects: added in this process, or advertised by an installed package's entry point.

    Args:
        kind: what the objects are, for messages, such as ``"pass"``.
        group: entry-point group to look in, such as ``"autopar.passes"``.
    """

    def __init__(self, kind: str, *, group: str) -> None:
        self.kind, self.group = kind, group
        self._added: dict[str, T] = {}
        self._found: dict[str, list[EntryPoint]] = {}
        self._places: object = None

    def add(self, name: str, value: T) -> None:
        """Makes ``value`` known as ``name`` in this process.

        Raises:
            UsageError: another object has that name.
        """
        if self._added.get(name, value) is not value or (name in self._advertised() and name not in self._added):
            raise UsageError(
                f"There is already a {self.kind} named {name!r}, from {self.origin(name)}.",
                mend="Choose another name; two of one name would hide each other.",
            )
        self._added[name] = value

    def remove(self, name: str) -> None:
        """Forgets an object that ``add`` made known."""
        self._added.pop(name, None)

    def names(self) -> list[str]:
        """All known names, sorted."""
        return sorted(self._added.keys() | self._advertised().keys())

    def get(self, name: str) -> T:
        """The object of that name; a plug-in is imported now.

        Raises:
            UnknownNameError: no such name; the nearest one is suggested.
            UsageError: the package that advertises it cannot be imported.
        """
        if name in self._added:
            return self._added[name]
        points = self._advertised().get(name)
        if points is None:
            unless = "A new entry point is seen once its package is installed again: `pip install -e .` in its folder."
            raise UnknownNameError(self.kind, name, self.names(), unless=unless)
        if len(points) > 1:
            raise UsageError(
                f"The {self.kind} {name!r} is advertised by several packages: {self.origin(name)}.",
                mend="Remove all but one of them; nobody could say which one would run.",
            )
        (point,) = points
        try:
            return cast("T", point.load())
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"The {self.kind} {name!r} is advertised by {self.origin(name)} but cannot be loaded: {error}.",
                mend="Reinstall or remove that package.",
            ) from error

    def origin(self, name: str) -> str:
        """The package that an object comes from, such as ``"autopar 0.1.0"``."""
        if name in self._added:
            return str(getattr(self._added[name], "__module__", "this process"))
        points = self._advertised().get(name, [])
        return " and ".join(_package(point) for point in points) or "this process"

    def _advertised(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name; read again when a folder of ``sys.path`` changed, as installing does.

        Reading the metadata of all packages takes 10 to 30 ms, and a compilation looks up a dozen names.
        """
        places = [(folder, _modified(folder)) for folder in sys.path]
        if places != self._places:
            found: dict[str, list[EntryPoint]] = {}
            for point in entry_points(group=self.group):
                found.setdefault(point.name, []).append(point)
            self._found, self._places = found, places
        return self._found


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"


def _modified(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:  # sys.path may name what does not exist
        return -1
