"""The symbolic front end: what becomes a graph, and that it is the same computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autopar.capture.ladder import capture
from autopar.program import info
from tests.capture.models import Mapped, Pair, Part, Trunk, dropout, gelu_mlp, run, x


def targets(program: Any) -> list[str]:
    """Opcode and target of each node, in order."""
    return [f"{node.op} {getattr(node.target, '__name__', node.target)}" for node in program.graph.nodes]


def test_user_modules_are_traced_through() -> None:
    """The graph holds the calls of torch.nn modules, under their full paths."""
    program = capture(Trunk(nn.Sequential(gelu_mlp(), nn.Linear(2, 4))), (x(),))
    assert program.front_end == "symbolic"
    assert [node.target for node in program.find("call_module")] == [
        "first", "middle.0.0", "middle.0.1", "middle.0.2", "middle.1", "last",
    ]  # fmt: skip


def test_nodes_know_their_module_and_line() -> None:
    """The line is the user's that called, not one of fx's."""
    program = capture(Trunk(nn.ReLU()), (x(),))
    (node,) = program.find("call_module", "middle")
    assert info(node).module_path == "middle"
    assert str(info(node).source).startswith(__file__.replace("test_symbolic", "models"))


def test_any_batch_size_runs_through_the_graph() -> None:
    """Sizes are read from the input when the graph runs."""
    model = Trunk(Part(lambda self, x: self.fc(x.view(x.shape[0], -1)) + torch.zeros(x.size(0), 4)))
    program = capture(model, (x(3),))
    assert program.front_end == "symbolic"
    assert torch.equal(run(program, x(7)), model(x(7)))


def test_nested_inputs_flow_and_outputs_keep_their_structure() -> None:
    """Dicts, lists, namedtuples, None and plain values on both sides."""
    model, batch = Mapped(), {"x": x(), "more": [x()]}
    program = capture(model, (batch,), {"mask": torch.ones(4)})
    found, expected = run(program, batch, mask=torch.ones(4)), model(batch, mask=torch.ones(4))
    assert isinstance(found["pair"], Pair)
    assert torch.equal(found["pair"].right, expected["pair"].right)
    assert (found["none"], found["count"]) == (None, 3)
    assert program.signature.inputs == ("batch_0", "batch_1", "mask")


def test_constants_are_pinned() -> None:
    """An argument that is no tensor is part of the graph and of the signature."""
    program = capture(Mapped(), ({"x": x(), "more": [x()]}, 2.0), {"mask": None})
    assert sorted(map(str, program.signature.constants.values())) == ["2.0", "None"]
    assert "* 2.0" in program.code


def test_signature_gives_the_call_back() -> None:
    """``call`` undoes ``flatten``."""
    program = capture(Mapped(), ({"x": x(), "more": [x()]}, 2.0))
    leaves = program.signature.flatten(({"x": x(), "more": [x()]}, 2.0), {})
    args, kwargs = program.signature.call(leaves)
    assert args[1] == 2.0
    assert args[0]["x"] is leaves[0]
    assert kwargs == {}


@pytest.mark.parametrize(
    "factory",
    [
        lambda x: torch.arange(x.shape[1]).float(),
        lambda x: torch.zeros(x.shape[0], 4),
        lambda x: torch.ones(4) * 2,
        lambda x: torch.full((4,), 3.0),
        lambda x: torch.tensor([1.0, 2.0, 3.0, 4.0]),
        lambda x: torch.eye(4)[0],
        lambda x: torch.zeros_like(x),
        lambda x: x.new_ones(4),
    ],
    ids=["arange", "zeros", "ones", "full", "tensor", "eye", "zeros_like", "new_ones"],
)
def test_tensor_factories_become_nodes(factory: Any) -> None:
    """They are computed anew at each run, for each batch size."""
    model = Trunk(Part(lambda self, x: self.fc(x) + factory(x)))
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert not [remark for remark in program.remarks if remark.kind == "missed"]
    assert torch.equal(run(program, x(5)), model(x(5)))


def test_random_numbers_are_drawn_at_each_run() -> None:
    """``torch.randn`` is not baked in, and the stream is eager's."""
    model = Trunk(Part(lambda self, x: self.fc(x) + torch.randn(4) + torch.rand(x.shape[0], 1)))
    program = capture(model, (x(),))
    torch.manual_seed(1)
    first, second = run(program, x()), run(program, x())
    torch.manual_seed(1)
    assert torch.equal(first, model(x()))
    assert torch.equal(second, model(x()))
    assert not torch.equal(first, second)


def test_functional_dropout_draws_like_eager() -> None:
    """Same seed, same mask."""
    model = Trunk(Part(lambda self, x: dropout(self.fc(x))))
    program = capture(model, (x(),))
    torch.manual_seed(3)
    found = run(program, x())
    torch.manual_seed(3)
    assert torch.equal(found, model(x()))


def test_reads_of_the_training_flag_are_recorded() -> None:
    """The graph is exact for that flag only, and says so."""
    model = Trunk(Part(lambda self, x: F.dropout(self.fc(x), 0.5, self.training)))
    program = capture(model, (x(),))
    assert program.mode_dependent == {"middle": True}


def test_flags_read_in_an_opaque_region_do_not_matter() -> None:
    """A module that stays whole reads its flag when it runs."""

    def reads_and_branches(self: Part, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.sum() > 0:
            return self.fc(x)
        return x

    assert capture(Trunk(Part(reads_and_branches)), (x(),)).mode_dependent == {}


def test_flag_of_a_foreign_module_is_refused() -> None:
    """Nobody could compare it at the next call."""
    outside = [nn.Dropout()]
    program = capture(Trunk(Part(lambda self, x: self.fc(x) if outside[0].training else x)), (x(),))
    assert "train/eval flag of a Dropout that is no submodule" in program.remarks[0].message


def test_shared_submodule_is_called_twice() -> None:
    """Both calls have the same target; its parameters are there once."""
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    program = capture(model, (x(),))
    assert [node.target for node in program.find("call_module")] == ["0", "1", "0"]
    assert list(program.trainable()) == ["0.weight", "0.bias"]


def test_module_reached_by_two_paths_has_its_first_one() -> None:
    """An alias is not a second module."""
    model = Trunk(nn.Linear(4, 4))
    model.alias = model.middle
    program = capture(model, (x(),))
    assert [node.target for node in program.find("call_module")] == ["first", "middle", "last"]


def test_tied_weights_are_one_parameter() -> None:
    """Reads of either name are reads of the first one."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return F.linear(self.embed(ids), self.head.weight)

    program = capture(Tied(), (torch.tensor([1, 2]),))
    assert list(program.trainable()) == ["embed.weight"]
    assert [node.target for node in program.find("get_attr")] == ["embed.weight"]


def test_read_in_an_erased_region_is_read_again() -> None:
    """A parameter that a refused region read first is still there for the next region."""

    class Reads(nn.Module):
        def __init__(self, weight: nn.Parameter, *, refuse: bool) -> None:
            super().__init__()
            self.weight, self.refuse = weight, refuse

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * self.weight
            return y if not self.refuse or y.sum() > 0 else -y

    weight = nn.Parameter(torch.ones(4))
    model = nn.Sequential(Reads(weight, refuse=True), Reads(weight, refuse=False))
    program = capture(model, (x(),))
    assert targets(program)[1:4] == ["get_attr 0.weight", "call_module 0", "call_function mul"]


@pytest.mark.parametrize("kind", ["list", "dict", "slice"])
def test_containers_of_modules(kind: str) -> None:
    """ModuleList, ModuleDict and slices of Sequential are walked in Python."""

    class Walks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.list = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.dict = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.ReLU()})
            self.slice = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = getattr(self, kind)
            for layer in found.values() if kind == "dict" else found[:2]:
                x = layer(x)
            return x

    model = Walks()
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert torch.equal(run(program, x(5)), model(x(5)))


def test_in_place_operators_keep_other_names_of_a_tensor() -> None:
    """``y += 1`` changes every name of y; fx alone would make a new tensor."""

    def adds(self: Part, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        z = y
        y += 1
        return y + z

    model = Trunk(Part(adds))
    program = capture(model, (x(),), gate=False)
    assert torch.equal(run(program, x()), model(x()))


def test_item_assignment_is_recorded() -> None:
    """A tensor made in forward may be filled piece by piece."""

    def fills(self: Part, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        y[:, 1:] = self.fc(x)[:, 1:]
        return y

    model = Trunk(Part(fills))
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert torch.equal(run(program, x(2)), model(x(2)))


def test_batch_norm_functional_on_own_buffers_is_a_write() -> None:
    """``F.batch_norm`` updates the running statistics that it is given."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("var", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.batch_norm(self.fc(x), self.mean, self.var, training=True)

    program = capture(Trunk(Norm()), (x(),))
    assert "middle" in [node.target for node in program.find("call_module")]


def test_parameters_of_a_plain_list_are_found() -> None:
    """``self.parameters()`` hands out parameters themselves, not stand-ins."""

    def penalised(self: Part, x: torch.Tensor) -> torch.Tensor:
        for parameter in self.parameters():
            if parameter.dim() == 1:
                x = x + parameter
        return x

    model = Trunk(Part(penalised))
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert "middle.weight" in [node.target for node in program.find("get_attr")]


def test_other_threads_are_not_disturbed() -> None:
    """A data loader's thread that makes tensors while the model is traced gets tensors."""
    import threading

    made: list[Any] = []

    def starts_thread(self: Part, x: torch.Tensor) -> torch.Tensor:
        thread = threading.Thread(target=lambda: made.append((torch.zeros(2), nn.Linear(2, 2)(torch.ones(2)))))
        thread.start()
        thread.join()
        return self.fc(x)

    program = capture(Trunk(Part(starts_thread)), (x(),), gate=False)
    zeros, out = made[0]
    assert type(zeros) is torch.Tensor
    assert type(out) is torch.Tensor
    assert "zeros" not in program.code


def test_torch_is_whole_again_after_capture() -> None:
    """Whatever was watched while tracing is what it was before."""
    before = (torch.zeros, torch.autograd.Function.apply, torch.autograd.graph.saved_tensors_hooks.__enter__)
    capture(gelu_mlp(), (x(),))
    after = (torch.zeros, torch.autograd.Function.apply, torch.autograd.graph.saved_tensors_hooks.__enter__)
    assert before == after
    assert "training" not in vars(nn.Module)
