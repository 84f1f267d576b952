"""Shared memory without a name: a memfd, which peers reach through the owner's ``/proc/PID/fd``.

Nothing stands in /dev/shm, so nothing can stay behind however a process dies, and the size limit
that containers put on /dev/shm does not count.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from autopar.shm.memory import available_memory

__all__ = ["Segment"]

_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


class Segment:
    """Some memory, mapped into this process, that other processes of the same user can map as well.

    Attributes:
        fd: file descriptor; other processes reach it as long as it is open.
        nbytes: size in bytes.
        address: where it is in this process.
        memory: the mapping, which lives as long as anything refers to it.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        self.fd, self.nbytes = fd, nbytes
        self.memory = mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED | _POPULATE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    @classmethod
    def create(cls, nbytes: int, *, sharers: int = 1) -> Segment:
        """New memory, filled with zeros and reserved, so that running out of it shows here and not as a SIGBUS.

        A memfd has no limit of its own: reserving more than there is would not fail but wake the
        out-of-memory killer. So what is available is looked up before.

        Args:
            nbytes: size in bytes.
            sharers: how many processes of this host do the same at the same time.

        Raises:
            OSError: there is not enough, or the system has no memfd.
        """
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd_create")
        available = available_memory()
        if available is not None and nbytes * sharers > available:
            raise OSError(errno.ENOMEM, f"{nbytes * sharers} bytes of memory are needed and {available} available")
        fd = os.memfd_create("autopar", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, nbytes)
            return cls(fd, nbytes)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def of_peer(cls, pid: int, fd: int) -> Segment:
        """Maps what another process has under its file descriptor ``fd``.

        Raises:
            OSError: the process is gone, is not visible from here, or belongs to somebody else.
        """
        ours = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls(ours, os.fstat(ours).st_size)
        finally:
            os.close(ours)

    def close(self) -> None:
        """Lets no further process map it; mappings stay until nobody uses them."""
        os.close(self.fd)
