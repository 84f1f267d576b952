"""Reads a Program as data for the predictor: what each operation costs, and which completes a gradient."""

from __future__ import annotations

from autopar.capture.aliasing import operation_name
from autopar.partitioner.timeline import OperationCost
from autopar.passes.dataflow import operation_parameters
from autopar.program import Program, info

__all__ = ["operation_costs"]


def operation_costs(program: Program) -> tuple[list[OperationCost], dict[str, int]]:
    """The operations of a program before synchronisation is in it.

    Returns:
        The cost of each operation in forward order; and by parameter the place of its first user, whose
        backward completes its gradient.
    """
    costs: list[OperationCost] = []
    first: dict[str, int] = {}
    for node, parameters in operation_parameters(program).items():
        noted = info(node)
        for name in parameters:
            first.setdefault(name, len(costs))
        read = sum(info(source).nbytes for source in node.all_input_nodes)
        costs.append(
            OperationCost(
                name=operation_name(node) if node.op != "call_module" else "",
                flops=noted.flops,
                nbytes=read + noted.nbytes + (noted.param_bytes if node.op == "call_module" else 0),
                trained=bool(parameters),
                recomputed=bool(noted.region),
            )
        )
    return costs, first
