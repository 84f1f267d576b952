"""Proves on a user's own model that the parallel training is the plain one; what compares two trainings lives here.

The plain side (``reference``, ``whole``) knows nothing of programs, plans or collectives: it trains the
untouched module in this process. The parallel side (``rank``) is ordinary use of ``autopar.parallelize`` in
processes of its own. Nothing here may be imported by the compiler.
"""

from autopar.verification.report import Report
from autopar.verification.settings import Settings
from autopar.verification.side_by_side import verify, verify_source

__all__ = ["Report", "Settings", "verify", "verify_source"]
