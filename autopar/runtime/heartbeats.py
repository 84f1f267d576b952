"""When each rank began its last collective, written to the store at which the ranks met."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

from autopar import compat
from autopar.lost_ranks import Heartbeat
from autopar.runtime.group import Group

__all__ = ["StoreHeartbeats"]

_PERIOD = 0.5  # seconds between two looks at whether there is something new to write down
_PATIENCE = 1.0  # seconds for the store's answer: it may have died with the rank that held it


class StoreHeartbeats:
    """Notes what this rank sends, at the cost of an assignment; a thread writes the last note down now and then.

    So a rank that hangs is known by what it began before. One that dies is known by what it had begun at most
    half a second earlier. Ages are differences of the hosts' clocks.

    Args:
        store: of the ranks; nobody else uses this object of it.
        rank: this one.
        world_size: of all of them.
    """

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._notes = _Notes(store, rank)
        self._keys = [_key(one) for one in range(world_size)]
        stop = threading.Event()
        thread = threading.Thread(target=_write_now_and_then, args=(self._notes, stop), daemon=True)
        thread.start()
        weakref.finalize(self, _stop, thread, stop)  # at the latest before the interpreter ends

    @classmethod
    def of(cls, group: Group) -> StoreHeartbeats | None:
        """Those of a group, for all of its models; None where its store cannot be used by a second thread."""
        known = _of_groups.get(group.handle)
        store = compat.group_store(group.handle) if known is None else None
        if store is not None:
            known = _of_groups[group.handle] = cls(store, group.rank, group.world_size)
        return known

    def beat(self, label: str) -> None:
        """This rank begins a collective now."""
        self._notes.last = (time.time(), label)

    def read(self) -> list[Heartbeat]:
        """The last ones of all ranks, this one's included; none where the store does not answer in time."""
        found: list[Heartbeat] = []

        def ask() -> None:
            try:
                self._notes.write()
                texts = self._notes.store.multi_get(self._keys)
            except RuntimeError:  # whoever held the store is gone
                return
            found.extend(_parsed(rank, text) for rank, text in enumerate(texts))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        return list(found)


class _Notes:
    """What one rank has begun last, and whether that is written down."""

    def __init__(self, store: Any, rank: int) -> None:
        self.store, self.key = store, _key(rank)
        self.last = (time.time(), "the start")
        self._written: tuple[float, str] | None = None

    def write(self) -> None:
        if self.last != self._written:
            self._written = moment, label = self.last
            self.store.set(self.key, f"{moment} {label}")


def _write_now_and_then(notes: _Notes, stop: threading.Event) -> None:
    try:
        notes.write()  # from now on, others need not wait for the key
        while not stop.wait(_PERIOD):
            notes.write()
    except RuntimeError:  # whoever held the store is gone
        return


def _stop(thread: threading.Thread, stop: threading.Event) -> None:
    stop.set()
    thread.join(_PATIENCE)


def _parsed(rank: int, text: bytes) -> Heartbeat:
    moment, _, label = text.decode(errors="replace").partition(" ")
    return Heartbeat(rank, time.time() - float(moment), label)


def _key(rank: int) -> str:
    return f"autopar_heartbeat_{rank}"


_of_groups: weakref.WeakValueDictionary[Any, StoreHeartbeats] = weakref.WeakValueDictionary()
