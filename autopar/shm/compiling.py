"""Compiles ``kernels.c`` with the system's C compiler, once for each source, compiler and machine."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from autopar.shm.layout import LAYOUT_FACTS

__all__ = ["cache_folder", "compiler", "kernels"]

_SOURCE = Path(__file__).with_name("kernels.c")
# No fast-math and no contraction: a product is rounded before it is added, as in torch.
_FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-fwrapv", "-fPIC", "-shared"]
_TIMEOUT = 60.0  # seconds


def kernels() -> ctypes.CDLL | None:
    """The compiled library; None where there is no compiler or ``AUTOPAR_NO_COMPILER=1`` is set.

    Compiling takes about a second; the result is kept in ``cache_folder()``. Ranks may race: each
    writes a file of its own and renames it.
    """
    found = compiler()
    return None if found is None else _library(found)


@functools.cache
def _library(found: str) -> ctypes.CDLL | None:
    key = hashlib.sha256("\0".join([_SOURCE.read_text(), found, _version(found), _machine()]).encode()).hexdigest()
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / f"kernels-{key[:24]}.so"
        if not library.exists() and not _compile(found, library):
            return None
        return _load(library)
    except OSError:  # no place to keep it: a folder of this process alone
        with tempfile.TemporaryDirectory() as private:
            library = Path(private, "kernels.so")
            return _load(library) if _compile(found, library) else None


def compiler() -> str | None:
    """Path of the C compiler: ``$CC``, or the first of cc, gcc and clang that is there."""
    if os.environ.get("AUTOPAR_NO_COMPILER", "0") not in ("", "0"):
        return None
    named = [os.environ["CC"]] if os.environ.get("CC") else []
    return next((path for name in [*named, "cc", "gcc", "clang"] if (path := shutil.which(name))), None)


def cache_folder() -> Path:
    """Where libraries are kept: ``$AUTOPAR_CACHE_DIR``, else ``autopar`` in the user's cache folder."""
    if "AUTOPAR_CACHE_DIR" in os.environ:
        return Path(os.environ["AUTOPAR_CACHE_DIR"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "autopar")


def _compile(compiler: str, library: Path) -> bool:
    handle, name = tempfile.mkstemp(suffix=".so", prefix=".kernels-", dir=library.parent)
    os.close(handle)
    try:
        for tuning in (["-march=native"], []):  # unknown to some compilers on some machines
            command = [compiler, *_FLAGS, *tuning, "-o", name, str(_SOURCE)]
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
            if done.returncode == 0:
                os.replace(name, library)
                return True
        return False
    except subprocess.TimeoutExpired:
        return False
    finally:
        Path(name).unlink(missing_ok=True)


def _load(library: Path) -> ctypes.CDLL | None:
    loaded = ctypes.CDLL(str(library))
    facts = (ctypes.c_uint64 * len(LAYOUT_FACTS))()
    loaded.autopar_layout(facts)
    if list(facts) != LAYOUT_FACTS:  # an ABI that lays structs out in another way
        return None
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64
    loaded.autopar_open.argtypes = [integer, integer, ctypes.POINTER(pointer), ctypes.c_uint]
    loaded.autopar_open.restype = pointer
    loaded.autopar_close.argtypes = [pointer]
    loaded.autopar_map.argtypes = [pointer, integer, integer, pointer]
    loaded.autopar_post.argtypes = [pointer, pointer]
    loaded.autopar_progress.argtypes = [pointer]
    loaded.autopar_wait.argtypes = [pointer, number, ctypes.c_double]
    loaded.autopar_lacking_rank.argtypes = loaded.autopar_lacking_segment.argtypes = [pointer]
    return loaded


def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    return done.stdout


def _machine() -> str:
    """What -march=native looks at, since a home folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    kinds = ("flags", "Features", "vendor_id", "cpu family", "model", "CPU part")
    return "\n".join([platform.machine(), *sorted({line for line in lines if line.split("\t")[0].strip() in kinds})])
