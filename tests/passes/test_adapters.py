"""Passes of torch.fx in a pipeline of autopar's: functions of a GraphModule, and torch's PassBase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from torch.fx.passes.infra.pass_base import PassBase
from torch.fx.passes.infra.pass_base import PassResult as TorchsResult

from autopar.errors import InvalidProgramError, OptionError, PassError
from autopar.passes.adapters import adapted
from autopar.passes.base import PassContext
from autopar.passes.pipeline import build, parse
from autopar.passes.registry import passes, register_pass
from autopar.passes.runner import run_pipeline
from autopar.program import info
from tests.passes.test_runner import program

X = torch.ones(3, 4)


def negate(gm: fx.GraphModule, times: int = 1) -> None:
    """Puts negations before the output."""
    output = next(iter(reversed(gm.graph.nodes)))
    for _ in range(times):
        with gm.graph.inserting_before(output):
            output.args = ((gm.graph.call_function(torch.neg, (output.args[0][0],)),),)  # type: ignore[index]


class Negate(PassBase):
    """Makes a new graph module with a negation more, and ensures that it is there."""

    def __init__(self, demand: int = 1) -> None:
        self.demand = demand

    def call(self, graph_module: fx.GraphModule) -> TorchsResult:
        """The new one; the old one stays as it is."""
        graph = fx.Graph()
        value = graph.graph_copy(graph_module.graph, {})
        graph.output((graph.call_function(torch.neg, (value[0],)),))  # type: ignore[index]
        return TorchsResult(fx.GraphModule(graph_module, graph), True)

    def ensures(self, graph_module: fx.GraphModule) -> None:
        """Fails on a graph without the negation."""
        found = len(graph_module.graph.find_nodes(op="call_function", target=torch.neg))
        assert found >= self.demand, f"{found} negations"


def ran(one: Any, **options: Any) -> Any:
    """What the adapted pass makes of the small program, with its record."""
    done, (record,) = run_pipeline(program(), [adapted(one)(**options)], PassContext())
    return done, record


def test_function_changes_the_program_in_place() -> None:
    """With an option; new nodes know their maker."""
    torch.manual_seed(0)
    expected = program().graph_module(X)[0]
    torch.manual_seed(0)
    done, record = ran(negate, times=3)
    assert torch.equal(done.graph_module(X)[0], -expected)
    assert record.changed
    assert {info(node).created_by for node in done.find("call_function", torch.neg)} == {"negate"}


def test_description_is_its_own() -> None:
    """What ``autopar passes`` prints: the pass's docstring, or that there is none; never that of the adapter."""

    def silent(gm: fx.GraphModule) -> None:
        pass

    assert adapted(negate).__doc__ == "Puts negations before the output."
    assert (adapted(silent).__doc__ or "").startswith(f"Runs ``{__name__}.test_description")


def test_function_that_changes_nothing() -> None:
    """It need not say so; the code is compared."""
    assert not ran(negate, times=0)[1].changed


def test_torchs_pass_is_held_to_the_graph_that_it_returned() -> None:
    """Torch's own check looks at the old one, and lets this through or fails for nothing."""
    with pytest.raises(AssertionError, match="0 negations"):
        Negate()(program().graph_module)
    done, record = ran(Negate)
    assert record.changed
    assert {info(n).created_by for n in done.graph.nodes if n.op == "call_function"} == {"capture", "Negate"}
    with pytest.raises(PassError, match="AssertionError: 1 negations"):
        ran(Negate, demand=2)


@pytest.mark.parametrize(
    ("result", "complaint"), [(lambda gm: 3, "returned a int"), (lambda gm: fx.Graph(), "returned a Graph")]
)
def test_function_that_returns_something_else(result: Callable[..., Any], complaint: str) -> None:
    """Said with the mend."""
    with pytest.raises(PassError, match=f"{complaint}.*or nothing"):
        ran(result)


def test_broken_graph_is_found() -> None:
    """The verifier looks at these passes as at all others."""

    def breaks(gm: fx.GraphModule) -> None:
        gm.graph.erase_node(next(iter(reversed(gm.graph.nodes))))

    with pytest.raises(InvalidProgramError, match="After pass 'breaks'"):
        ran(breaks)


def test_in_a_pipeline_by_name() -> None:
    """Registered under a name of one's own, with options that are checked."""
    assert register_pass(negate, name="flip-sign", requires={"shapes"}) is negate
    try:
        (_, one) = build(parse("shapes,flip-sign{times=2}"))
        assert (one.name, one.requires) == ("flip-sign", {"shapes"})
        with pytest.raises(OptionError, match=r"'flip-sign' has no option 'time'.*times"):
            build(parse("flip-sign{time=2}"))
    finally:
        passes.remove("flip-sign")
