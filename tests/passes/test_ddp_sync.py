"""Where synchronisation nodes stand, and that they change no number."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx

from autopar import ops
from autopar.program import Program, info
from tests.passes.programs import MODELS, ddp, outputs


def syncs(program: Program) -> list[fx.Node]:
    """The synchronisation nodes, in graph order."""
    return list(program.find("call_function", ops.sync_gradients))


def carried(program: Program) -> list[list[str]]:
    """The parameters of each node."""
    return [[str(arg.target) for arg in node.all_input_nodes] for node in syncs(program)]


@pytest.mark.parametrize("cap", [0, 0.0001, 25])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_bitwise_eager_s(name: str, cap: float) -> None:
    """Outside of a runtime the nodes hand their parameters through."""
    program = ddp(name, cap=cap)
    _, batch = MODELS[name]
    model, parameters = program.model, list(program.model.parameters())
    found = torch.autograd.grad(
        sum(leaf.square().sum() for leaf in outputs(program, batch)), parameters, allow_unused=True
    )
    expected_outputs = model(batch)
    leaves = expected_outputs.values() if isinstance(expected_outputs, dict) else [expected_outputs]
    expected = torch.autograd.grad(sum(leaf.square().sum() for leaf in leaves), parameters, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert one is other or torch.equal(one, other)


@pytest.mark.parametrize("cap", [0, 0.0001, 25])
@pytest.mark.parametrize("name", MODELS)
def test_nodes_carry_the_plan(name: str, cap: float) -> None:
    """Each bucket of the graph route has one node with its parameters in order."""
    program = ddp(name, cap=cap)
    assert program.plan is not None
    planned = {bucket.index: list(bucket.parameters) for bucket in program.plan.buckets if bucket.route == "graph"}
    found = {node.kwargs["bucket"]: names for node, names in zip(syncs(program), carried(program), strict=True)}
    assert found == planned


def test_node_stands_right_before_the_first_use() -> None:
    """At the top it would be created first, and autograd would run its backward last."""
    program = ddp("mlp")
    order = {node: index for index, node in enumerate(program.graph.nodes)}
    for sync in syncs(program):
        (part,) = sync.users
        first = min(part.users, key=order.__getitem__)
        between = list(program.graph.nodes)[order[sync] + 1 : order[first]]
        kinds = {node.target for node in between if node.op == "call_function"}
        assert kinds <= {operator.getitem, ops.sync_gradients}


def test_backward_of_the_last_bucket_runs_first() -> None:
    """Buckets become ready in plan order."""
    program, order = ddp("mlp", cap=0), []

    class Records:
        def sync(self, bucket: int, parameters: list[torch.Tensor], compression: str) -> list[torch.Tensor]:
            return [Mark.apply(bucket, parameter) for parameter in parameters]

    class Mark(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, bucket: int, parameter: torch.Tensor) -> torch.Tensor:
            ctx.bucket = bucket  # type: ignore[attr-defined]
            return parameter.view_as(parameter)

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
            order.append(ctx.bucket)  # type: ignore[attr-defined]
            return None, gradient

    with ops.executing(Records()):
        (out,) = outputs(program, torch.ones(3, 4))
    out.sum().backward()
    assert order == sorted(order)


def test_tied_weight_is_synchronised_once_for_both_uses() -> None:
    """One read, one node, two users behind it."""
    program = ddp("tied")
    (sync,) = [node for node, names in zip(syncs(program), carried(program), strict=True) if "embed.weight" in names]
    (part,) = sync.users
    assert len(part.users) == 2


def test_bucket_of_used_and_unused_parameters() -> None:
    """Those without a path are in no bucket and keep their reads."""
    program = ddp("unused", cap=25)
    (names,) = carried(program)
    assert sorted(names) == ["used.bias", "used.weight"]


def test_opaque_regions_are_left_to_hooks() -> None:
    """Their buckets have no node; the remark counts them."""
    program = ddp("recurrent", cap=25)
    assert all(not name.startswith("lstm") for names in carried(program) for name in names)
    assert "1 buckets are reduced by nodes of the graph, 1 by hooks" in program.remarks[-1].message


def test_nodes_are_annotated() -> None:
    """With bucket, bytes and maker, so that they can be shown."""
    program = ddp("mlp", cap=25)
    (sync,) = syncs(program)
    assert program.plan is not None
    assert (info(sync).bucket, info(sync).nbytes) == (0, program.plan.nbytes)
    assert info(sync).created_by == "ddp-sync"
    assert {info(part).created_by for part in sync.users} == {"ddp-sync"}
    assert {info(read).bucket for read in sync.all_input_nodes} == {0}
