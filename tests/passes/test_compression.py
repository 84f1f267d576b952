"""Passes that compress gradients: what they choose, write down, and refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar import ops
from autopar.errors import AutoparError, OptionError
from autopar.partitioner.plan import Plan
from autopar.partitioner.rates import Rates
from autopar.program import Program
from autopar.runtime.comm_hook import CommHook
from tests.passes.programs import DDP, compiled

MATRIX = 4 * 64 * 64


def compressed(passes: str, *, cap: float = 0.0, **context: Any) -> Program:
    """Two matrices of 64 by 64 with biases, after these passes."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    pipeline = f"{DDP.replace('cap_mb=0', f'cap_mb={cap}')},{passes}"
    return compiled(model, pipeline, torch.ones(3, 64), **context)


def forms(program: Program) -> list[tuple[str, int]]:
    """How each bucket travels, and its bytes."""
    assert program.plan is not None
    return [(bucket.compression, bucket.sent_nbytes) for bucket in program.plan.buckets]


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("fp16", MATRIX + 256),
        ("bf16", MATRIX + 256),
        ("powersgd{rank=2}", 2 * (4 * 2 * (64 + 64) + 256)),
        ("topk{ratio=0.01}", 8 * 84),  # of 2 * (4096 + 64) elements
        ("topk{ratio=0.5,error_feedback=false}", 8 * 4160),
    ],
)
def test_plan_and_nodes_say_how_a_bucket_travels(text: str, nbytes: int) -> None:
    """With options and bytes, and the plan is the same after JSON."""
    program = compressed(text, cap=25)
    assert forms(program) == [(text, nbytes)]
    (node,) = program.find("call_function", ops.sync_gradients)
    assert node.kwargs == {"bucket": 0, "compression": text}
    assert program.plan is not None
    assert Plan.from_json(program.plan.to_json()) == program.plan
    assert "1 of 1 buckets travel" in program.remarks[-1].message


def test_what_one_pass_leaves_the_next_takes() -> None:
    """Biases are no matrices; the remark says why they were left."""
    program = compressed("powersgd{rank=2},bf16")
    assert sorted(forms(program)) == [("bf16", 128)] * 2 + [("powersgd{rank=2}", 1024)] * 2
    (left, _) = [remark.message for remark in program.remarks if remark.code == "AP214"]
    assert left.endswith("is not compressed: it has no matrix that becomes smaller at rank 2.")


def test_a_followed_plan_stays_as_it_is() -> None:
    """Whatever the pipeline has to say of compression."""
    plan = compressed("topk{ratio=0.1}").plan
    assert forms(compressed("bf16", plan=plan)) == forms(compressed("topk{ratio=0.1}"))


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        (nn.Linear(4, 4), "powersgd{rank=2}", "it has no matrix that becomes smaller at rank 2"),
        (nn.Linear(4, 4).bfloat16(), "fp16", "its gradients are bfloat16 already"),
        (nn.Linear(4, 4).bfloat16(), "powersgd{rank=1}", "takes dense float32 and float64"),
        (nn.Linear(4, 4, dtype=torch.complex64), "topk{ratio=0.1}", "its gradients are strided complex64"),
        (nn.Linear(4, 4), "topk{ratio=0}", "The option ratio of pass 'topk' is 0"),
        (nn.Linear(4, 4), "topk{ratio=1.5}", "The option ratio of pass 'topk' is 1.5"),
        (nn.Linear(4, 4), "powersgd{rank=0.5}", "The option rank of pass 'powersgd' is 0.5"),
        (nn.Linear(4, 4), "powersgd", "refuses its options"),
    ],
)
def test_what_cannot_be_compressed_is_refused(model: nn.Module, text: str, said: str) -> None:
    """Where nothing is left, or an option is out of range; the reason is said."""
    batch = torch.ones(3, 4, dtype=next(model.parameters()).dtype)
    with pytest.raises(OptionError, match=said):
        compiled(model, f"{DDP},{text}", batch)


def test_sparse_gradients_travel_as_they_are() -> None:
    """And the dense ones beside them compressed."""
    model = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Linear(4, 4))
    program = compiled(model, f"{DDP},bf16", torch.tensor([[1, 2]]))
    assert program.plan is not None
    assert {bucket.layout: bucket.compression for bucket in program.plan.buckets} == {"sparse": "", "strided": "bf16"}


def test_predicted_step_has_the_smaller_messages() -> None:
    """The same computation, and less on the wire."""
    rates = {"rates": Rates.assumed("cpu"), "world_size": 2}
    plans = [compressed(passes, cap=25, **rates).plan for passes in ("bf16", "topk{ratio=0.01}")]
    whole = compiled(compressed("bf16").model, DDP.replace("cap_mb=0", "cap_mb=25"), torch.ones(3, 64), **rates).plan
    wires = [plan.prediction.buckets[0] for plan in (whole, *plans)]  # type: ignore[union-attr]
    assert wires[0].ready == wires[1].ready
    assert wires[0].end > wires[1].end > wires[2].end


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "topk{ratio=2}"},
        {"compression": "bf17"},
        {"compression": "bf16,fp16"},
        {"compression": "shapes"},
        {"compression": True},
        {"compression": "bf16", "comm_hook": CommHook(None, print)},
    ],
)
def test_the_option_is_checked_when_it_is_given(options: dict[str, Any]) -> None:
    """Not at the first forward."""
    with pytest.raises(AutoparError, match=r"topk|bf17|no compression|option compression|hook \(print\)"):
        autopar.DDP(**options)


def test_option_is_a_pass_of_the_pipeline() -> None:
    """After synchronisation."""
    assert autopar.DDP(compression="bf16").pipeline().endswith(",ddp-sync,bf16,lift-parameters")
