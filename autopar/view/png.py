"""``plan.svg`` as PNG, for places that show no SVG. resvg draws it; it comes with the extra ``png``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autopar.errors import UsageError
from autopar.view.lanes import lanes_svg

__all__ = ["plan_png"]


def plan_png(document: Mapping[str, Any], *, zoom: float = 2.0) -> bytes:
    """The picture in its light colours.

    Args:
        document: see ``autopar.view.graph_json``.
        zoom: pixels of the image for one of the picture.

    Raises:
        UsageError: resvg is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise UsageError(
            "PNG needs the package resvg-py, which is not installed.",
            mend='Install it with `pip install "autopar[png]"`, or use --format svg.',
        ) from None
    return bytes(resvg_py.svg_to_bytes(svg_string=lanes_svg(document), zoom=zoom))
