"""Finds the model in a user's script, or says which ones there are to choose from.

A candidate is an ``nn.Module`` class of the file that builds without arguments, a factory function
such as ``build_model()``, or a module-level instance. One that another is made of is none.
"""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from autopar.errors import AutoparError, ModelError, UsageError
from autopar.scripts.instances import module_instances, names_model, returns_module
from autopar.scripts.script import LoadedScript, load_script

__all__ = ["Candidate", "FoundModel", "find_model", "split_spec"]


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model and where it comes from.

    Attributes:
        model: the module, built.
        name: the name in the script that it was found under.
        script: the script; run its code inside ``script.active()``.
        how: what it is, such as ``"class MyModel (mymodel.py:5)"``.
    """

    model: nn.Module
    name: str
    script: LoadedScript
    how: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something in a script that may be the model: a class, a factory function or an instance."""

    kind: Literal["class", "function", "instance"]
    name: str
    line: int
    value: Any

    def described(self, script: LoadedScript) -> str:
        """What it is and where."""
        call = "()" if self.kind == "function" else ""
        return f"{self.kind} {self.name}{call} ({script.path.name}:{self.line})"


def split_spec(spec: str) -> tuple[str, str | None]:
    """Path and name of ``"path.py"`` or ``"path.py:Name"``.

    >>> split_spec("models/net.py:Net.small")
    ('models/net.py', 'Net.small')
    """
    path, colon, name = spec.rpartition(":")
    if colon and name and all(part.isidentifier() for part in name.split(".")) and path.endswith(".py"):
        return path, name
    return (spec[:-1] if spec.endswith(".py:") else spec), None


def find_model(spec: str, model: str | None = None) -> FoundModel:
    """Loads a script and builds the model in it.

    Args:
        spec: ``"path.py"`` or ``"path.py:Name"``; ``Name`` is a class, a function, an instance, or
            an attribute of one (``"config.net"``).
        model: the name, where it is given apart from the path.

    Raises:
        UsageError: no such file or name, or several candidates and no name.
        ModelError: the file holds no model, or building it failed.
    """
    path, name = split_spec(spec)
    if name and model and name != model:
        raise UsageError(
            f"Two models are named: {name!r} in {spec!r}, and {model!r}.", mend="Give one name, either way."
        )
    script = load_script(path)
    wanted = name or model
    candidate = _named(script, wanted) if wanted else _only(script)
    return FoundModel(_build(script, candidate), candidate.name, script, candidate.described(script))


def _named(script: LoadedScript, name: str) -> Candidate:
    first, *attributes = name.split(".")
    if not script.binds(first):
        raise _unknown(script, first)
    value = script.evaluate(first)
    for attribute in attributes:
        owner = value
        value = script.call(lambda owner=owner, attribute=attribute: getattr(owner, attribute, None))  # type: ignore[misc]
    line = script.line(first)
    if isinstance(value, nn.Module):
        return Candidate("instance", name, line, value)
    if inspect.isclass(value) and issubclass(value, nn.Module):
        return Candidate("class", name, line, value)
    if callable(value) and not inspect.isclass(value):
        return Candidate("function", name, line, value)
    kind = "nothing" if value is None else f"of type {type(value).__name__}"
    raise ModelError(
        f"{name} in {script.path} is {kind}, not a model.",
        mend="Name an nn.Module class, a function that returns a module, or an instance.",
    )


def _unknown(script: LoadedScript, name: str) -> UsageError:
    guarded = [s.node.lineno for s in script.slicer.statements if s.never_runs and name in s.binds]
    if guarded:
        return UsageError(
            f"{name!r} is bound only at {script.path}:{guarded[0]}, in code that autopar does not run.",
            why='Training blocks and `if __name__ == "__main__":` are left out.',
            mend="Bind it at module level, or write a function build_model() that returns it.",
        )
    known = sorted({bound for s in script.slicer.statements if not s.never_runs for bound in s.binds})
    near = difflib.get_close_matches(name, known, n=1)
    return UsageError(
        f"{script.path} has nothing named {name!r} at module level.",
        mend=f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known) or 'no names'}.",
    )


def _only(script: LoadedScript) -> Candidate:
    candidates = _without_parts(script, [*_instances(script), *_factories(script), *_classes(script)])
    if len(candidates) > 1:
        candidates = _with_parameters(script, candidates) or candidates
    if not candidates:
        raise _no_model(script)
    if len(candidates) > 1:
        listed = ", ".join(candidate.described(script) for candidate in candidates)
        raise UsageError(
            f"{script.path} holds {len(candidates)} models: {listed}.",
            mend=f"Choose one: {script.path}:{candidates[0].name}, or --model {candidates[0].name}.",
            code="AP405",
        )
    return candidates[0]


def _instances(script: LoadedScript) -> list[Candidate]:
    instances = module_instances(script)
    found = [Candidate("instance", name, script.line(name), value) for name, value in instances.items()]
    # What another instance holds is a part of it: an encoder inside of a larger model.
    inside = {id(part) for candidate in found for part in candidate.value.modules() if part is not candidate.value}
    return [candidate for candidate in found if id(candidate.value) not in inside]


def _factories(script: LoadedScript) -> list[Candidate]:
    found = []
    for name, value in _defined(script).items():
        if inspect.isfunction(value) and not inspect.isgeneratorfunction(value) and not required(value):
            annotated = returns_module(script, value)
            if annotated or (annotated is None and names_model(name, factory=True)):
                found.append(Candidate("function", name, script.line(name), value))
    return found


def _model_classes(script: LoadedScript) -> dict[str, type[nn.Module]]:
    return {
        name: value
        for name, value in _defined(script).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and not inspect.isabstract(value)
        and value.forward is not nn.Module.forward
    }


def _classes(script: LoadedScript) -> list[Candidate]:
    return [
        Candidate("class", name, script.line(name), value)
        for name, value in _model_classes(script).items()
        if not required(value)
    ]


def _defined(script: LoadedScript) -> dict[str, Any]:
    """Classes and functions whose definition stands in this file, by name, in file order."""
    return {
        name: value
        for name, value in script.module.__dict__.items()
        if getattr(value, "__module__", None) == script.module.__name__
        and script.binds(name)
        and getattr(value, "__name__", None) == name
    }


def required(function: Any) -> list[str]:
    """Names of the arguments that a class or function cannot be called without.

    >>> required(lambda width, depth=2, *rest: None)
    ['width']
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some C types do not tell
        return []
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in open_ended]


def _without_parts(script: LoadedScript, candidates: list[Candidate]) -> list[Candidate]:
    """Leaves out classes and factories that another candidate is made of."""
    reach = {c.name: script.slicer.slice({c.name}).names for c in candidates}
    types = {type(part) for c in candidates if c.kind == "instance" for part in c.value.modules()}

    def is_part(candidate: Candidate) -> bool:
        if candidate.kind == "instance":
            return False
        return candidate.value in types or any(
            candidate.name in reach[other.name]
            and (other.kind == "instance" or other.name not in reach[candidate.name])
            for other in candidates
            if other is not candidate
        )

    return [candidate for candidate in candidates if not is_part(candidate)]


def _with_parameters(script: LoadedScript, candidates: list[Candidate]) -> list[Candidate]:
    """Leaves out losses and activations: modules without parameters, where others have some."""

    def has_parameters(candidate: Candidate) -> bool:
        try:
            # The trial must not use up random numbers that the model's weights come from.
            with torch.random.fork_rng(devices=[]):
                return any(True for _ in _build(script, candidate).parameters())
        except AutoparError:
            return True  # shown to the user, who may choose it and see why it fails

    return [candidate for candidate in candidates if has_parameters(candidate)]


def _build(script: LoadedScript, candidate: Candidate) -> nn.Module:
    if candidate.kind == "instance":
        instance: nn.Module = candidate.value
        return instance
    missing = required(candidate.value)
    if missing:
        raise ModelError(
            f"{candidate.described(script)} needs arguments: {', '.join(missing)}.",
            why="autopar cannot guess them.",
            mend=_write_it(candidate.name, missing),
            code="AP126",
        )
    model = script.call(candidate.value)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{candidate.described(script)} returned something of type {type(model).__name__}, not an nn.Module.",
            mend="Let it return the model, or name something else.",
        )
    return model


def _write_it(name: str, missing: list[str]) -> str:
    arguments = ", ".join(f"{argument}=..." for argument in missing)
    return (
        "Write a function build_model() that returns it, or add a line such as "
        f"`model = {name}({arguments})` at module level."
    )


def _no_model(script: LoadedScript) -> ModelError:
    for failure in script.failures():
        return failure
    needing = {name: missing for name, cls in _model_classes(script).items() if (missing := required(cls))}
    looked = (
        "autopar looked for an nn.Module class that builds without arguments, a function such as "
        "build_model(), and a module-level instance."
    )
    if not needing:
        return ModelError(
            f"No model was found in {script.path}.",
            why=looked,
            mend="Name one with file.py:Name, or write a function build_model() that returns it.",
        )
    listed = "; ".join(
        f"class {name} ({script.path.name}:{script.line(name)}) needs {', '.join(missing)}"
        for name, missing in needing.items()
    )
    last, missing = list(needing.items())[-1]
    return ModelError(
        f"No model in {script.path} builds without arguments: {listed}.",
        mend=_write_it(last, missing),
        code="AP126",
    )
