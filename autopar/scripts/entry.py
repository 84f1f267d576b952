"""What ``autopar run`` starts: one of the modules beside this one, which import torch.

    python -m autopar.scripts.entry launcher|launched [arguments]

Importing torch takes seconds. A Ctrl-C within them ends the process at once here, where Python would
print a traceback out of torch's insides for every rank.
"""

from __future__ import annotations

import importlib
import signal
import sys

from autopar.scripts.parent import end_with_parent

__all__ = ["main"]


def main() -> None:
    """Imports the module that the first argument names and runs it on the others; ends with its parent."""
    end_with_parent()
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # and not ignored, as in a background job
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    module = importlib.import_module(f"autopar.scripts.{sys.argv[1]}")
    signal.signal(signal.SIGINT, handler)
    module.main(sys.argv[2:])


if __name__ == "__main__":
    main()
