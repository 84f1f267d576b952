"""Colours that are told apart on light and on dark ground, also by colour-blind readers."""

from __future__ import annotations

__all__ = ["BUCKET_COLOURS", "bucket_colour"]

# Mid-lightness steps in the manner of Okabe and Ito's palette (2008); white text is legible on all.
BUCKET_COLOURS = ("#0072b2", "#c2570c", "#00785a", "#a8437f", "#6b5bb5", "#8a6d00", "#b3363e", "#3d7a99")


def bucket_colour(index: int) -> str:
    """The colour of a bucket, as ``#rrggbb``; neighbours in launch order always differ."""
    return BUCKET_COLOURS[index % len(BUCKET_COLOURS)]
