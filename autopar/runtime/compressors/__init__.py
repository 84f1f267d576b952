"""What carries out the passes that compress gradients: a compressor for each, by the name of the pass.

A new one is a file here with a class like those below, its line in ``COMPRESSORS`` (or a call of
``register_compressor``, in another package), and a pass of the same name, see ``autopar.passes.changing.compression``.
"""

from autopar.runtime.compressors.base import Compressor, Wire
from autopar.runtime.compressors.registry import COMPRESSORS, make_compressor, method_of, register_compressor

__all__ = ["COMPRESSORS", "Compressor", "Wire", "make_compressor", "method_of", "register_compressor"]
