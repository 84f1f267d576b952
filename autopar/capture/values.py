"""Questions that Python code asks about the values of inputs, and the answers a graph rests on.

``if mask.all():`` decides between two graphs. Where the inputs alone decide it, the question is
kept beside the graph and asked again at each call; where parameters or random numbers take part,
the module that asks stays one call.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from autopar.capture.aliasing import written_by
from autopar.capture.functions import is_random

__all__ = ["ValueQuestion", "is_never_true", "question", "questionnaire"]

_LONGEST = 64


@dataclass(frozen=True, slots=True)
class ValueQuestion:
    """A value that Python was given.

    Attributes:
        node: computes it.
        answer: what it was.
        sizes: nodes below that are sizes, which it takes for granted, with their values.
        settled: whether the sizes alone decide it, so that it need not be asked again.
    """

    node: fx.Node
    answer: Any
    sizes: Mapping[fx.Node, int]
    settled: bool


def question(node: fx.Node, answer: Any, model: nn.Module, sizes: Mapping[fx.Node, int]) -> ValueQuestion | None:
    """The question that ``node`` asks, or None where the inputs alone do not decide it.

    Args:
        node: computes the value.
        answer: the value.
        model: owner of the parameters.
        sizes: the nodes that are sizes of tensors, with their values.
    """
    if not isinstance(answer, (bool, int, float)) and not _is_short_list(answer):
        return None
    waiting, seen, granted = [node], {node}, {}
    parameters = dict(model.named_parameters())
    settled = True
    while waiting:
        one = waiting.pop()
        if one in sizes:
            granted[one] = sizes[one]
            continue
        settled = settled and one.op not in ("placeholder", "get_attr")
        if len(seen) > _LONGEST or one.op == "call_module" or (one.op == "get_attr" and one.target in parameters):
            return None
        if one.op in ("call_function", "call_method") and is_random(one.target):
            return None
        if any(one in written_by(user) for user in one.users) or written_by(one):
            return None
        fresh = [source for source in one.all_input_nodes if source not in seen]
        seen.update(fresh)
        waiting += fresh
    return ValueQuestion(node, answer, granted, settled)


def questionnaire(
    graph: fx.Graph, questions: Sequence[ValueQuestion], model: nn.Module
) -> tuple[fx.GraphModule, tuple[Any, ...]] | None:
    """All questions as a graph of their own over the same inputs, with the answers; takes them out of ``graph``."""
    sizes = {node: size for asked in questions for node, size in asked.sizes.items()}
    needed: set[fx.Node] = set()
    waiting = [asked.node for asked in questions]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += [] if node in sizes else node.all_input_nodes
    apart, open_questions = fx.Graph(), [asked for asked in questions if not asked.settled]
    copies: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder" or (node in needed and node not in sizes):
            copies[node] = apart.node_copy(node, lambda source: copies.get(source, sizes.get(source)))
    apart.output(tuple(copies[asked.node] for asked in open_questions))
    apart.eliminate_dead_code()
    for node in reversed(graph.nodes):
        if node in needed and not node.users and node.op != "placeholder":
            graph.erase_node(node)
    if not open_questions:
        return None
    return fx.GraphModule(model, apart), tuple(asked.answer for asked in open_questions)


def is_never_true(node: Any) -> bool:
    """Whether a comparison is false whatever happens: a uniform random number is never below zero.

    Layers that may be skipped at random ask ``torch.rand([]) < self.layerdrop`` also where the
    probability is 0.
    """
    if not isinstance(node, fx.Node) or node.target not in (operator.lt, "lt", torch.lt):
        return False
    drawn, bound = node.args
    uniform = isinstance(drawn, fx.Node) and getattr(drawn.target, "__name__", "") in ("rand", "rand_like")
    return uniform and isinstance(bound, (int, float)) and bound <= 0


def _is_short_list(answer: Any) -> bool:
    short = isinstance(answer, list) and len(answer) <= _LONGEST
    return short and all(isinstance(part, (bool, int, float)) for part in answer)
