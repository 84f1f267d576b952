"""Prints programs as Python: the forward alone, or a whole file that imports, runs and trains.

What may live here: writing source, and the few functions that a written file calls when it runs.
What may not: rewriting of graphs, decisions about buckets, and collectives.
"""

from autopar.emit.forward import emit_forward
from autopar.emit.python_file import emit_python
from autopar.emit.repro import emit_repro
from autopar.emit.samples import Source
from autopar.emit.stage import emit_stage

__all__ = ["Source", "emit_forward", "emit_python", "emit_repro", "emit_stage"]
