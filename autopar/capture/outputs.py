"""Makes every output of a graph one tensor, where a call returned several."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import fx

from autopar import compat
from autopar.program import Program, annotate

__all__ = ["unpack_outputs"]


def unpack_outputs(program: Program, structure: Any) -> Program:
    """The program with the result's structure as eager returned it.

    What an opaque call returns is one node while tracing, also where it is a tuple, so a model that
    ends in an LSTM would have one output that is no tensor.

    Args:
        program: a traced program; its graph is changed in place.
        structure: pytree structure of the eager result.
    """
    signature = program.signature
    if signature.out_spec == structure:
        return program
    template = compat.tree_unflatten(list(range(structure.num_leaves)), structure)
    try:
        parts = signature.out_spec.flatten_up_to(template)
    except ValueError:  # not the structure that was traced: the gate will say so
        return program
    (output,) = program.find("output")
    flowing = iter(output.args[0])  # type: ignore[arg-type]
    constants: dict[int, Any] = {}
    values: list[Any] = []
    with program.graph.inserting_before(output):
        for index, part in enumerate(parts):
            if index in signature.out_constants:
                constants[part] = signature.out_constants[index]
            else:
                values += _leaves(program.graph, next(flowing), part)
    output.args = (tuple(values),)
    program.graph_module.recompile()
    return replace(program, signature=replace(signature, out_spec=structure, out_constants=constants))


def _leaves(graph: fx.Graph, value: fx.Node, part: Any) -> list[fx.Node]:
    if isinstance(part, int):
        return [value]
    keys = part if isinstance(part, Mapping) else range(len(part))
    found = []
    for key in keys:
        item = graph.call_function(operator.getitem, (value, key))
        item.meta = dict(value.meta)
        annotate(item, opaque=False, param_bytes=0)
        found += _leaves(graph, item, part[key])
    return found
