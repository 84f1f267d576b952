"""Batch norms as nodes that share statistics: which become so, and that alone they change no number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autopar
from autopar import ops
from autopar.compilation import compile_program
from autopar.errors import OptionError
from tests.passes.programs import compiled, outputs


def targets(model: nn.Module, *, sync_batch_norm: bool) -> list[object]:
    """The operations of batch norms after the pipeline of ``ddp``."""
    strategy = autopar.DDP(sync_batch_norm=sync_batch_norm)
    graph = compile_program(model, (torch.randn(4, 3),), {}, strategy).program.graph
    return [node.target for node in graph.nodes if node.target in (ops.batch_norm, ops.sync_batch_norm)]


@pytest.mark.parametrize(
    ("kind", "option", "target"),
    [
        (nn.BatchNorm1d, False, ops.batch_norm),
        (nn.BatchNorm1d, True, ops.sync_batch_norm),
        (nn.SyncBatchNorm, False, ops.sync_batch_norm),
    ],
)
def test_nodes(kind: type[nn.Module], option: bool, target: object) -> None:
    """Those of nn.SyncBatchNorm always, plain ones with the option."""
    assert targets(nn.Sequential(nn.Linear(3, 3), kind(3)), sync_batch_norm=option) == [target]


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_the_plain_norm(training: bool) -> None:
    """Bit for bit, where nobody shares the statistics."""
    torch.manual_seed(0)
    model = nn.SyncBatchNorm(3).train(training)
    plain = nn.BatchNorm1d(3).train(training)
    batch = torch.randn(4, 3)
    program = compiled(nn.Sequential(model), "inline-modules", batch)
    assert torch.equal(outputs(program, batch)[0], plain(batch))
    assert torch.equal(model.running_var, plain.running_var)  # type: ignore[arg-type]


def test_the_pass_needs_the_option() -> None:
    """Which also serves the calls that no graph fits."""
    with pytest.raises(OptionError, match="sync_batch_norm=True"):
        compiled(nn.Sequential(nn.BatchNorm1d(3)), "inline-modules,sync-batch-norm", torch.randn(4, 3))
