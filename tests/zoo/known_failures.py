"""Models that autopar does not get right yet, with the reason: strict, so that a mend shows."""

from __future__ import annotations

__all__ = ["KNOWN_FAILURES"]

KNOWN_FAILURES: dict[str, str] = {}
