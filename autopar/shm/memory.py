"""How much memory this process may still take, without waking the kernel's out-of-memory killer."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_memory"]

# Limit and use of the control group of a container, which sees its own at the root: version 2, then 1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int | None:
    """Bytes that can be had, the smaller of the host's and the control group's; None where nobody says."""
    found = [_of_host()] + [_of_group(Path(limit), Path(use)) for limit, use in _GROUPS]
    return min((nbytes for nbytes in found if nbytes is not None), default=None)


def _of_host() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_group(limit: Path, use: Path) -> int | None:
    try:
        return int(limit.read_text()) - int(use.read_text())
    except (OSError, ValueError):  # no such group, or the word "max"
        return None
