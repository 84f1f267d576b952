"""``autopar run``: launches an ordinary script, alone or through torchrun, on autopar's wrappers.

The launcher runs in a process of its own (``autopar.scripts.launcher``) rather than in this one: it
then keeps its own signal handling, and this process never imports torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from autopar.errors import LaunchError, OptionError, UsageError
from autopar.scripts import slurm
from autopar.scripts.closing import signal_name
from autopar.scripts.traced import clear, merge

__all__ = ["run_script"]

_ENTRY_MODULE = "autopar.scripts.entry"
# With one of these the user says how the ranks meet; without, they meet on loopback.
_RENDEZVOUS = ("standalone", "nnodes", "node-rank", "master-addr", "master-port", "rdzv")
# torchrun options that say what to run; autopar's own worker has that place.
_ENTRY = ("module", "m", "no-python", "run-path")
_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_INTERRUPTED = 128 + signal.SIGINT
_PATIENCE = 10.0  # seconds after Ctrl-C, which a terminal sends to the child as well, before it is passed on


def run_script(
    script: str,
    script_args: Sequence[str] = (),
    *,
    nproc: int | None = None,
    device: str | None = None,
    replace: bool = True,
    torchrun_args: Sequence[str] = (),
    debug: bool = False,
    trace: Path | None = None,
) -> int:
    """Runs a script and waits for it; after a failure the last line says which rank failed, how and where.

    Args:
        script: path of the Python file.
        script_args: its arguments.
        nproc: processes on this machine; None runs the script in one plain process, unless
            ``torchrun_args`` has something.
        device: ``"cpu"`` hides the GPUs, ``"cuda"`` insists on one, None takes what is there.
        replace: whether torch's ``DataParallel`` and ``DistributedDataParallel`` become autopar's.
        torchrun_args: further options for torchrun, such as ``["--nnodes=2", "--rdzv-endpoint=a:1"]``.
        debug: show every traceback, torchrun's and autopar's own frames included.
        trace: folder for measured steps; None measures nothing.

    Returns:
        The exit code of the script, or with several processes 0 or 1; 128 + n where signal n ended
        it, as shells count.

    Raises:
        UsageError: no such script, or an option that cannot be.
        LaunchError: ``"cuda"`` was asked for and there is no such device.
    """
    path = Path(script)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise UsageError(f"{script} {what}.", mend="Give the path of a Python script.")
    environment = _environment(device)
    if trace is not None:
        clear(trace)
        environment["AUTOPAR_TRACE"] = str(trace.absolute())
    flags = ["--debug"] if debug else []
    worker = [*flags, *([] if replace else ["--no-replace"]), *(["--device", device] if device else []), script]
    worker += script_args
    launcher = _launcher(nproc, list(torchrun_args), environment)
    if launcher is None and slurm.is_task(environment):
        environment |= slurm.environment_of_task(environment)
    python = [sys.executable, "-m", _ENTRY_MODULE]
    if launcher is None:
        return _ended(_wait([*python, "launched", *worker], environment, script, debug=debug), trace)
    if nproc is not None:
        # torchrun would set 1 and print a banner; all cores, evenly shared, is the better guess.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    torchrun = [*launcher, "-m", _ENTRY_MODULE, "launched", *worker]
    return _ended(_wait([*python, "launcher", *flags, script, *torchrun], environment, script, debug=debug), trace)


def _environment(device: str | None) -> dict[str, str]:
    environment = dict(os.environ)
    if device is None:
        return environment
    if device == "cpu":
        # Before torch looks for GPUs, so that torch.cuda.is_available() is False in the script.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    elif device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise LaunchError(
                "--device cuda was given, and torch finds no CUDA device here.",
                mend="Leave --device out to run on the CPU, or see `autopar doctor`.",
            )
    else:
        raise OptionError(f"--device {device!r} is not known.", mend="Give --device cpu or --device cuda.")
    return environment


def _launcher(nproc: int | None, options: list[str], environment: Mapping[str, str]) -> list[str] | None:
    """Options for torchrun; None for one plain process."""
    if nproc is not None and nproc < 1:
        raise OptionError(f"--nproc {nproc} was given.", why="No process would run.", mend="Give 1 or more.")
    names = [option.lstrip("-").partition("=")[0].replace("_", "-") for option in options if option[:1] == "-"]
    for name in names:
        if name in _ENTRY:
            raise OptionError(
                f"torchrun's {name!r} option cannot be used with autopar run.",
                why="autopar's own worker takes that place.",
                mend="Give the path of a script instead.",
            )
        if name == "nproc-per-node" and nproc is not None:
            raise OptionError("--nproc and --nproc-per-node were both given.", mend="Give one of them.")
    if nproc is None and not options:
        return None
    if nproc is not None:
        options = [f"--nproc-per-node={nproc}", *options]
    if not any(name.startswith(_RENDEZVOUS) for name in names):
        meeting = slurm.rendezvous(environment) if slurm.is_task(environment) else ["--standalone"]
        return [*meeting, *options]
    if "rdzv-endpoint" in names and not {"rdzv-backend", "node-rank"} & set(names):
        # torchrun's own default needs a number on each node; this one is the same command line on all
        return ["--rdzv-backend=c10d", *options]
    return options


def _wait(command: Sequence[str], environment: Mapping[str, str], script: str, *, debug: bool) -> int:
    """Runs a process to its end, passing on what would end this one, and says which signal ended it."""
    received: list[int] = []
    with subprocess.Popen(command, env=environment) as process:

        def forward(number: int, frame: FrameType | None) -> None:
            received.append(number)
            if number != signal.SIGINT:
                process.send_signal(number)
            elif received.count(number) == 1:  # at once, it would break off the child's own ending
                later.start()

        later = threading.Timer(_PATIENCE, process.send_signal, [signal.SIGINT])
        later.daemon = True
        previous = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            code = process.wait()
        finally:
            later.cancel()
            for number, handler in previous.items():
                signal.signal(number, handler)
    if signal.SIGINT in received and code in (-signal.SIGINT, _INTERRUPTED):
        _say(f"interrupted; {script} was stopped{'' if debug else ' (--debug shows where)'}")
        return _INTERRUPTED
    if code < 0:
        _say(f"error: {script} was ended by {signal_name(-code)}.")
        return 128 - code
    return code


def _ended(code: int, trace: Path | None) -> int:
    """Puts the measurements of the ranks together once all of them have ended."""
    if trace is not None:
        written = merge(trace)
        what = ", ".join(map(str, written)) if written else "nothing, as no model on several ranks trained to its end"
        _say(f"wrote {what}")
    return code


def _say(message: str) -> None:
    print(f"autopar: {message}", file=sys.stderr, flush=True)
