"""Graphs inside of what stays opaque: found, exact, and gone after each call."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autopar
from autopar.capture import climb
from autopar.capture.ladder import capture
from autopar.islands import StandIn, eager_parameters, stand_ins
from autopar.program import Program
from tests.capture.islands import Block, Handed, Masked, Model, Nested, Shared, ValueLoop, WholeLoop

MODELS: dict[str, Callable[[], nn.Module]] = {
    "a loop on values": lambda: Model(ValueLoop()),
    "the whole model": WholeLoop,
    "a mask of NumPy's": lambda: Model(Masked()),
    "called twice": lambda: Model(Shared()),
    "nested": lambda: Model(Nested()),
    "most are none": lambda: Model(Handed()),
}


def batch(model: nn.Module, rows: int = 3) -> torch.Tensor:
    """Random rows of the size that the model takes."""
    torch.manual_seed(rows)
    return torch.randn(rows, 6 if isinstance(model, WholeLoop) else 4)


def trained(model: nn.Module, x: torch.Tensor, seed: int) -> list[Any]:
    """Everything that a step from a seed leaves behind."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    model.zero_grad()
    given = x.clone().requires_grad_()
    result = model(given)
    result.square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    return [result, given.grad, *gradients, *model.buffers(), torch.get_rng_state(), torch.tensor(np.random.rand())]


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether both have the same bits."""
    pairs = zip(one, other, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def served(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Gets, for each call of an island's module from now on, whether the graph served it."""
    found: list[bool] = []
    serves = StandIn.serves

    def noted(self: StandIn, args: Any, kwargs: Any) -> bool:
        found.append(serves(self, args, kwargs))
        return found[-1]

    monkeypatch.setattr(StandIn, "serves", noted)
    return found


def standing(model: nn.Module) -> list[str]:
    """Modules with anything in the place of their forward."""
    return [path for path, module in model.named_modules() if "forward" in vars(module)]


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    """All models, captured once."""
    return {name: capture(build(), (batch(build()),)) for name, build in MODELS.items()}


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("a loop on values", ["part.blocks.0", "part.blocks.1"]),
        ("the whole model", ["blocks.0", "blocks.1"]),
        ("a mask of NumPy's", ["part.encoder"]),
        ("called twice", ["part.block"]),
        ("nested", ["part.inner"]),
    ],
)
def test_the_largest_submodules_that_are_graphs_are_islands(
    programs: dict[str, Program], name: str, paths: list[str]
) -> None:
    """Each is a program of its own; what is inside one is not looked at."""
    found = programs[name].islands
    assert list(found) == paths
    assert all(island.program.front_end == "symbolic" for island in found.values())


def test_an_island_has_islands_where_a_part_of_it_is_opaque(programs: dict[str, Program]) -> None:
    """The same rule holds inside."""
    (island,) = programs["nested"].islands.values()
    assert list(island.program.islands) == ["1.blocks.0"]
    eager = eager_parameters(programs["nested"])
    assert eager == {programs["nested"].model.get_parameter("part.inner.1.scale")}


def test_what_is_no_island_is_said_with_the_reason(programs: dict[str, Program]) -> None:
    """An object, a list that is written to, a checkpoint, a block without gradients, a module that is not called."""
    said = " ".join(remark.message for remark in programs["most are none"].remarks)
    for text in (
        "part.giving (Giving) is no island: it changes a container that it is given",
        "part.asked (Asked) is no island: it takes a Wish as an argument",
        "part.again (Block) is no island: it runs inside a checkpoint",
        "part.fixed (Block) is no island: it runs without gradients",
        "part.unused is not tried as an island, because no run calls it",
    ):
        assert text in said
    assert set(programs["most are none"].islands) == {"part.asked.fc", "part.giving.fc"}


def test_the_remark_says_how_much_is_inside(programs: dict[str, Program]) -> None:
    """The opaque call's reason stands beside what its islands hold."""
    (remark,) = [one for one in programs["a loop on values"].remarks if one.kind == "missed"]
    whole = 4 * sum(parameter.numel() for parameter in ValueLoop().parameters())
    assert remark.message == (
        "part (ValueLoop) stays one opaque call: its Python control flow depends on a tensor; "
        f"2 islands inside hold {1 - 24 / whole:.1%} of its bytes."
    )


@pytest.mark.parametrize("name", MODELS)
def test_steps_have_the_bits_of_eager(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, all gradients, buffers and random streams: with another batch size, in eval, and back."""
    torch.manual_seed(0)
    plain = MODELS[name]()
    mine = copy.deepcopy(plain)
    autopar.parallelize(mine, "ddp", batch(plain))
    calls = served(monkeypatch)
    for step, (rows, mode) in enumerate([(3, True), (5, True), (3, False), (3, True)]):
        plain.train(mode)
        mine.train(mode)
        x = batch(plain, rows)
        assert same(trained(mine, x, step), trained(plain, x, step)), f"step {step}"
        if step != 2:
            assert any(calls), "no graph ran"
        calls.clear()
    assert standing(mine) == []


def test_a_call_that_the_graph_is_not_for_gets_the_forward_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another dtype, another mode, a hook, autocast, no gradients, another thread: never a wrong graph."""
    model = Model(ValueLoop())
    program = capture(model, (batch(model),))
    island, _ = stand_ins(program)
    x = torch.randn(3, 6, requires_grad=True)
    island.begin()
    assert island.serves((x,), {})
    assert not island.serves((x.double(),), {})
    assert not island.serves((x[0],), {})
    assert not island.serves((), {"x": x})
    with torch.no_grad():
        assert not island.serves((x,), {})
    with torch.autocast("cpu", torch.bfloat16):
        assert not island.serves((x,), {})
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
        assert not island.serves((x,), {})
    island.module.eval()
    assert not island.serves((x,), {})
    island.module.train()
    hook = island.module.fc.register_forward_hook(lambda *given: None)
    assert not island.serves((x,), {})
    hook.remove()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(island.serves((x,), {})))
    thread.start()
    thread.join()
    assert answers == [False]
    assert island.serves((x,), {})
    island.end()
    assert standing(model) == []


def test_nothing_is_left_where_an_island_raises() -> None:
    """Not while it is captured, and not while it runs."""
    model = autopar.parallelize(Model(ValueLoop()), "ddp", torch.randn(3, 4))
    assert isinstance(model.part, ValueLoop)
    block = model.part.blocks[0]
    assert isinstance(block, Block)
    block.fc.weight.data = torch.zeros(6, 5)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.randn(3, 4))
    assert standing(model) == []


_copies: list[nn.Module] = []


def _copy(module: nn.Module, args: Any) -> None:
    """A forward hook that copies its module, as a forward does that keeps an average of its weights."""
    _copies.append(copy.deepcopy(module))


def test_the_model_stays_the_users() -> None:
    """Copies, pickles and state dicts know nothing of islands, also while one runs; a copy computes by itself."""
    model = Model(ValueLoop())
    names = list(model.state_dict())
    autopar.parallelize(model, "ddp", batch(model))
    model.part.register_forward_pre_hook(_copy)
    model(batch(model)).sum().backward()
    assert list(model.state_dict()) == names
    assert all(isinstance(one, Model) for one in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)))
    autopar.unparallelize(model)
    assert standing(model) == []
    inside = _copies.pop()
    with torch.no_grad():
        for parameter in inside.parameters():
            parameter.zero_()
    assert not inside.train()(torch.randn(3, 6)).any()


def test_a_difference_with_islands_in_place_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate of the whole program comes last; the remarks say what differed."""
    islands = climb.Climb.island

    def wrong(self: climb.Climb, module: nn.Module, call: Any) -> Any:
        program = islands(self, module, call)
        assert isinstance(program, Program)
        (output,) = program.find("output")
        with program.graph.inserting_before(output):
            output.args = ((program.graph.call_function(torch.neg, (output.args[0][0],)),),)  # type: ignore[index]
        program.graph_module.recompile()
        return program

    monkeypatch.setattr(climb.Climb, "island", wrong)
    program = capture(Model(ValueLoop()), (torch.randn(3, 4),))
    assert not program.islands
    assert any("are not used, because output 0 differed" in remark.message for remark in program.remarks)


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not tried for want of time is said."""
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr("autopar.capture.island_search.time.monotonic", lambda: next(clock))
    program = capture(Model(ValueLoop(4)), (torch.randn(3, 4),))
    assert 0 < len(program.islands) < 4
    assert any("looking for islands took too long" in remark.message for remark in program.remarks)
