"""Finds the module-level variables of a script that hold a model, without evaluating the others.

Evaluating a variable runs the code that it is made from, so one is evaluated only where its syntax
says "a module": it is a call of a module class or of something that returns one, the same moved or
wrapped, or a call whose result is named like a model.
"""

from __future__ import annotations

import ast
import inspect
import re
import typing
from typing import Any

import torch
from torch import nn

from autopar.errors import AutoparError
from autopar.scripts.names import dotted, walk_scope
from autopar.scripts.script import LoadedScript
from autopar.scripts.stand_ins import Unwrapped

__all__ = ["module_instances", "names_model", "returns_module"]

_VARIABLE = re.compile(r"(.*_)?(model|net|network)")
_FACTORY = re.compile(r"((build|make|create|get|define)_(.*_)?)?(model|net|network)")
_CHAINED = frozenset({"to", "cuda", "cpu", "train", "eval", "float", "double", "half", "bfloat16", "requires_grad_"})


def names_model(name: str, *, factory: bool = False) -> bool:
    """Whether a variable (or a factory function) is named like a model.

    >>> names_model("student_net"), names_model("build_model", factory=True), names_model("fit")
    (True, True, False)
    """
    return (_FACTORY if factory else _VARIABLE).fullmatch(name.lower()) is not None


def returns_module(script: LoadedScript, function: Any) -> bool | None:
    """Whether a function's return annotation names an ``nn.Module``; None where it has none.

    Annotations that cannot be resolved count as none.
    """
    try:
        annotation = script.call(lambda: typing.get_type_hints(function)).get("return", inspect.Parameter.empty)
    except (AutoparError, AttributeError):
        return None
    if annotation is inspect.Parameter.empty:
        return None
    return inspect.isclass(annotation) and issubclass(annotation, nn.Module)


def module_instances(script: LoadedScript) -> dict[str, nn.Module]:
    """Variables that hold a module at the end of the file, the first name of each object.

    Raises:
        ModelError: a variable that should hold one could not be evaluated.
    """
    found: dict[str, nn.Module] = {}
    for name in _assigned(script):
        if _may_be_module(script, name, set()):
            value = script.evaluate(name)
            if isinstance(value, nn.Module) and not any(value is other for other in found.values()):
                found[name] = value
    return found


def _assignments(script: LoadedScript) -> list[tuple[str, ast.expr]]:
    """Variable and value of every assignment outside of functions, classes and training code."""
    nodes = [statement.node for statement in script.slicer.statements if not statement.never_runs]
    found = []
    for node in walk_scope(nodes):
        if isinstance(node, ast.Assign):
            found += [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found.append((node.target.id, node.value))
    return found


def _assigned(script: LoadedScript) -> list[str]:
    return list(dict.fromkeys(name for name, _ in _assignments(script)))


def _may_be_module(script: LoadedScript, name: str, seen: set[str]) -> bool:
    if name in seen:
        return False
    seen = seen | {name}
    return any(_is_module_call(script, value, name, seen) for target, value in _assignments(script) if target == name)


def _is_module_call(script: LoadedScript, value: ast.expr, name: str, seen: set[str]) -> bool:
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _CHAINED:
        value = value.func.value
    if isinstance(value, ast.Name):
        return _may_be_module(script, value.id, seen)
    if isinstance(value, ast.IfExp):
        return any(_is_module_call(script, part, name, seen) for part in (value.body, value.orelse))
    if not isinstance(value, ast.Call):
        return False
    function = script.peek(dotted(value.func))
    if function is Unwrapped or function is torch.compile:
        return bool(value.args) and _is_module_call(script, value.args[0], name, seen)
    if inspect.isclass(function):
        return issubclass(function, nn.Module)
    if isinstance(getattr(function, "__self__", None), type) and issubclass(function.__self__, nn.Module):
        return True  # a class method that builds, such as Net.from_config()
    if isinstance(function, nn.Module):
        return False  # a call of the model gives its output
    if inspect.isfunction(function):
        annotated = returns_module(script, function)
        if annotated is not None:
            return annotated
        return names_model(name) or names_model(function.__name__, factory=True)
    return names_model(name)
