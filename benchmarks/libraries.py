"""The libraries that the models come from: whether they are there, and what they need to be imported here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from functools import cache
from pathlib import Path

import torch

__all__ = ["missing", "prepare", "version"]

_MODULES = {"x-transformers": "x_transformers", "vit-pytorch": "vit_pytorch"}
_OPERATORS = ("nms", "qnms")  # of torchvision: it registers shape functions for them while it is imported


@cache
def missing(library: str) -> bool:
    """Whether a library is not installed."""
    return importlib.util.find_spec(_MODULES.get(library, library)) is None


def version(library: str) -> str:
    """Its version; empty where it is not installed."""
    return "" if missing(library) else importlib.metadata.version(library)


@cache
def prepare() -> None:
    """Makes the libraries importable offline, and beside a torch without CUDA; done once a process.

    torchvision's compiled operators do not load where torch was built otherwise than it was. No model
    measured or tested here calls them, but without their schemas the import fails.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not missing("torchvision") and not _loads_operators():
        _declare_operators()


def _loads_operators() -> bool:
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    try:
        for folder in spec.submodule_search_locations or ():
            for file in Path(folder).glob("_C*.so"):
                torch.ops.load_library(str(file))
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


_declared: list[torch.library.Library] = []  # an operator lives as long as its Library


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
