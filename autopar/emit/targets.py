"""Finds the public name of a function that a graph calls."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from autopar.emit.imports import Imports
from autopar.emit.names import is_identifier
from autopar.errors import ModelError

__all__ = ["callable_name"]

# In this order: a function that several of them export is printed under the first.
_NAMESPACES = (
    "torch.nn.functional",
    "torch",
    "torch.special",
    "torch.linalg",
    "torch.fft",
    "torch.sparse",
    "torch.nested",
    "math",
    "operator",
    "autopar.ops",
)


def callable_name(target: Callable[..., Any], imports: Imports, model_file: Path | None = None) -> str:
    """The expression under which the printed file calls ``target``.

    Args:
        target: a function, class or method of a class.
        imports: gets what the expression needs.
        model_file: the user's file: what it defines is taken from it and not imported, since it
            need not be on the path.

    Raises:
        ModelError: nothing leads to it by name (a lambda, a function inside a function).
    """
    known = _public_names().get(_key(target))
    if known is not None and known[2] is target:
        module, name, _ = known
        return name if module == "builtins" else f"{imports.module(module)}.{name}"
    overload = _registered_operator(target)
    if overload is not None:
        return f"{imports.module('torch')}.ops.{overload}"
    method = _method_of_tensor(target)
    if method is not None:
        return f"{imports.module('torch')}.Tensor.{method}"
    return _imported(target, imports, model_file)


def _imported(target: Callable[..., Any], imports: Imports, model_file: Path | None) -> str:
    module, path = getattr(target, "__module__", None), getattr(target, "__qualname__", "")
    if isinstance(module, str) and path and all(is_identifier(part) for part in path.split(".")):
        root, _, rest = path.partition(".")
        if _found(sys.modules.get(module), path) is target or _same_method(sys.modules.get(module), path, target):
            local = None
            if model_file is not None and _defined_in(target, model_file):
                local = imports.from_model_file(root)
            elif module.partition(".")[0] in ("torch", "autopar"):
                local = f"{imports.module(module)}.{root}"
            elif _importable(module):
                local = imports.member(module, root)
            if local is not None:
                return f"{local}.{rest}" if rest else local
    what = f"{module}.{path}" if module and path else repr(target)
    raise ModelError(
        f"The graph calls {what}, which a printed file cannot import by name.",
        why="It is a lambda, a function made inside another one, or of a module that is not on the path.",
        mend="Define it at the top of a module that can be imported, or of the model's own file.",
    )


@lru_cache(maxsize=1)
def _public_names() -> dict[int, tuple[str, str, Any]]:
    """Identity of each public function to module, name and the function itself."""
    found: dict[int, tuple[str, str, Any]] = {}
    for module in (*_NAMESPACES, "builtins"):
        namespace = builtins if module == "builtins" else importlib.import_module(module)
        for name, value in vars(namespace).items():
            if name.startswith("_") or not callable(value) or isinstance(value, ModuleType):
                continue
            if inspect.isfunction(value) and module != "autopar.ops" and _is_foreign(value, module):
                continue
            found.setdefault(_key(value), (module, name, value))
    return found


def _is_foreign(function: Any, module: str) -> bool:
    """Python functions that a namespace merely imported, such as ``torch.nn.functional.boolean_dispatch``."""
    home = function.__module__
    return module == "torch.nn.functional" and not home.startswith(("torch.nn", "torch._jit_internal"))


def _key(target: Any) -> int:
    return id(target)


def _registered_operator(target: Any) -> str | None:
    """``aten.add.Tensor`` for an operator of ``torch.ops``."""
    path = str(target)
    if type(target).__module__ != "torch._ops" or not all(is_identifier(part) for part in path.split(".")):
        return None
    return path if _found(torch.ops, path) is target else None


def _method_of_tensor(target: Any) -> str | None:
    name = getattr(target, "__name__", "")
    return name if is_identifier(name) and getattr(torch.Tensor, name, None) is target else None


def _found(root: Any, path: str) -> Any:
    value = root
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def _same_method(module: Any, path: str, target: Any) -> bool:
    """Bound class methods are made anew by every look-up: equal, never identical."""
    return inspect.ismethod(target) and inspect.isclass(target.__self__) and _found(module, path) == target


def _defined_in(target: Any, file: Path) -> bool:
    try:
        return Path(inspect.getfile(inspect.unwrap(target))).resolve() == file.resolve()
    except (TypeError, OSError):
        return False


def _importable(module: str) -> bool:
    if module == "__main__":
        return False
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    loaded = getattr(sys.modules.get(module), "__file__", None)
    return spec is not None and (loaded is None or spec.origin is None or Path(spec.origin) == Path(loaded))
