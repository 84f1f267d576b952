"""Tells click its own version, so that help need not read it from the installed metadata.

rich-click asks for ``click.__version__`` when it draws help; click then imports
``importlib.metadata``, and with it Python's e-mail parser and sockets. Measured on two busy cores:
98 of 400 ms of ``autopar --help``.
"""

from __future__ import annotations

import os
import re

import click

__all__ = ["set_click_version"]


def set_click_version() -> None:
    """Sets ``click.__version__`` from the name of the metadata folder; leaves it to click where there is none."""
    if "__version__" in vars(click):
        return
    try:
        names = os.listdir(os.path.dirname(os.path.dirname(click.__file__)))
    except OSError:  # inside an archive, say
        return
    found = [match[1] for name in names if (match := re.fullmatch(r"click-(\d+\.\d+\.\d+[^-]*)\.dist-info", name))]
    if len(found) == 1:
        vars(click)["__version__"] = found[0]
