"""What runs in every rank of ``autopar run``: makes the replacements, then runs the user's script.

    python -m autopar.scripts.entry launched [--no-replace] [--device cpu|cuda] [--debug] script.py [arguments]

Processes that the script spawns itself (``torch.multiprocessing.spawn``) come back to this module,
so that they get the same replacements.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import functools
import json
import multiprocessing
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import errors
from torch.distributed.elastic.multiprocessing.errors import record

from autopar.scripts import cuda_redirect, entry, patching
from autopar.scripts.error_file import ErrorFile, has_lost_a_rank, place_of, what_of
from autopar.scripts.patching import Patches, replace_wrappers

__all__ = ["main", "replacements"]

# Settings for processes that the script spawns: [script, replace, device].
_SETTINGS = "AUTOPAR_LAUNCHED"
_OWN_FILES = (__file__, cuda_redirect.__file__, entry.__file__, errors.__file__, patching.__file__)


def main(arguments: list[str] | None = None) -> None:
    """Runs a script as ``__main__``, with torch's wrappers replaced.

    What the script raises comes out as it is, and is written down for the launcher; only the frames
    of this module are left out of the printed traceback. A rank that merely lost another says so in
    a line, and Ctrl-C ends a rank without a word: one command needs one traceback at most.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", allow_abbrev=False)
    parser.add_argument("--no-replace", dest="replace", action="store_false")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("script")
    parser.add_argument("script_args", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    os.environ[_SETTINGS] = json.dumps([os.path.abspath(options.script), options.replace, options.device])
    sys.argv = [options.script, *options.script_args]
    if not options.debug:
        sys.excepthook = _print_error
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    with replacements(options.script, replace=options.replace, device=options.device):
        try:
            record(_execute, ErrorFile())(os.path.abspath(options.script), module.__dict__)
        except KeyboardInterrupt:
            if options.debug:
                raise
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # torchrun passes on what the terminal has sent already
            sys.exit(128 + signal.SIGINT)


def _execute(script: str, namespace: dict[str, Any]) -> None:
    """Runs the script in a namespace, with its folder first on ``sys.path`` as Python puts it."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    namespace["__file__"] = script
    exec(compile(Path(script).read_bytes(), script, "exec", dont_inherit=True), namespace)


@contextlib.contextmanager
def replacements(script: str, *, replace: bool, device: str | None) -> Iterator[None]:
    """Puts autopar's wrappers in the place of torch's, and the CPU in the place of a missing GPU.

    Args:
        script: path for messages.
        replace: whether to replace the wrappers.
        device: ``"cpu"`` or ``"cuda"`` where the user chose one.
    """
    on_cpu = not torch.cuda.is_available()
    with Patches() as patches:
        if os.environ.get("AUTOPAR_TRACE"):
            from autopar.runtime.tracing import write_graphs_with
            from autopar.scripts.traced import write_graph

            write_graphs_with(write_graph)
        patches.set(spawn, "get_preparation_data", _spawned_through_here(spawn.get_preparation_data))
        if replace:
            # The classes first: they may themselves be made from torch's.
            from autopar.nn.data_parallel import DataParallel
            from autopar.nn.distributed import DistributedDataParallel

            replicas = (lambda made: f" with {made.cpu_replicas} CPU replicas") if on_cpu else None
            patches.set(DataParallel, "__init__", _announced(DataParallel, "torch.nn.DataParallel", replicas))
            ddp = _announced(DistributedDataParallel, "torch.nn.parallel.DistributedDataParallel")
            patches.set(DistributedDataParallel, "__init__", _on_cpu(ddp) if on_cpu else ddp)
            replace_wrappers(patches, data_parallel=DataParallel, distributed=DistributedDataParallel)
        if on_cpu:
            reason = "--device cpu" if device == "cpu" else "no CUDA device here"
            message = f"{reason}: 'cuda' means the CPU (--device overrides)"
            patches.enter_context(cuda_redirect.cuda_means_cpu(lambda: _say(message)))
        yield


def _spawned_through_here(prepare: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """Lets spawned processes import this module, rather than the script, as their main module."""

    @functools.wraps(prepare)
    def through_here(name: str) -> dict[str, Any]:
        data = prepare(name)
        data.pop("init_main_from_path", None)
        return {**data, "init_main_from_name": __spec__.name}

    return through_here


def _announced(cls: type[Any], replaced: str, details: Callable[[Any], str] | None = None) -> Callable[..., None]:
    """The class's constructor, which says once in whose place it runs, and where; ``details`` are of the object."""
    original = cls.__init__
    said = False

    def say(made: Any) -> None:
        nonlocal said
        if said:
            return
        said = True
        callers = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_stack(None))
        file, line = next(caller for caller in callers if caller[0] not in _OWN_FILES)
        place = f"{os.path.basename(file)}:{line}"
        own = f"{cls.__module__.partition('.')[0]}.nn.{cls.__name__}"
        more = "" if details is None else details(made)
        _say(f"{replaced} in {place} runs on {own}{more} (--no-replace turns this off)")

    @functools.wraps(original)
    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        say(self)

    return construct


def _on_cpu(construct: Callable[..., None]) -> Callable[..., None]:
    """DDP's constructor without the GPU indices that a script gives, which it refuses on the CPU."""

    @functools.wraps(construct)
    def without_devices(self: Any, module: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("device_ids", None)
        kwargs.pop("output_device", None)
        construct(self, module, *([None] * len(args[:2])), *args[2:], **kwargs)

    return without_devices


def _say(message: str) -> None:
    """Prints one line to standard error, on one rank."""
    if dist.is_available() and dist.is_initialized():
        is_first = dist.get_rank() == 0
    elif multiprocessing.parent_process() is not None:  # spawned by the script, all alike so far
        is_first = multiprocessing.current_process().name.endswith("-1")
    else:
        is_first = os.environ.get("RANK", "0") == "0"
    if is_first:
        print(f"autopar: {message}", file=sys.stderr, flush=True)


def _print_error(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Prints a traceback as Python does, without the frames that autopar and runpy added."""
    if has_lost_a_rank(error):
        # Past sys.stderr, which torch.distributed replaces here to put the rank before each line.
        print(f"autopar: {what_of(error)} ({place_of(error) or 'no line of the script'})", file=sys.__stderr__)
        return
    kept = []
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name not in _OWN_FILES and name != "<frozen runpy>":
            kept.append(trace)
        trace = trace.tb_next
    rest: types.TracebackType | None = None
    for link in reversed(kept):
        link.tb_next = rest
        rest = link
    sys.__excepthook__(kind, error.with_traceback(rest), rest)


if __name__ == "__mp_main__":
    # multiprocessing calls the main module so in a spawned process.
    _script, _replace, _device = json.loads(os.environ[_SETTINGS])
    _kept = replacements(_script, replace=_replace, device=_device)
    _kept.__enter__()
    _execute(_script, globals())
