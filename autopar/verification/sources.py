"""Where the model of a verification comes from: every process builds its own from one of these."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import nn

from autopar import compat
from autopar.attach import attachment_of
from autopar.emit.script import defined, sample_loss
from autopar.errors import ModelError, UsageError
from autopar.partitioner.plan import Plan
from autopar.verification.training import Call, LossOf

__all__ = ["Loaded", "ObjectSource", "PrintedSource", "ScriptSource", "Source"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as the user wrote it.

    Attributes:
        model: on the CPU, untouched.
        call: a sample call.
        loss_of: what makes a loss of the model's result.
        name: for titles.
        active: a block in which the user's code may run.
    """

    model: nn.Module
    call: Call
    loss_of: LossOf
    name: str
    active: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


class Source(Protocol):
    """Something picklable that builds the model in whichever process it is asked."""

    def load(self) -> Loaded:
        """The model, a sample call and a loss."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptSource:
    """A Python file, searched as ``autopar transform`` does.

    Attributes:
        spec: ``"path.py"`` or ``"path.py:Name"``.
        model: the name, where it is given apart from the path.
        inputs: shapes of the arguments.
        loss: name of a function in the file that takes the model's result.
    """

    spec: str
    model: str | None = None
    inputs: tuple[str, ...] = ()
    loss: str | None = None

    def load(self) -> Loaded:
        """Loads the script's definitions and builds the model; its training code does not run."""
        from autopar.scripts.candidates import find_model
        from autopar.scripts.example_inputs import find_inputs

        found = find_model(self.spec, self.model)
        call = find_inputs(found.script, found.model, list(self.inputs))
        loss_of: LossOf = sample_loss
        if self.loss is not None:
            if not found.script.binds(self.loss):
                raise UsageError(f"{found.script.path} has no function {self.loss!r}.", mend="Give another --loss.")
            loss_of = found.script.evaluate(self.loss)
        name = f"{found.name} in {found.script.path}"
        return Loaded(found.model.cpu(), _on_cpu(call), loss_of, name, found.script.active)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSource:
    """A model, or a function that makes one, in the hands of the caller.

    Attributes:
        model: a module, or a function without arguments that returns one.
        call: a sample call.
        loss: takes the model's result; None is ``autopar.emit.script.sample_loss``.
    """

    model: nn.Module | Callable[[], nn.Module]
    call: Call
    loss: LossOf | None = None

    def load(self) -> Loaded:
        """A copy of the model, or what the function makes, on the CPU."""
        made = copy.deepcopy(self.model) if isinstance(self.model, nn.Module) else self.model()
        if not isinstance(made, nn.Module):
            raise UsageError(
                f"A {type(made).__name__} was given where a torch.nn.Module is needed.",
                mend="Give the model itself, or a function that returns it.",
            )
        if attachment_of(made) is not None:
            raise UsageError(
                f"This {type(made).__name__} is parallel already.",
                why="What it computes is to be compared with the untouched model.",
                mend="Call autopar.unparallelize(model) first, or give a function that builds the model.",
            )
        return Loaded(made.cpu(), _on_cpu(self.call), self.loss or sample_loss, type(made).__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedSource:
    """A file that ``autopar transform`` wrote; the model that it builds is parallel already.

    Attributes:
        path: of the file.
        loss: name of a function in the model's own file.
    """

    path: str
    loss: str | None = None

    @property
    def plan(self) -> Plan:
        """The plan that the file carries out."""
        plan: Plan = _load_printed(self.path).PLAN
        return plan

    def load(self) -> Loaded:
        """What the file's ``build`` and ``sample_inputs`` give."""
        printed = _load_printed(self.path)
        loss_of = sample_loss if self.loss is None else defined(printed.MODEL_FILE, self.loss)
        return Loaded(printed.build(), printed.sample_inputs(), loss_of, self.path)


def _load_printed(path: str) -> ModuleType:
    """The module of a file that ``autopar transform`` wrote; importing it defines functions only.

    Raises:
        UsageError: there is no such file, or it is none of ``autopar transform``'s.
        ModelError: it cannot be imported.
    """
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(f"autopar_printed_{file.stem}", file) if file.is_file() else None
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file.", mend="Give the transformed.py that `autopar transform` wrote.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be imported: {type(error).__name__}: {error}.", mend="Run `autopar transform` again."
        ) from error
    missing = [name for name in ("MODEL_FILE", "PLAN", "build", "sample_inputs") if not hasattr(module, name)]
    if missing:
        raise UsageError(
            f"{path} was not written by `autopar transform`: it has no {', '.join(missing)}.",
            mend="Give the transformed.py of its output folder.",
        )
    return module


def _on_cpu(call: Call) -> Call:
    args, kwargs = compat.tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf, call)
    return args, kwargs
