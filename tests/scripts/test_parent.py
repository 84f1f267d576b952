"""Processes that end with the one that they work for, even where that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_CHILD = """
import os, sys, time
{}
print(os.getpid(), flush=True)
time.sleep(100)
"""
_WITH_PARENT = "from autopar.scripts.parent import end_with_parent; end_with_parent()"
_PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "child.py"])
"""
_CALLER = """
import multiprocessing, os, time
from autopar.scripts.parent import end_with_caller

def work():
    end_with_caller()
    print(os.getpid(), flush=True)
    time.sleep(100)

if __name__ == "__main__":
    process = multiprocessing.get_context("forkserver").Process(target=work)
    process.start()
    process.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the signal")
@pytest.mark.parametrize("script", [_PARENT, _CALLER])
def test_no_orphan_is_left(tmp_path: Path, script: str) -> None:
    """A child, and a process of a forkserver, end soon after a SIGKILL that lets nobody clear up."""
    (tmp_path / "child.py").write_text(_CHILD.format(_WITH_PARENT))
    (tmp_path / "parent.py").write_text(script)
    command = [sys.executable, str(tmp_path / "parent.py")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        assert parent.wait(10) == -signal.SIGKILL
        deadline = time.monotonic() + 20.0
        while _runs(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _runs(child)


def _runs(pid: int) -> bool:
    """Whether there is such a process that has not ended: one may wait for long for somebody to hear of its end."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"
