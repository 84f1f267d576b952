"""Writes what printed files share: where the model is, and a random call like the one that was captured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from autopar.emit.imports import Imports
from autopar.emit.layout import LINE_LENGTH, Expr, call, flat, raising, render
from autopar.emit.literals import Writer
from autopar.emit.names import quoted
from autopar.emit.signature import call_template, structure
from autopar.errors import ModelError
from autopar.program import Program

__all__ = ["Source", "model_file", "relative", "sample_call", "sample_inputs", "shape_text"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        file: the user's Python file.
        name: of the model there: an instance, a class or a factory.
    """

    file: Path
    name: str


def relative(file: Path, folder: Path) -> str:
    """The model's file as seen from a folder; absolute where no relative path leads there."""
    try:
        return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return file.resolve().as_posix()


def model_file(imports: Imports, place: str) -> list[str]:
    """The constants that say where the printed file and the model's file are."""
    path = imports.member("pathlib", "Path")
    return [f"HERE = {path}(__file__).resolve().parent", f"MODEL_FILE = HERE / {quoted(place)}"]


def sample_inputs(imports: Imports, program: Program) -> list[str]:
    """A function that makes a random call like the one that was captured."""
    sample = sample_call(program, Writer(imports, str))
    body = ['    """A random call like the one that was captured: positional and keyword arguments."""']
    if sample is None:
        text = "forward takes objects that are no tensors: build a sample call here"
        body += raising("NotImplementedError", text, indent="    ")
    else:
        bare = flat(sample)[1:-1]  # `return a, b` needs no brackets where it fits on a line
        body += render(bare if len(bare) < LINE_LENGTH - 12 else sample, indent="    ", before="return ")
    return ["def sample_inputs():", *body]


def sample_call(program: Program, write: Writer) -> Expr | None:
    """``(args, kwargs)`` as an expression; None where the call holds objects that nobody can write down."""
    signature = program.signature
    tensors = iter(program.example)
    total = len(signature.inputs) + len(signature.constants)
    try:
        leaves = [
            write.expression(signature.constants[i]) if i in signature.constants else _random(next(tensors), write)
            for i in range(total)
        ]
        return structure(call_template(signature), leaves, write)
    except (ModelError, ValueError, StopIteration):  # foreign objects, or tensors that are not strided
        return None


def shape_text(tensor: torch.Tensor) -> str:
    """A tensor in words: ``float32[32, 10]``."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _random(tensor: torch.Tensor, write: Writer) -> str:
    """A call that makes a random tensor of the same kind.

    Integers stay within the range of the example, because they are most often indices.
    """
    if tensor.layout is not torch.strided:
        raise ValueError(tensor.layout)
    torch_name, shape = write.imports.module("torch"), flat(write.expression(tuple(tensor.shape)))
    sizes = shape if tensor.dim() == 0 else ", ".join(map(str, tensor.shape))
    dtype = f", dtype={write.constant(tensor.dtype)}"
    if tensor.numel() == 0:
        return f"{torch_name}.empty({sizes}{dtype})"
    if tensor.dtype is torch.bool:
        if bool(tensor.all()) or not bool(tensor.any()):
            return f"{torch_name}.{'ones' if bool(tensor.all()) else 'zeros'}({sizes}{dtype})"
        return f"{torch_name}.rand({sizes}) < 0.5"
    if not tensor.is_floating_point() and not tensor.is_complex():
        low, high = int(tensor.min()), int(tensor.max())
        return flat(
            call(f"{torch_name}.randint", [str(low), str(high + 1), f"{shape}{_unless(tensor, torch.int64, dtype)}"])
        )
    if tensor.dtype.itemsize < 2:  # float8 has no random numbers of its own
        return f"{torch_name}.randn({sizes}).to({write.constant(tensor.dtype)})"
    return f"{torch_name}.{_distribution(tensor)}({sizes}{_unless(tensor, torch.float32, dtype)})"


def _distribution(tensor: torch.Tensor) -> str:
    if tensor.is_complex():
        return "randn"
    low, high = float(tensor.min()), float(tensor.max())
    if low == high and low in (0.0, 1.0):
        return "zeros" if low == 0.0 else "ones"
    return "rand" if low >= 0.0 and high <= 1.0 else "randn"


def _unless(tensor: torch.Tensor, usual: torch.dtype, text: str) -> str:
    return "" if tensor.dtype is usual else text
