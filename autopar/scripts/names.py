"""Which names a piece of Python reads, binds and mutates, told from its syntax alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

__all__ = ["Reads", "bound_names", "dotted", "mutated_names", "reads", "root_name", "walk_scope"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LONG_BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try)

# Methods that build their object further. Anything else that is called for its effect alone, such
# as fit() or step(), is taken for the script's work and never runs.
_GROWING = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault"}
    | {"add_module", "register_module", "register_parameter", "register_buffer"}
    | {"add_argument", "add_argument_group", "add_mutually_exclusive_group", "set_defaults"}
)
_SETTING = _GROWING | {"to", "cuda", "cpu", "float", "double", "half", "bfloat16", "train", "eval", "apply"}


@dataclass(slots=True)
class Reads:
    """Module-level names that code reads.

    Attributes:
        now: when the statement itself executes.
        later: when a function that it defines is called.
    """

    now: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)

    def add(self, other: Reads, *, without: Set[str] = frozenset()) -> None:
        """Takes over another piece's reads, but for names that are local to it."""
        self.now |= other.now - without
        self.later |= other.later - without


def reads(node: ast.AST) -> Reads:
    """The module-level names that a node reads; local names of functions are left out."""
    found = Reads()
    if isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Store):
            found.now.add(node.id)
    elif isinstance(node, _FUNCTIONS):
        _read_function(node, found)
    elif isinstance(node, ast.ClassDef):
        for part in [*node.decorator_list, *node.bases, *node.keywords]:
            found.add(reads(part))
        body = _merged(node.body)
        # Methods do not see the class's own names, the class's body does.
        found.now |= body.now - bound_names(node.body)
        found.later |= body.later
    elif isinstance(node, _COMPREHENSIONS):
        found.add(_merged(ast.iter_child_nodes(node)), without=_stored(node.generators))
    else:
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.now.add(node.target.id)
        found.add(_merged(ast.iter_child_nodes(node)))
    return found


def _read_function(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, found: Reads) -> None:
    arguments = node.args
    parameters = {
        item.arg
        for item in [
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg)),
        ]
    }
    found.add(reads(arguments))  # defaults and annotations
    body: list[ast.AST]
    if isinstance(node, ast.Lambda):
        body = [node.body]
    else:
        body = list(node.body)
        found.add(_merged([*node.decorator_list, *filter(None, [node.returns])]))
    declared = {name for item in walk_scope(body) if isinstance(item, ast.Global | ast.Nonlocal) for name in item.names}
    inside = _merged(body)
    found.later |= (inside.now | inside.later) - (parameters | (bound_names(body) - declared))


def _merged(nodes: Iterable[ast.AST]) -> Reads:
    found = Reads()
    for node in nodes:
        found.add(reads(node))
    return found


def walk_scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes below, in order, without the insides of functions, classes and comprehensions."""
    for node in nodes:
        yield node
        if not isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef)):
            yield from walk_scope(ast.iter_child_nodes(node))


def _stored(nodes: Iterable[ast.AST]) -> set[str]:
    return {
        item.id
        for node in nodes
        for item in ast.walk(node)
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
    }


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that executing these statements can bind in their own scope (``*`` for a star import).

    >>> sorted(bound_names(ast.parse("import a.b\\nfor i in x: y = [z for z in i]").body))
    ['a', 'i', 'y']
    """
    found: set[str] = set()
    for node in walk_scope(nodes):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
    return found


def mutated_names(node: ast.stmt, *, imported: frozenset[str] = frozenset()) -> set[str]:
    """Names whose objects a statement changes in place, as far as its syntax tells.

    Assignments to attributes and items, and calls of building methods (``layers.append(...)``),
    of in-place methods (``w.zero_()``) and of ``nn.init.*``. A loop over ``model.parameters()``
    that changes its items changes ``model``.

    Args:
        node: the statement.
        imported: names bound by imports: ``torch.clip_grad_norm_(...)`` does not change ``torch``.

    >>> mutated_names(ast.parse("for p in net.parameters(): p.requires_grad = False").body[0])
    {'net'}
    """
    found: set[str] = set()
    # model.eval() at module level sets up the model; inside a loop or a with-block it starts a run.
    methods = _GROWING if isinstance(node, _LONG_BLOCKS) else _SETTING
    for item in walk_scope([node]):
        if isinstance(item, ast.Attribute | ast.Subscript) and not isinstance(item.ctx, ast.Load):
            found |= {root_name(item)} - {""}
        elif isinstance(item, ast.Expr) and isinstance(item.value, ast.Call):
            found |= _mutated_by_call(item.value, methods, imported)
    for item in walk_scope([node]):
        if isinstance(item, ast.For):
            targets = _stored([item.target])
            if targets & found:
                found = (found - targets) | ({root_name(item.iter)} - {""})
    return found


def _mutated_by_call(call: ast.Call, methods: frozenset[str], imported: frozenset[str]) -> set[str]:
    if not isinstance(call.func, ast.Attribute):
        return set()
    method, owner = call.func.attr, root_name(call.func)
    if "init" in dotted(call.func.value).split("."):
        return {root_name(argument) for argument in call.args[:1]} - {""}
    in_place = method.endswith("_") and not method.startswith("_") and owner not in imported
    return {owner} - {""} if in_place or method in methods else set()


def root_name(node: ast.AST) -> str:
    """The name that a chain of attributes, items and calls starts from; ``""`` for anything else.

    >>> root_name(ast.parse("net.layers[0].to('cpu').weight", mode="eval").body)
    'net'
    """
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.AST) -> str:
    """``"a.b.c"`` for such an expression; ``""`` for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        home = dotted(node.value)
        return f"{home}.{node.attr}" if home else ""
    return ""
