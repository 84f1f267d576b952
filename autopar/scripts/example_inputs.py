"""Finds inputs to run a script's model on: from shapes, from ``example_inputs()``, or from a call."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from autopar.errors import AutoparError, ModelError, OptionError, UnknownNameError, UsageError
from autopar.scripts.instances import module_instances
from autopar.scripts.names import bound_names, reads, walk_scope
from autopar.scripts.script import LoadedScript
from autopar.scripts.slicing import Statement

__all__ = ["find_inputs", "parse_input"]

_INT_BOUND = 10
_KNOWN = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_FUNCTION = "example_inputs"


def find_inputs(
    script: LoadedScript, model: nn.Module, input_specs: list[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments to call the model with.

    Args:
        script: the file that the model comes from.
        model: the model; tensors made from shapes are put on the device of its first parameter.
        input_specs: one ``"32x10[:dtype[:bound]]"`` for each positional argument; may be empty, then
            the file is asked.

    Returns:
        Positional and keyword arguments.

    Raises:
        UsageError: a shape cannot be read, or there are no inputs anywhere.
        ModelError: ``example_inputs()`` failed or returned something else.
    """
    if input_specs:
        generator = torch.Generator().manual_seed(0)
        first = next(model.parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        return tuple(parse_input(spec, generator).to(device) for spec in input_specs), {}
    if script.binds(_FUNCTION):
        return _from_function(script)
    failure: AutoparError | None = None
    for call, statement in _calls(script, model):
        try:
            return _evaluated(script, call, statement)
        except ModelError as error:
            failure = failure or error
    raise UsageError(
        f"No inputs are known for the model in {script.path}.",
        why=str(failure.what) if failure else "",
        mend="Give --input SHAPE[:DTYPE] for each argument (such as --input 32x10), write a function "
        "example_inputs() that returns them, or call the model once at module level.",
        code="AP406",
    )


def parse_input(spec: str, generator: torch.Generator) -> torch.Tensor:
    """Random tensor for ``SHAPE[:DTYPE[:BOUND]]``: normal numbers, or integers in [0, BOUND).

    >>> parse_input("2x3:int64:5", torch.Generator()).shape
    torch.Size([2, 3])

    Raises:
        OptionError: the shape or the bound cannot be read.
        UnknownNameError: torch has no such dtype.
    """
    shape, *rest = spec.split(":")
    sizes = shape.lower().split("x")
    if not all(size.isascii() and size.isdigit() and int(size) > 0 for size in sizes) or len(rest) > 2:
        raise OptionError(
            f"--input {spec!r} cannot be read.",
            mend="Write sizes of 1 or more joined by x, then maybe a dtype and, for integers, an upper "
            "bound: 32x10, 32x10:float32 or 4x128:int64:4096.",
        )
    dtype = _dtype(rest[0]) if rest else torch.float32
    dims = [int(size) for size in sizes]
    if dtype.is_floating_point or dtype.is_complex:
        if len(rest) == 2:
            raise OptionError(f"--input {spec!r} gives a bound for {rest[0]}.", mend="Bounds are for integers.")
        made_as = dtype if dtype.is_complex else torch.float32
        return torch.randn(dims, generator=generator, dtype=made_as).to(dtype)
    bound = rest[1] if len(rest) == 2 else str(2 if dtype == torch.bool else _INT_BOUND)
    if not (bound.isascii() and bound.isdigit() and int(bound) > 0):
        raise OptionError(f"--input {spec!r} has the bound {bound!r}.", mend="Give an integer of 1 or more.")
    return torch.randint(int(bound), dims, generator=generator).to(dtype)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or name.startswith(("q", "float8", "float4", "bits")):
        raise UnknownNameError("dtype", name, _KNOWN)
    return found


def _from_function(script: LoadedScript) -> tuple[tuple[Any, ...], dict[str, Any]]:
    place = f"{_FUNCTION} ({script.path.name}:{script.line(_FUNCTION)})"
    function = script.evaluate(_FUNCTION)
    if not inspect.isfunction(function) or any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in inspect.signature(function).parameters.values()
    ):
        raise ModelError(f"{place} is no function without arguments.", mend=f"Write `def {_FUNCTION}():`.")
    value = script.call(function)
    if isinstance(value, torch.Tensor):
        return (value,), {}
    if isinstance(value, tuple):
        return value, {}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return (), value
    raise ModelError(
        f"{place} returned something of type {type(value).__name__}.",
        mend="Return a tensor, a tuple of positional arguments, or a dict of keyword arguments.",
    )


def _calls(script: LoadedScript, model: nn.Module) -> Iterator[tuple[ast.Call, Statement]]:
    """Module-level calls of the model, or of an instance of its class, in file order."""
    with contextlib.suppress(ModelError):  # another model of the file may be broken
        module_instances(script)  # evaluates them, so that every alias below has its value
    called = {
        name
        for name, value in script.module.__dict__.items()
        if isinstance(value, nn.Module) and (value is model or type(value) is type(model))
    }
    for statement in script.slicer.statements:
        if statement.is_main_guard:
            continue
        for node in walk_scope([statement.node]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in called:
                yield node, statement


def _evaluated(script: LoadedScript, call: ast.Call, statement: Statement) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arguments = ast.Tuple(
        [
            ast.Tuple(call.args, ast.Load()),
            ast.Dict(
                [ast.Constant(item.arg) if item.arg else None for item in call.keywords],
                [item.value for item in call.keywords],
            ),
        ],
        ast.Load(),
    )
    ast.copy_location(arguments, call)
    # A loop's own variables have no value before the loop starts.
    inner = bound_names([statement.node]) & reads(arguments).now
    if inner and not isinstance(statement.node, ast.Assign):
        raise ModelError(f"{script.path}:{call.lineno}: {', '.join(sorted(inner))} is bound inside a block.")
    args, kwargs = script.evaluate_expression(arguments, before=statement)
    return args, kwargs
