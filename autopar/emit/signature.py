"""Writes how a call maps to the graph's inputs, and the graph's outputs to the result."""

from __future__ import annotations

import dataclasses
import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from autopar import compat
from autopar.emit.layout import Expr, call, collection, flat, prefixed
from autopar.emit.literals import Writer
from autopar.emit.names import quoted
from autopar.errors import ModelError
from autopar.program import Program, Signature

__all__ = [
    "Arguments",
    "Leaf",
    "arguments",
    "call_template",
    "forwarded",
    "parameter_names",
    "result",
    "single_output",
    "structure",
]


@dataclass(frozen=True, slots=True)
class Leaf:
    """Stands for the leaf of that index in a nested structure."""

    index: int


@dataclass(slots=True)
class Arguments:
    """The head of a printed function.

    Attributes:
        parameters: as they stand between the brackets of ``def``, without ``self``.
        names: the parameters' bare names.
        leaves: expression for each input of the graph, in order.
        unpackings: a sequence's expression, and the inputs (by position) that it holds, all of them.
        guards: conditions under which the graph is *not* exact.
        exact_for: the same in words: ``"scale=2.0"``.
    """

    parameters: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)
    unpackings: list[tuple[str, list[int]]] = field(default_factory=list)
    guards: list[str] = field(default_factory=list)
    exact_for: list[str] = field(default_factory=list)


def call_template(signature: Signature) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``(args, kwargs)`` of the sample call, with a ``Leaf`` or a constant in every place."""
    total = len(signature.inputs) + len(signature.constants)
    args, kwargs = compat.tree_unflatten([Leaf(index) for index in range(total)], signature.in_spec)
    return args, kwargs


def parameter_names(program: Program) -> list[str]:
    """Names of the user's forward parameters, without ``self``."""
    return [parameter.name for parameter in _parameters(program)]


def forwarded(program: Program) -> list[str]:
    """The user's forward parameters as they are handed on: ``x, *rest, mask=mask``."""
    texts = []
    for parameter in _parameters(program):
        name = parameter.name
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else stars
        texts.append(f"{name}={name}" if parameter.kind is parameter.KEYWORD_ONLY else f"{stars}{name}")
    return texts


def arguments(program: Program, write: Writer) -> Arguments:
    """The printed function's parameters: the user's own, and what the graph takes from each.

    Raises:
        ModelError: an argument has a structure that cannot be taken apart in Python source.
    """
    signature = program.signature
    args, kwargs = call_template(signature)
    found: dict[int, str] = {}
    made = Arguments()
    parameters = _parameters(program)
    bound = inspect.Signature(parameters).bind(*args, **kwargs).arguments
    star = False
    for index, parameter in enumerate(parameters):
        text, default = parameter.name, parameter.default
        made.names.append(text)
        if parameter.kind is parameter.VAR_POSITIONAL:
            text, star = f"*{text}", True
        elif parameter.kind is parameter.VAR_KEYWORD:
            text = f"**{text}"
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            made.parameters.append("*")
            star = True
        shown = _default(parameter, write)
        made.parameters.append(text if shown is None else f"{text}={shown}")
        following = parameters[index + 1].kind if index + 1 < len(parameters) else None
        if parameter.kind is parameter.POSITIONAL_ONLY and following is not parameter.POSITIONAL_ONLY:
            made.parameters.append("/")
        empty: Any = () if parameter.kind is parameter.VAR_POSITIONAL else {}
        if parameter.name in bound:
            _take_apart(bound[parameter.name], parameter.name, signature, made, found, write)
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            _take_apart(empty, parameter.name, signature, made, found, write)
        else:
            _pin(parameter.name, default if shown != "None" else None, made, write)
    made.leaves = [found[index] for index in sorted(found)]
    order = {leaf: position for position, leaf in enumerate(sorted(found))}
    made.unpackings = [(text, [order[leaf] for leaf in leaves]) for text, leaves in made.unpackings]
    return made


def result(program: Program, output: Any, write: Writer) -> Expr:
    """The expression that the printed function returns.

    Args:
        program: for the user's structure.
        output: the argument of the graph's output node: the tensor leaves, or for an opaque root
            the whole result.
        write: writes the leaves.

    Raises:
        ModelError: the result has a structure that cannot be put together in Python source.
    """
    signature = program.signature
    if isinstance(output, fx.Node) or signature.out_spec is None:
        return write.expression(output)
    nodes = iter(output)
    total = len(output) + len(signature.out_constants)
    constants = signature.out_constants
    leaves = [write.expression(constants[i] if i in constants else next(nodes)) for i in range(total)]
    template = signature.out_spec.unflatten([Leaf(index) for index in range(total)])
    return structure(template, leaves, write)


def _parameters(program: Program) -> list[inspect.Parameter]:
    forward = compat.original_class(program.model).forward
    try:
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        args, kwargs = call_template(program.signature)
        inspect.Signature(parameters).bind(*args, **kwargs)
    except (TypeError, ValueError):
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [inspect.Parameter(name, kind) for name, kind in zip(("args", "kwargs"), kinds, strict=True)]
    return parameters


def _default(parameter: inspect.Parameter, write: Writer) -> str | None:
    if parameter.default is parameter.empty:
        return None
    try:
        return flat(write.expression(parameter.default))
    except ModelError:
        return "None"  # guarded below: only the default itself, shown as None, is accepted


def _take_apart(
    tree: Any, text: str, signature: Signature, made: Arguments, found: dict[int, str], write: Writer
) -> None:
    if isinstance(tree, Leaf):
        if tree.index in signature.constants:
            _pin(text, signature.constants[tree.index], made, write)
        else:
            found[tree.index] = text
        return
    children = list(_children(tree, text))
    if isinstance(tree, (tuple, list, Mapping)):
        _guard_structure(tree, text, made)
    plain = type(tree) in (tuple, list) and all(
        isinstance(child, Leaf) and child.index not in signature.constants for _, child in children
    )
    if plain and children:
        made.unpackings.append((text, [child.index for _, child in children]))
    for expression, child in children:
        _take_apart(child, expression, signature, made, found, write)


def _children(tree: Any, text: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            if not isinstance(key, (str, int)):
                raise _unprintable(tree)
            yield f"{text}[{quoted(key) if isinstance(key, str) else key}]", child
    elif isinstance(tree, (tuple, list)):
        for index, child in enumerate(tree):
            yield f"{text}[{index}]", child
    elif dataclasses.is_dataclass(tree):
        for one in dataclasses.fields(tree):
            yield f"{text}.{one.name}", getattr(tree, one.name)
    elif tree is not None:
        raise _unprintable(tree)


def _guard_structure(tree: Any, text: str, made: Arguments) -> None:
    if isinstance(tree, Mapping) and tree:
        keys = ", ".join(quoted(key) if isinstance(key, str) else repr(key) for key in tree)
        made.guards.append(f"set({text}) != {{{keys}}}")
        made.exact_for.append(f"{text} with {keys}")
    elif not tree:
        made.guards.append(text)
        made.exact_for.append(f"no {text}")
    else:
        made.guards.append(f"len({text}) != {len(tree)}")
        made.exact_for.append(f"len({text})={len(tree)}")


def _pin(text: str, value: Any, made: Arguments, write: Writer) -> None:
    """Guards an argument that the graph was specialised to."""
    shown = flat(write.expression(value))
    if value is None or isinstance(value, bool) or value is Ellipsis:
        made.guards.append(f"{text} is not {shown}")
    elif isinstance(value, (int, float, complex)):
        # 2 and 2.0 compare equal and give different dtypes; a tensor would compare elementwise.
        made.guards.append(f"type({text}) is not {type(value).__name__}")
        made.guards.append(f"{text} != {shown}")
    else:
        made.guards.append(f"{text} != {shown}")
    made.exact_for.append(f"{text}={shown}")


def single_output(program: Program, output: Any) -> Any:
    """The node whose value is the whole result; None where the result is a structure."""
    if program.signature.out_spec is None:
        return output
    if program.signature.out_constants or len(output) != 1:
        return None
    return output[0] if isinstance(program.signature.out_spec.unflatten([Leaf(0)]), Leaf) else None


def structure(tree: Any, leaves: Sequence[Expr], write: Writer) -> Expr:
    """A nested structure as Python source.

    Args:
        tree: the structure, with a ``Leaf`` in every place.
        leaves: expression for each.
        write: for the names of classes.

    Raises:
        ModelError: it is of a class that cannot be written down.
    """
    if isinstance(tree, Leaf):
        return leaves[tree.index]

    def inner(child: Any) -> Expr:
        return structure(child, leaves, write)

    def keyed(items: Mapping[Any, Any]) -> Expr:
        return collection("{}", (prefixed(f"{write.constant(k)}: ", inner(v)) for k, v in items.items()))

    def keywords(items: Mapping[str, Any]) -> Expr:
        return call(write.name_of(type(tree)), (prefixed(f"{k}=", inner(v)) for k, v in items.items()))

    if tree is None:
        return "None"
    if type(tree) is dict:
        return keyed(tree)
    if type(tree) in (tuple, list):
        return collection("()" if isinstance(tree, tuple) else "[]", map(inner, tree))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return keywords(dict(zip(tree._fields, tree, strict=True)))
    if type(tree) is OrderedDict:
        return call(write.name_of(OrderedDict), [keyed(tree)])
    if dataclasses.is_dataclass(tree):
        # A mapping that is a dataclass (Hugging Face's ModelOutput) holds only what is not None.
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
        return keywords(tree if isinstance(tree, Mapping) else fields)
    raise _unprintable(tree)


def _unprintable(tree: Any) -> ModelError:
    return ModelError(
        f"forward takes or returns a {type(tree).__qualname__}, whose structure cannot be printed as Python.",
        mend="Use tensors, tuples, lists, dicts, named tuples or dataclasses there, or `autopar run` the script.",
    )
