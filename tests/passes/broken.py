"""Broken programs: each has one bug that a rule of the verifier is there for."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable

import torch
from torch import fx, nn

from autopar import ops
from autopar.guards import Condition, Dim
from autopar.partitioner.plan import LocalParameter, Plan
from autopar.program import Program, annotate

__all__ = ["PLANTED"]


def plan_of(program: Program) -> Plan:
    """The plan, which is there."""
    assert program.plan is not None
    return program.plan


def with_plan(program: Program, **changes: object) -> Program:
    """The program with another plan."""
    return dataclasses.replace(program, plan=dataclasses.replace(plan_of(program), **changes))  # type: ignore[arg-type]


def uses_a_later_node(program: Program) -> Program:
    """The graph is no longer in order."""
    *_, last, output = program.graph.nodes
    first = next(node for node in program.graph.nodes if node.op == "call_function")
    first.append(output)
    assert last is not output
    return program


def loses_its_output(program: Program) -> Program:
    """There is nothing to return."""
    program.graph.erase_node(next(program.find("output")))
    return program


def takes_another_input(program: Program) -> Program:
    """The caller does not know of it."""
    with program.graph.inserting_before(next(iter(program.graph.nodes))):
        program.graph.placeholder("more")
    return program


def reorders_its_inputs(program: Program) -> Program:
    """The caller would hand over the wrong tensors."""
    first, second = program.find("placeholder")
    second.append(first)
    return program


def drops_a_parameter(program: Program) -> Program:
    """A bucket lost its last parameter."""
    *rest, last = plan_of(program).buckets
    return with_plan(program, buckets=(*rest, dataclasses.replace(last, parameters=last.parameters[:-1])))


def plans_a_parameter_twice(program: Program) -> Program:
    """It is in two buckets."""
    first, second, *rest = plan_of(program).buckets
    double = dataclasses.replace(second, parameters=second.parameters + first.parameters)
    return with_plan(program, buckets=(first, double, *rest))


def plans_an_unknown_parameter(program: Program) -> Program:
    """The model has none of that name."""
    local = LocalParameter(name="ghost", reason="none")
    return with_plan(program, local=(local,))


def keeps_a_gradient_local(program: Program) -> Program:
    """A parameter with a gradient is declared to have none."""
    first, *rest = plan_of(program).buckets
    (name,) = first.parameters
    return with_plan(program, buckets=tuple(rest), local=(LocalParameter(name=name, reason="planted"),))


def mixes_kinds(program: Program) -> Program:
    """A bucket says another dtype than its parameters have."""
    first, *rest = plan_of(program).buckets
    return with_plan(program, buckets=(dataclasses.replace(first, dtype="float16"), *rest))


def launches_in_another_order(program: Program) -> Program:
    """The first two buckets changed places."""
    first, second, *rest = plan_of(program).buckets
    swapped = (dataclasses.replace(second, index=0), dataclasses.replace(first, index=1))
    return with_plan(program, buckets=(*swapped, *rest))


def uses_a_parameter_unsynchronised(program: Program) -> Program:
    """One use reads past the node."""
    sync = next(program.find("call_function", ops.sync_gradients))
    (part,) = sync.users
    part.replace_all_uses_with(sync.args[0])  # type: ignore[arg-type]
    return program


def loses_a_node(program: Program) -> Program:
    """A bucket is never reduced."""
    uses_a_parameter_unsynchronised(program)
    sync = next(program.find("call_function", ops.sync_gradients))
    for part in list(sync.users):
        program.graph.erase_node(part)
    program.graph.erase_node(sync)
    return program


def synchronises_another_parameter(program: Program) -> Program:
    """A node carries what belongs to another bucket."""
    first, *_, last = program.find("call_function", ops.sync_gradients)
    last.args = first.args
    return program


def synchronises_an_unplanned_bucket(program: Program) -> Program:
    """The plan ends before it."""
    sync = next(program.find("call_function", ops.sync_gradients))
    sync.kwargs = {"bucket": 77}
    return program


def synchronises_a_bucket_twice(program: Program) -> Program:
    """The gradient would be averaged twice."""
    sync = next(program.find("call_function", ops.sync_gradients))
    with program.graph.inserting_after(sync):
        again = program.graph.node_copy(sync)
    next(iter(sync.users)).args = (again, 0)
    return program


def annotates_an_unplanned_bucket(program: Program) -> Program:
    """Views and printers would look for it."""
    annotate(next(program.find("call_function")), bucket=77)
    return program


def reads_past_its_bucket(program: Program) -> Program:
    """A use reads the parameter once more, from the module."""
    sync = next(program.find("call_function", ops.sync_gradients))
    (part,) = sync.users
    with program.graph.inserting_before(part):
        again = program.graph.get_attr(str(sync.args[0].target))  # type: ignore[union-attr]
    part.replace_all_uses_with(again)
    return program


def hides_a_collective_in_a_branch(program: Program) -> Program:
    """As ``torch.cond`` holds its branches: only ranks that take it would send."""
    branch = fx.Graph()
    branch.output(branch.call_function(ops.sync_gradients, (branch.placeholder("x"),), {"bucket": 0}))
    program.graph_module.add_submodule("true_branch", fx.GraphModule(nn.Module(), branch))
    with program.graph.inserting_before(next(program.find("output"))):
        program.graph.get_attr("true_branch")
    return program


def asks_the_other_ranks(program: Program) -> Program:
    """A question about inputs is asked on the ranks whose sizes it is for."""
    asked = fx.Graph()
    asked.output(
        asked.call_function(torch.ops._c10d_functional.all_reduce.default, (asked.placeholder("x"), "sum", "0"))
    )
    guards = dataclasses.replace(program.guards, questions=fx.GraphModule(nn.Module(), asked))
    return dataclasses.replace(program, guards=guards)


def _reduced(program: Program, operator: object) -> fx.Node:
    output = next(program.find("output"))
    (value,) = output.args[0]  # type: ignore[misc]
    with program.graph.inserting_before(output):
        node = program.graph.call_function(operator, (value, "sum", "0"))  # type: ignore[arg-type]
        return annotate(node, created_by="planted")


def sends_where_other_graphs_do_not(program: Program) -> Program:
    """The graph is for some sizes; ranks with others run another one."""
    node = _reduced(program, torch.ops._c10d_functional.all_reduce.default)
    with program.graph.inserting_after(node):
        program.graph.call_function(torch.ops._c10d_functional.wait_tensor.default, (node,))
    condition = Condition(operator.gt, (Dim(0, 0), 1), True)
    return dataclasses.replace(program, guards=dataclasses.replace(program.guards, conditions=(condition,)))


def uses_a_value_before_its_wait(program: Program) -> Program:
    """It may not have arrived."""
    node = _reduced(program, torch.ops._c10d_functional.all_reduce.default)
    with program.graph.inserting_after(node):
        program.graph.call_function(torch.relu, (node,))
    return program


def never_waits(program: Program) -> Program:
    """Nor does anybody know when its memory is free."""
    _reduced(program, torch.ops._c10d_functional.all_reduce.default)
    return program


def promises_a_plan(program: Program) -> Program:
    """And has none."""
    return dataclasses.replace(program, plan=None)


def promises_shapes(program: Program) -> Program:
    """And one input's is not noted."""
    annotate(next(program.find("placeholder")), shape=None)
    return program


def promises_a_ready_order(program: Program) -> Program:
    """And names a parameter twice."""
    return dataclasses.replace(program, ready_order=(*program.ready_order, program.ready_order[0]))


def promises_lifted_parameters(program: Program) -> Program:
    """And reads them from the module."""
    return dataclasses.replace(program, provides=program.provides | {"lifted"})


def promises_replicas(program: Program) -> Program:
    """And splits nothing."""
    replicated = with_plan(program, options={"replicas": 2})
    return dataclasses.replace(replicated, provides=program.provides | {"replicated"})


def promises_opened_modules(program: Program) -> Program:
    """And calls one as if nobody had to know."""
    program.graph_module.add_submodule("later", nn.Linear(2, 2))
    with program.graph.inserting_before(next(program.find("output"))):
        program.graph.call_module("later", (next(program.find("placeholder")),))
    return program


def hides_a_compression(program: Program) -> Program:
    """The plan compresses a bucket, and its node does not say so."""
    first, *others = plan_of(program).buckets
    return with_plan(program, buckets=(dataclasses.replace(first, compression="bf16", wire_nbytes=2), *others))


PLANTED: dict[Callable[[Program], Program], tuple[str, str]] = {
    uses_a_later_node: ("the graph is well formed", "before"),
    loses_its_output: ("there is one output", "it has 0 output nodes"),
    takes_another_input: ("the inputs match the signature", "more"),
    drops_a_parameter: ("every trainable parameter is planned once", "no bucket and not declared local"),
    plans_a_parameter_twice: ("every trainable parameter is planned once", "in bucket 0 and bucket 1"),
    plans_an_unknown_parameter: ("every trainable parameter is planned once", "'ghost'"),
    keeps_a_gradient_local: ("every trainable parameter is planned once", "declared local but gets a gradient"),
    mixes_kinds: ("a bucket holds parameters of one kind", "bucket 0 is float16"),
    launches_in_another_order: ("buckets are launched in ready order", "bucket 1 is ready before bucket 0"),
    hides_a_compression: ("every bucket is synchronised as planned", "says nothing of its compression"),
    uses_a_parameter_unsynchronised: ("every bucket is synchronised as planned", "is used unsynchronised by"),
    loses_a_node: ("every bucket is synchronised as planned", "has no node"),
    synchronises_another_parameter: ("every bucket is synchronised as planned", "lacks"),
    synchronises_an_unplanned_bucket: ("every bucket is synchronised as planned", "bucket 77"),
    synchronises_a_bucket_twice: ("every bucket is synchronised as planned", "several nodes"),
    annotates_an_unplanned_bucket: ("annotations name planned buckets", "annotated with bucket 77"),
    reads_past_its_bucket: ("every bucket is synchronised as planned", "is read past its bucket by"),
    hides_a_collective_in_a_branch: ("every rank takes part in every collective", "in the nested graph 'true_branch'"),
    asks_the_other_ranks: ("every rank takes part in every collective", "in the questions about inputs"),
    sends_where_other_graphs_do_not: ("every rank takes part in every collective", "a graph that rests on its inputs"),
    uses_a_value_before_its_wait: ("nothing is used before its wait", "uses all_reduce_default before a wait"),
    never_waits: ("nothing is used before its wait", "is never waited for"),
    promises_a_plan: ("what passes provide is there", "it provides 'plan', but there is no plan"),
    promises_shapes: ("what passes provide is there", "it provides 'shapes', but the shape of its input"),
    promises_a_ready_order: ("what passes provide is there", "it provides 'backward-order', but"),
    promises_lifted_parameters: ("what passes provide is there", "it provides 'lifted', but"),
    promises_replicas: ("what passes provide is there", "it provides 'replicated', but it has 0 nodes scatter"),
    promises_opened_modules: ("what passes provide is there", "it provides 'inlined', but later still calls"),
}
