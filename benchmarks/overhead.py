"""The overhead of ddp: the four workloads of this project beside the plain module and torch's DDP, two ranks, one run.

The same as ``python -m benchmarks`` with these workloads and columns; its other options hold here, too.
"""

from __future__ import annotations

from autopar.benchmarking.columns import USUAL
from benchmarks.__main__ import main

__all__: list[str] = []

_COLUMNS = [column.name for column in USUAL if column.kind == "reference" or column.name == "autopar"]

if __name__ == "__main__":
    main(default_map={"workloads": "deep,wide,gpt,conv", "columns": ",".join(_COLUMNS), "memory": False})
