"""Runs a trainer's script on two real ranks, with torch's wrapper and with autopar's in its place."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from autopar.scripts.launched import replacements
from tests.ranks import run_ranks

__all__ = ["LINE", "Outcome", "differing", "needs", "outcome", "train_with_each", "wrapped_by"]

# A regular expression, to be formatted with one for the place.
LINE = r"autopar: torch.nn.parallel.DistributedDataParallel in {} runs on autopar.nn.DistributedDataParallel"
# Trainers look for it to tell that torchrun has started them.
_TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "0", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training on one rank leaves.

    Attributes:
        parameters: their values by name.
        wrapper: module of the class that wrapped the model.
        extra: whatever else is to be compared or looked at.
    """

    parameters: dict[str, torch.Tensor]
    wrapper: str
    extra: Any = None


def needs(*libraries: str) -> list[pytest.MarkDecorator]:
    """Marks for a file: skipped without a library, which is not imported here: a rank would keep the class it finds."""
    missing = [library for library in libraries if find_spec(library) is None]
    reason = f"{' and '.join(missing)} not installed: pip install 'autopar[integrations]'"
    group = pytest.mark.xdist_group(libraries[-1])  # one worker has what the file's fixture trained
    return [pytest.mark.skipif(bool(missing), reason=reason), group, pytest.mark.timeout(600)]


def outcome(model: nn.Module, wrapper: nn.Module, extra: Any = None) -> Outcome:
    """Of a plain model and what is around it."""
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return Outcome(values, type(wrapper).__module__, extra)


def differing(one: Outcome, other: Outcome) -> list[str]:
    """Names of the parameters that have different bits."""
    assert one.parameters.keys() == other.parameters.keys()
    return [name for name, value in one.parameters.items() if not torch.equal(value, other.parameters[name])]


def train_with_each(train: Callable[..., dict[str, Outcome]], folder: Path) -> dict[bool, list[Any]]:
    """What ``train(replaced, folder)`` gives on both ranks: with torch's wrapper (False), with autopar's (True).

    In processes of their own, since a library that is imported keeps the class that it has found then.
    """
    found = {}
    for replaced in (False, True):
        place = folder / ("autopar" if replaced else "torch")
        place.mkdir()
        found[replaced] = run_ranks(train, 2, replaced, str(place), timeout=300.0, environment=dict(_TORCHRUN))
    return found


@contextlib.contextmanager
def wrapped_by(replaced: bool) -> Iterator[io.StringIO]:
    """Within this block torch's wrapper is autopar's, or itself; gives what is said on standard error."""
    said = io.StringIO()
    with replacements("train.py", replace=replaced, device=None), contextlib.redirect_stderr(said):
        yield said
    if dist.is_initialized():
        dist.barrier()  # nobody leaves while the other still writes a checkpoint
