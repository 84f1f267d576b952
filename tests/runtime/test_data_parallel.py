"""Training with ``data_parallel`` against the plain module on the whole batch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import autopar
from autopar import compat, replica_ops
from autopar.compilation import compile_program
from autopar.errors import ModelError
from autopar.replica_modules import run_replicas
from autopar.strategies import DataParallel
from tests.opaque import kept_whole

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """Tied and frozen parameters, a buffer that is read, and several kinds of output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.hidden.bias.requires_grad_(False)
        self.offset: torch.Tensor
        self.register_buffer("offset", torch.linspace(-1, 1, 6))

    def forward(
        self, tokens: torch.Tensor, *, targets: torch.Tensor | None = None, scale: float = 1.0
    ) -> dict[str, Any]:
        """tokens: (N, T) integers."""
        logits = self.head(torch.tanh(self.hidden(self.embed(tokens)) + self.offset) * scale)
        out = {"logits": logits, "scale": scale}
        if targets is not None:
            out["loss"] = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            out["correct"] = (logits.argmax(-1) == targets).sum()
        return out


class Doubling(torch.autograd.Function):
    """Nothing that a graph can hold: whoever uses it stays opaque."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Two x."""
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Two times the gradient."""
        return 2 * gradient


class Opaque(nn.Module):
    """A layer that cannot be captured, with a parameter and a buffer that forward writes."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features)
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, features)."""
        self.seen += len(x)
        return torch.tanh(self.linear(Doubling.apply(x)))


def _assert_same_step(
    model: nn.Module,
    loss: Callable[[Any], torch.Tensor],
    *args: Any,
    options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """One forward and backward of the plain module and of its parallel copy agree; returns the latter."""
    plain = copy.deepcopy(model)
    autopar.parallelize(model, "data_parallel", **{"replicas": 2, **(options or {})})
    expected, found = plain(*args, **kwargs), model(*args, **kwargs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    loss(expected).backward()
    loss(found).backward()
    for (name, one), other in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-6)
    return model


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [8, 5, 2, 1])
def test_outputs_and_gradients_are_those_of_the_whole_batch(size: int, replicas: int) -> None:
    """Also for uneven parts and for fewer samples than replicas."""
    _assert_same_step(_mlp(), lambda out: out.square().mean(), torch.randn(size, 5), options={"replicas": replicas})


def test_one_capture_serves_every_batch_size() -> None:
    """The last batch of an epoch is smaller."""
    model, x = _mlp(), torch.randn(8, 5)
    plain = copy.deepcopy(model)
    autopar.parallelize(model, "data_parallel", x, replicas=2)
    for size in (8, 3, 1, 7, 0):
        torch.testing.assert_close(model(x[:size]), plain(x[:size]))


def test_a_mean_loss_inside_the_model() -> None:
    """Weighted by samples: parts of 3 and 2. The dict, its constant and the count come back, too."""
    tokens, targets = torch.randint(0, 11, (5, 4)), torch.randint(0, 11, (5, 4))
    model = _assert_same_step(Net(), lambda out: out["loss"], tokens, targets=targets, scale=0.5)
    assert model(tokens, targets=targets, scale=0.5)["scale"] == 0.5


def test_a_sum_loss_inside_the_model() -> None:
    """The parts' sums add up."""

    class SumLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).square().sum()

    _assert_same_step(SumLoss(), lambda loss: loss, torch.randn(5, 5))


def test_another_kind_of_call_is_compiled_for_itself() -> None:
    """First without targets, then with: the outputs differ, and so do their rules."""
    model, tokens, targets = Net(), torch.randint(0, 11, (5, 4)), torch.randint(0, 11, (5, 4))
    plain = copy.deepcopy(model)
    autopar.parallelize(model, "data_parallel", replicas=2)
    torch.testing.assert_close(model(tokens)["logits"], plain(tokens)["logits"])
    found, expected = model(tokens, targets=targets), plain(tokens, targets=targets)
    torch.testing.assert_close(found, expected)


def test_frozen_parameters_get_no_gradient() -> None:
    """And the tied one gets the sum over both uses, over all replicas."""
    model = _assert_same_step(Net(), lambda out: out["logits"].square().sum(), torch.randint(0, 11, (4, 3)))
    assert isinstance(model, Net)
    assert model.hidden.bias.grad is None
    assert model.head.weight is model.embed.weight


def test_batch_norm_sees_its_part_and_keeps_the_statistics_of_replica_0() -> None:
    """As torch.nn.DataParallel: each part is normalised by itself."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    plain, other, x = copy.deepcopy(model), copy.deepcopy(model), torch.randn(5, 1, 8, 8)
    autopar.parallelize(model, "data_parallel", replicas=2)
    expected = torch.cat([plain(x[:3]), other(x[3:])])
    found = model(x)
    torch.testing.assert_close(found, expected)
    expected.square().mean().backward()
    found.square().mean().backward()
    for parameter, one, two in zip(model.parameters(), plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, one.grad + two.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()))


def test_batch_norm_in_eval_mode_is_exact() -> None:
    """The flag is read when the program runs, not when it was captured."""
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    autopar.parallelize(model, "data_parallel", torch.randn(6, 5), replicas=2)
    autopar.unparallelize(model.eval())
    _assert_same_step(model, lambda out: out.square().sum(), torch.randn(5, 5))


def test_dropout_draws_for_each_replica() -> None:
    """About half of everything is kept, and not the same half twice."""
    model = nn.Sequential(nn.Linear(4, 400), nn.Dropout(0.5))
    autopar.parallelize(model, "data_parallel", replicas=2)
    kept = model(torch.ones(2, 4)) != 0
    assert 0.4 < kept.float().mean() < 0.6
    assert not torch.equal(kept[0], kept[1])


def test_an_opaque_submodule_is_copied_for_each_replica() -> None:
    """Its parameters train on the whole batch; replica 0's buffer is the one that lasts."""
    model = nn.Sequential(nn.Linear(5, 6), Opaque(6), nn.Linear(6, 2))
    _assert_same_step(model, lambda out: out.square().mean(), torch.randn(5, 5))
    assert model.get_buffer("1.seen") == 3


def test_recurrent_modules_run_in_every_replica() -> None:
    """They hold their weights twice, as attributes and in a list."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.rnn(x)[0])

    _assert_same_step(Tagger(), lambda out: out.square().mean(), torch.randn(5, 7, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_submodule_runs_in_every_replica() -> None:
    """It is shared: torch offers no copy of it that shares parameters."""
    model, x = nn.Sequential(nn.Linear(5, 6), torch.jit.script(nn.Linear(6, 2))), torch.randn(5, 5)
    strategy = DataParallel(replicas=2)
    lowered = compile_program(model, (x,), {}, strategy).lowered
    torch.testing.assert_close(strategy.start(model).prepare(lowered)((x,), {}), model(x))


def test_a_model_that_is_opaque_as_a_whole() -> None:
    """It returns its own structure; what forward set on it comes from replica 0."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            hidden = Doubling.apply(self.linear(x))
            self.last = len(x)
            return {"hidden": hidden, "losses": [hidden.square().mean(), hidden.sum()], "count": 2}

    model = Whole()
    _assert_same_step(model, lambda out: out["losses"][0] + out["losses"][1], torch.randn(5, 4))
    assert model.last == 3
    assert model(torch.randn(1, 4))["count"] == 2


def test_inputs_that_require_gradients_get_them() -> None:
    """The split is differentiable."""
    model, x = _mlp(), torch.randn(5, 5, requires_grad=True)
    plain = copy.deepcopy(model)
    autopar.parallelize(model, "data_parallel", replicas=2)
    (found,) = torch.autograd.grad(model(x).square().sum(), x)
    (expected,) = torch.autograd.grad(plain(x).square().sum(), x)
    torch.testing.assert_close(found, expected)


def test_the_batch_may_be_at_another_dim() -> None:
    """Sequence first."""
    _assert_same_step(_mlp(), lambda out: out.square().sum(), torch.randn(7, 4, 5), options={"dim": 1})


def test_values_loaded_or_replaced_later_are_seen() -> None:
    """State lives in the user's module."""
    model, x = _mlp(), torch.randn(4, 5)
    autopar.parallelize(model, "data_parallel", x, replicas=2)
    other = _mlp()
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(x), other(x))
    model[0].weight = other[0].weight = nn.Parameter(torch.zeros(16, 5))
    torch.testing.assert_close(model(x), other(x))


def test_an_optimizer_step_trains_the_users_parameters() -> None:
    """Two steps of both stay together."""
    model, x = _mlp(), torch.randn(6, 5)
    plain = copy.deepcopy(model)
    autopar.parallelize(model, "data_parallel", replicas=3)
    for net in (model, plain):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(list(model.parameters()), list(plain.parameters()))


def test_torch_gather_makes_a_vector_of_scalars() -> None:
    """With a warning, as torch.nn.DataParallel."""

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).mean()

    model, x = Loss(), torch.randn(4, 5)
    plain = copy.deepcopy(model)
    autopar.parallelize(model, "data_parallel", replicas=2, gather="torch")
    with pytest.warns(UserWarning, match="gathered into a vector"):
        found = model(x)
    torch.testing.assert_close(found, torch.stack([plain(x[:2]), plain(x[2:])]))


def test_inputs_of_unequal_batches_are_refused() -> None:
    """At the call, since the graph was made for equal ones."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 1)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + self.linear(y)

    model = autopar.parallelize(Pair(), "data_parallel", replicas=2)
    model(torch.randn(4, 5), torch.randn(4, 5))
    broadcast = model(torch.randn(4, 5), torch.randn(1, 5))
    assert broadcast.shape == (4, 1)
    with pytest.raises(ModelError, match="Input 1 has 3 samples along dim 0 where the batch has 4"):
        model(torch.randn(4, 5), torch.randn(3, 5))


def test_an_error_names_its_replica() -> None:
    """The class stays, so that the user's ``except`` still works; the traceback is in the text."""

    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.check = kept_whole(_Refuses())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.check(self.linear(x), x)

    model = autopar.parallelize(Picky(), "data_parallel", torch.ones(4, 2), replicas=2)
    with pytest.raises(
        ZeroDivisionError, match=r"(?s)Caught ZeroDivisionError in replica 1 on device cpu.*Traceback.*there is a zero"
    ):
        model(torch.tensor([[1.0, 1], [1, 1], [1, 1], [1, 0]]))


class _Refuses(nn.Module):
    def forward(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Refuses zeros."""
        if (x == 0).any():
            raise ZeroDivisionError("there is a zero")
        return hidden


def test_replicas_of_several_devices_run_in_threads_with_the_callers_modes() -> None:
    """Gradient mode and autocast are per thread, and must be carried over."""
    seen: dict[int, tuple[Any, ...]] = {}
    together = threading.Barrier(2, timeout=20)

    def forward(index: int) -> None:
        together.wait()
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        seen[index] = (threading.get_ident(), torch.is_grad_enabled(), *autocast)

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        run_replicas([forward, forward], [(0,), (1,)], ["cpu", "cpu:0"])
    assert {modes[1:] for modes in seen.values()} == {(False, True, torch.bfloat16)}
    assert len({modes[0] for modes in seen.values()} | {threading.get_ident()}) == 3


def test_replicas_of_several_devices_train_one_model() -> None:
    """The path of several devices, on two names of the CPU: copies are differentiable, buffers cloned."""
    model = nn.Sequential(nn.Linear(5, 6), Opaque(6), nn.BatchNorm1d(6))
    model[2].eval()
    _assert_same_step(
        model,
        lambda out: out.square().mean(),
        torch.randn(5, 5),
        options={"replicas": None, "devices": ["cpu", "cpu:0"]},
    )
    assert model.get_buffer("1.seen") == 3


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    """The first replica's that failed."""

    def forward(index: int) -> None:
        raise KeyError(index)

    with pytest.raises(KeyError, match="Caught KeyError in replica 0 on device cpu"):
        run_replicas([forward, forward], [(0,), (1,)], ["cpu", "cpu:0"])


def test_replicas_that_return_different_structures_are_refused() -> None:
    """Nothing could be put together."""
    chunks = replica_ops.Chunks(((), ()), (1, 1))
    x = torch.ones(1)
    with pytest.raises(ModelError, match="different structures"):
        replica_ops.gather([(x,), (x, x)], chunks, combine=("concat",))
    with pytest.raises(ModelError, match="returned 2 tensors where the plan has 1"):
        replica_ops.gather([(x, x), (x, x)], chunks, combine=("concat",))
    with pytest.raises(ModelError, match="Output 1 is a int that differs"):
        replica_ops.gather([(x, 1), (x, 2)], chunks, combine=("concat",))


def test_a_replica_shares_parameters_and_not_buffers() -> None:
    """The copy of a module that torch calls a replica."""
    module = nn.BatchNorm1d(3)
    replica = compat.replica_of_module(module)
    assert replica._buffers is not module._buffers
    assert not list(replica.parameters())


@pytest.mark.gpu
@needs_cuda
def test_replicas_on_the_cpu_and_on_cuda_train_one_model() -> None:
    """Copies across devices are differentiable; outputs and gradients come to the first device."""
    model = nn.Sequential(nn.Linear(5, 6), Opaque(6), nn.BatchNorm1d(6), nn.Linear(6, 2)).cuda()
    model[2].eval()
    _assert_same_step(
        model,
        lambda out: out.square().mean(),
        torch.randn(5, 5).cuda(),
        options={"replicas": None, "devices": ["cuda:0", "cpu"]},
    )
    assert {p.grad.device.type for p in model.parameters() if p.grad is not None} == {"cuda"}


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_all_cuda_devices_are_used_by_default() -> None:
    """One replica for each."""
    model = autopar.parallelize(_mlp().cuda(), "data_parallel", torch.randn(8, 5).cuda())
    plan = autopar.api.attachment_of(model).compilation.plan  # type: ignore[union-attr]
    assert plan.options["replicas"] == torch.cuda.device_count()
