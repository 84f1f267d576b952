"""``compile=True``: one graph with the all-reduces inside, and the gradients of ``torch.compile`` of DDP."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn.parallel import DistributedDataParallel

import autopar
from autopar.errors import LaunchError, OptionError
from tests.runtime.pairs import Ranks, differences, same, seeded, twin_of
from tests.runtime.zoo import ZOO

NAMES = {"torch": ("conv_bn",), "shm": ("mlp", "tied")}  # each twice compiled on both ranks: seconds


@dataclasses.dataclass
class Graphs:
    """A backend that runs what it gets and keeps count: of forward graphs, and of all-reduces in backward ones."""

    forward: int = 0
    all_reduces: list[int] = dataclasses.field(default_factory=list)

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Compiles nothing, and lets autograd be traced."""
        self.forward += 1

        def forward(module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            return make_boxed_func(module)

        def backward(module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            self.all_reduces.append(sum("all_reduce" in str(node.target) for node in module.graph.nodes))
            return make_boxed_func(module)

        compiled: Callable[..., Any] = aot_autograd(fw_compiler=forward, bw_compiler=backward)(module, inputs)
        return compiled


def _loss(name: str, model: nn.Module, step: int) -> torch.Tensor:
    seeded(step)
    return ZOO[name].loss(model(*ZOO[name].batch()))


def against_compiled_ddp(backend: str) -> dict[str, list[Any]]:
    """For each model: what differs after steps, after accumulation and after the step behind it; the graphs."""
    found = {}
    for name in NAMES[backend]:
        torch._dynamo.reset()
        graphs = Graphs()
        settings = {"backend": graphs, "dynamic": False}
        mine, twin = twin_of(
            ZOO[name].build, compile=settings, backend=backend, bucket_cap_mb=0.0005, first_bucket_mb=0
        )
        theirs = torch.compile(DistributedDataParallel(twin, **ZOO[name].ddp), backend="aot_eager", dynamic=False)
        different = []
        for step in range(2):
            for model in (mine, theirs):
                model.zero_grad()
                _loss(name, model, step).backward()
            different += differences(mine, twin)
        outcome = [different, graphs.forward, list(graphs.all_reduces)]
        for model in (mine, theirs):
            model.zero_grad()
            with autopar.no_sync(mine) if model is mine else theirs._orig_mod.no_sync():
                _loss(name, model, 2).backward()
        outcome.append(differences(mine, twin))
        for model in (mine, theirs):
            _loss(name, model, 3).backward()
        outcome.append(differences(mine, twin))
        found[name] = outcome
        buckets = mine.__dict__["_autopar"].compilation.plan.buckets
        assert len(buckets) == graphs.all_reduces[0]
    return found


@pytest.mark.parametrize("backend", NAMES)
def test_gradients_equal_compiled_ddp(ranks: Ranks, backend: str) -> None:
    """Bit for bit, also with ``no_sync`` and with the step after it, from one graph with an all-reduce a bucket."""
    for found in ranks(against_compiled_ddp, 2, backend, timeout=110.0):
        for name, (steps, graphs, all_reduces, local, together) in found.items():
            assert (name, steps, local, together) == (name, [], [], [])
            assert (graphs, len(all_reduces)) == (1, 1)


def with_an_opaque_submodule() -> tuple[list[str], int, int]:
    """What differs from DDP, and the graphs of autopar's and of the plain model."""
    name, mine_graphs, plain_graphs = "opaque_submodule", Graphs(), Graphs()
    mine, twin = twin_of(ZOO[name].build, compile={"backend": mine_graphs})
    plain = torch.compile(ZOO[name].build(), backend=plain_graphs)
    ddp = DistributedDataParallel(twin, **ZOO[name].ddp)
    for model in (mine, ddp, plain):
        _loss(name, model, 0).backward()
    return differences(mine, twin), mine_graphs.forward, plain_graphs.forward


def test_an_opaque_submodule_breaks_the_graph_no_oftener(ranks: Ranks) -> None:
    """Its own gradients travel as they do without a compiler."""
    for different, mine, plain in ranks(with_an_opaque_submodule, 2, timeout=110.0):
        assert different == []
        assert mine <= plain


def inside_the_users_compile() -> dict[str, Any]:
    """``torch.compile`` around parallel models: what differs from DDP, in steps and with ``no_sync``; the graphs."""
    found: dict[str, Any] = {}
    for name in ("conv_bn", "opaque_submodule"):
        torch._dynamo.reset()
        graphs, plain_graphs, whole = Graphs(), Graphs(), name != "opaque_submodule"
        mine, twin = twin_of(
            ZOO[name].build,
            bucket_cap_mb=0.0005,
            first_bucket_mb=0,
            example_inputs=ZOO[name].batch() if whole else None,
        )
        compiled = torch.compile(mine, backend=graphs, fullgraph=whole, dynamic=False)
        ddp = DistributedDataParallel(twin, **ZOO[name].ddp)
        theirs = torch.compile(ddp, backend="aot_eager", dynamic=False) if whole else ddp
        plain = torch.compile(ZOO[name].build(), backend=plain_graphs, dynamic=False)
        different = []
        for step in range(3):
            for model in (compiled, theirs, plain):
                model.zero_grad()
                _loss(name, model, step).backward()
            different += differences(mine, twin)
        found[name] = [different, graphs.forward - plain_graphs.forward, graphs.all_reduces]
        buckets = mine.__dict__["_autopar"].compilation.plan.buckets
        found[name].append([len(buckets)] if whole else [])
        if name == "conv_bn":
            statistics = [b.clone() for b in mine.buffers()]
            found["buffers"] = statistics
            breakable = torch.compile(mine, backend=graphs, dynamic=False)
            for model, owner in ((breakable, None), (theirs, ddp)):
                model.zero_grad()
                with autopar.no_sync(mine) if owner is None else owner.no_sync():
                    _loss(name, model, 3).backward()
                _loss(name, model, 4).backward()
            found["after no_sync"] = differences(mine, twin)
    late = torch.compile(autopar.parallelize(ZOO["mlp"].build(), "ddp"), backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"example_inputs= to autopar\.parallelize"):
        late(torch.randn(5, 6))
    return found


def test_a_compiler_of_the_users_sees_one_graph(ranks: Ranks) -> None:
    """With the collectives inside; opaque modules break it no oftener than they do without autopar."""
    first, second = ranks(inside_the_users_compile, 2, timeout=110.0)
    assert [same(*pair) for pair in zip(first.pop("buffers"), second.pop("buffers"), strict=True)].count(False) == 0
    for found in (first, second):
        assert found.pop("after no_sync") == []
        for name, (different, more_graphs, all_reduces, expected) in found.items():
            assert (name, different) == (name, [])
            assert more_graphs <= 0
            assert [count for count in all_reduces if count] == expected


def test_one_process_compiles_the_program() -> None:
    """Without other ranks nothing stands in the graph that would not be there anyway."""
    graphs = Graphs()
    model = autopar.parallelize(ZOO["mlp"].build(), "ddp", compile={"backend": graphs})
    for rows in (5, 5):
        model(torch.randn(rows, 6)).sum().backward()
    assert (graphs.forward, graphs.all_reduces) == (1, [0])


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """One sentence, and no traceback of the compiler's."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    model = autopar.parallelize(ZOO["mlp"].build(), "ddp", compile=True)
    with pytest.raises(LaunchError, match="compile=True needs a C"):
        model(torch.randn(5, 6))


def test_only_settings_of_torch_compile() -> None:
    """``compile="fast"`` would look as if it said something."""
    with pytest.raises(OptionError, match="compile is 'fast'"):
        autopar.parallelize(nn.Linear(2, 2), "ddp", compile="fast")
