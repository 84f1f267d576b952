"""Every way to run backward under ``ddp``: none may leave the ranks with different gradients in silence."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

import autopar
from autopar.errors import RuntimeStateError
from tests.runtime.pairs import Ranks, all_same, differences, local_mean, make_pair, same, seeded, twin_of
from tests.runtime.zoo import ZOO, ConvNet, TwoHeads

# Every region of "graph" is traced; "hooks" has gradients that only hooks can gather.
both_routes = pytest.mark.parametrize("name", ["mlp", "opaque_submodule"])


def _loss(name: str, model: nn.Module, step: int = 0) -> torch.Tensor:
    seeded(step)
    return ZOO[name].loss(model(*ZOO[name].batch()))


def two_forwards_one_backward(name: str) -> list[str]:
    """Names of what differs from the mean of the local gradients."""
    mine, twin = twin_of(ZOO[name].build)
    for model in (mine, twin):
        (_loss(name, model, 0) + _loss(name, model, 1)).backward()
    local_mean(twin)
    return differences(mine, twin)


@pytest.mark.parametrize("name", ["mlp", "opaque_submodule", "transformer"])
def test_two_forwards_then_one_backward(ranks: Ranks, name: str) -> None:
    """The gradient of the sum of both losses is averaged once."""
    assert ranks(two_forwards_one_backward, 2, name) == [[], []]


def batch_norm_twice() -> list[str]:
    """Names of what differs from DDP after two forwards and one backward with batch norms."""
    mine, twin, theirs = make_pair("conv_bn")
    for model in (mine, theirs):
        (_loss("conv_bn", model, 0) + _loss("conv_bn", model, 1)).backward()
    return differences(mine, twin)


def test_two_forwards_with_batch_norm_then_one_backward(ranks: Ranks) -> None:
    """Buffers that are kept equal between the forwards do not disturb backward."""
    assert ranks(batch_norm_twice, 2) == [[], []]


def two_forwards_two_backwards(name: str) -> list[str]:
    """Names of what differs from the mean of the local sums."""
    mine, twin = twin_of(ZOO[name].build)
    for model in (mine, twin):
        losses = [_loss(name, model, 0), _loss(name, model, 1)]
        for loss in losses:
            loss.backward()
    local_mean(twin)
    return [
        n
        for (n, p), q in zip(mine.named_parameters(), twin.parameters(), strict=True)
        if not torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-7)
    ]


@both_routes
def test_two_forwards_then_two_backwards(ranks: Ranks, name: str) -> None:
    """The second backward is synchronised as the first (torch's DDP leaves it local in silence)."""
    assert ranks(two_forwards_two_backwards, 2, name) == [[], []]


def second_backward(name: str) -> list[str]:
    """Names of what differs from the mean of twice the local gradients."""
    mine, twin = twin_of(ZOO[name].build)
    for model in (mine, twin):
        loss = _loss(name, model)
        loss.backward(retain_graph=True)
        loss.backward()
    local_mean(twin)
    return [
        n
        for (n, p), q in zip(mine.named_parameters(), twin.parameters(), strict=True)
        if not torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-7)
    ]


@pytest.mark.parametrize("name", ["mlp", "opaque_submodule", "huge"])
def test_second_backward_through_one_forward(ranks: Ranks, name: str) -> None:
    """``retain_graph`` and a second backward: both are synchronised."""
    assert ranks(second_backward, 2, name) == [[], []]


def autograd_grad(name: str) -> tuple[bool, bool, list[str]]:
    """Whether the result is the mean, whether ``.grad`` stayed None, and what a normal step gets wrong after."""
    mine, twin = twin_of(ZOO[name].build)
    found = torch.autograd.grad(_loss(name, mine), list(mine.parameters()))
    untouched = all(p.grad is None for p in mine.parameters())
    _loss(name, twin).backward()
    local_mean(twin)
    right = all_same(found, [p.grad for p in twin.parameters()])
    _loss(name, mine).backward()
    return right, untouched, differences(mine, twin)


def test_autograd_grad_gives_the_mean(ranks: Ranks) -> None:
    """``torch.autograd.grad`` returns averaged gradients and leaves ``.grad`` alone."""
    assert ranks(autograd_grad, 2, "mlp") == [(True, True, [])] * 2


def autograd_grad_refusal() -> str:
    """What ``torch.autograd.grad`` on a parameter inside an opaque module raises."""
    mine, _ = twin_of(ZOO["opaque_submodule"].build)
    with pytest.raises(RuntimeStateError) as caught:
        torch.autograd.grad(_loss("opaque_submodule", mine), list(mine.parameters()))
    return str(caught.value)


def test_autograd_grad_into_an_opaque_module_is_refused(ranks: Ranks) -> None:
    """It would return this rank's own gradients, so it says that it cannot, and what to do."""
    for text in ranks(autograd_grad_refusal, 2):
        assert "opaque module" in text
        assert "backward()" in text


def forward_only_on_rank_0() -> list[str]:
    """Names of what differs after rank 0 alone ran a training forward without a backward."""
    mine, twin = twin_of(ZOO["conv_bn"].build)
    batch = ZOO["conv_bn"].batch
    mine(*batch()).square().mean().backward()
    if dist.get_rank() == 0:
        mine(*batch())
    mine.zero_grad()
    seeded()
    mine(*batch()).square().mean().backward()
    seeded()
    twin(*batch()).square().mean().backward()
    local_mean(twin)
    return differences(mine, twin)


def test_a_training_forward_on_one_rank_alone_keeps_the_ranks_in_step(ranks: Ranks) -> None:
    """Buffers are sent with backward, which ranks have in common, not with forward."""
    assert ranks(forward_only_on_rank_0, 2) == [[]] * 2


def input_gradient_on_one_rank() -> list[str]:
    """Names of what differs after rank 0 alone asked for the gradient of its input."""
    mine, twin = twin_of(ZOO["mlp"].build)
    mine(*ZOO["mlp"].batch())
    if dist.get_rank() == 0:
        x = torch.randn(5, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(mine(x).sum(), [x])
        assert gradient.shape == x.shape
    for model in (mine, twin):
        _loss("mlp", model).backward()
    local_mean(twin)
    return differences(mine, twin)


def test_gradient_of_inputs_sends_nothing(ranks: Ranks) -> None:
    """``autograd.grad`` with respect to inputs needs no other rank."""
    assert ranks(input_gradient_on_one_rank, 2) == [[], []]


def gradient_penalty() -> list[str]:
    """Names of what differs from the mean of the local gradients of a penalised loss."""
    mine, twin = twin_of(ZOO["mlp"].build)
    for model in (mine, twin):
        loss = _loss("mlp", model)
        slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        (loss + sum(slope.square().sum() for slope in slopes)).backward()
    local_mean(twin)
    return differences(mine, twin)


def test_double_backward(ranks: Ranks) -> None:
    """A gradient penalty (``create_graph``) trains on the mean of the local gradients."""
    assert ranks(gradient_penalty, 2) == [[], []]


def _triple(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(3)


def hooked(kind: str, name: str) -> list[str]:
    """Names of what differs from DDP when the user has hooks on parameters."""
    mine, twin, theirs = make_pair(name)
    for model in (mine, twin):
        for parameter in model.parameters():
            if kind == "tensor":
                parameter.register_hook(lambda gradient: gradient * 2)
            else:
                parameter.register_post_accumulate_grad_hook(_triple)
    for model in (mine, theirs):
        for step in range(2):
            model.zero_grad()
            _loss(name, model, step).backward()
    return differences(mine, twin)


@both_routes
@pytest.mark.parametrize("kind", ["tensor", "post_accumulate"])
def test_hooks_of_the_user_see_what_they_see_under_ddp(ranks: Ranks, kind: str, name: str) -> None:
    """Tensor hooks and post-accumulate hooks on parameters work on the local gradient."""
    assert ranks(hooked, 2, kind, name) == [[], []]


class _Branches(nn.Module):
    """Uses one of two layers, as its input says."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.never = nn.Linear(6, 2), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) if float(x.detach().sum()) > 0 else self.right(x)


class _WithBranches(nn.Module):
    """The branches below a traceable root."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branches = nn.Linear(6, 6), _Branches()

    def forward(self, x: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return self.first(x).square().mean() + self.branches(up).square().mean()


def rank_dependent_branch() -> tuple[bool, bool]:
    """Whether gradients are the mean over the ranks that used a layer, and None where none did."""
    mine, twin = twin_of(_WithBranches)
    sign = 1.0 if dist.get_rank() == 0 else -1.0
    for model in (mine, twin):
        seeded()
        model(torch.randn(5, 6), sign * torch.rand(5, 6)).backward()
    unused = all(p.grad is None for p in mine.branches.never.parameters())  # type: ignore[union-attr]
    local_mean(twin)
    pairs = zip(mine.named_parameters(), twin.parameters(), strict=True)
    return all(same(p.grad, q.grad) for (name, p), q in pairs if "never" not in name), unused


def test_ranks_that_use_different_branches_of_an_opaque_module(ranks: Ranks) -> None:
    """A rank that did not use a layer contributes zeros; what no rank used keeps None."""
    assert ranks(rank_dependent_branch, 2) == [(True, True)] * 2


def left_out_output() -> tuple[bool, list[bool]]:
    """Whether the used parameters are right, and whether the others' ``.grad`` is None."""
    mine, twin = twin_of(TwoHeads)
    for model in (mine, twin):
        seeded()
        model(torch.randn(5, 6))["left"].square().mean().backward()
    unused = [p.grad is None for p in mine.right.parameters()]  # type: ignore[union-attr]
    local_mean(twin)
    return all(n.startswith("right") for n in differences(mine, twin)), unused


def test_output_that_is_left_out_of_the_loss(ranks: Ranks) -> None:
    """Its parameters keep None, in a bucket that others share; the others are right."""
    assert ranks(left_out_output, 2) == [(True, [True, True])] * 2


class _WithDeadLayer(nn.Module):
    """A layer from which no path leads to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.dead = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.dead(x)
        return self.used(x)


def dead_layer() -> tuple[bool, list[bool]]:
    """Whether the used layer is right, and whether the dead one's ``.grad`` is None."""
    mine, twin = twin_of(_WithDeadLayer)
    for model in (mine, twin):
        seeded()
        model(torch.randn(5, 6)).square().mean().backward()
    dead = [p.grad is None for p in mine.dead.parameters()]  # type: ignore[union-attr]
    local_mean(twin)
    return same(mine.used.weight.grad, twin.used.weight.grad), dead  # type: ignore[union-attr]


def test_parameters_without_a_path_keep_none(ranks: Ranks) -> None:
    """What no output depends on gets no gradient and disturbs nothing."""
    assert ranks(dead_layer, 2) == [(True, [True, True])] * 2


def kept_gradients(name: str) -> bool:
    """Whether gradient tensors that the user keeps have the same values two steps later."""
    mine, _ = twin_of(ZOO[name].build)
    kept = []
    for step in range(3):
        mine.zero_grad()
        _loss(name, mine, step).backward()
        kept.append([(p.grad, p.grad.clone()) for p in mine.parameters()])
    return all(torch.equal(now, then) for step in kept for now, then in step)


@pytest.mark.parametrize("name", ["mlp", "opaque_submodule", "huge"])
def test_gradients_that_the_user_keeps_are_never_overwritten(ranks: Ranks, name: str) -> None:
    """An old ``p.grad`` object is the user's: later steps write elsewhere."""
    assert ranks(kept_gradients, 2, name) == [True, True]


def backward_that_raises(name: str) -> list[str]:
    """Names of what is wrong in a normal step after a backward that raised on both ranks."""
    mine, twin = twin_of(ZOO[name].build)

    def fail(gradient: torch.Tensor) -> None:
        raise ValueError("stop here")

    _loss(name, mine).backward()
    mine.zero_grad()
    handle = next(mine.parameters()).register_hook(fail)
    with pytest.raises(ValueError, match="stop here"):
        _loss(name, mine).backward()
    handle.remove()
    mine.zero_grad()
    for model in (mine, twin):
        _loss(name, model, 1).backward()
    local_mean(twin)
    return differences(mine, twin)


@both_routes
def test_step_after_a_backward_that_raised(ranks: Ranks, name: str) -> None:
    """An exception in backward leaves nothing behind that the next step could trip over."""
    assert ranks(backward_that_raises, 2, name) == [[], []]


def partial_backward() -> tuple[list[bool], list[str]]:
    """Which parameters got a gradient from ``backward(inputs=...)``, and what is wrong in them."""
    mine, twin = twin_of(ZOO["mlp"].build)
    for model in (mine, twin):
        _loss("mlp", model).backward(inputs=[model[2].weight])  # type: ignore[index]
    filled = [p.grad is not None for p in mine.parameters()]
    local_mean(twin)
    return filled, [] if same(mine[2].weight.grad, twin[2].weight.grad) else ["2.weight"]  # type: ignore[index]


def test_backward_into_chosen_parameters(ranks: Ranks) -> None:
    """``backward(inputs=[p])`` fills p alone, with the mean."""
    assert ranks(partial_backward, 2) == [([False, False, True, False, False, False], [])] * 2


def evaluation_on_one_rank() -> list[str]:
    """Names of what is wrong in training steps between evaluations on rank 0 alone."""
    mine, twin = twin_of(ConvNet)
    found = []
    for step in range(2):
        if dist.get_rank() == 0:
            with torch.no_grad():
                mine.eval()(torch.randn(4, 3, 8, 8))
                mine.train()
        for model in (mine, twin):
            model.zero_grad()
            _loss("conv_bn", model, step).backward()
        local_mean(twin)
        found += differences(mine, twin)
    if dist.get_rank() == 0:
        mine.eval()(torch.randn(4, 3, 8, 8))  # with gradients enabled, and nothing run backward
    return found


def test_evaluation_on_one_rank_does_not_hang(ranks: Ranks) -> None:
    """Rank 0 may evaluate alone, before the first step and after."""
    assert ranks(evaluation_on_one_rank, 2) == [[], []]


class _Flexible(nn.Module):
    """Takes its input in several forms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, scale: float = 1.0, extra: torch.Tensor | None = None) -> torch.Tensor:
        x = torch.relu(self.first(x.float() * scale))
        return self.second(x if extra is None else x + extra)


def changing_calls() -> tuple[list[str], bool]:
    """Names of what differs from the mean, and whether the plan is the first one to the end."""
    mine, twin = twin_of(_Flexible)
    calls = [
        lambda m: m(torch.randn(3, 6)),
        lambda m: m(torch.randn(3, 6), 2.0),
        lambda m: m(x=torch.randn(3, 6), extra=torch.randn(6)),
        lambda m: m(torch.randn(3, 6, dtype=torch.float64)),
        lambda m: m(torch.randn(2, 3, 6)),
        lambda m: m(torch.randn(4, 6)),
    ]
    found: list[str] = []
    plans = set()
    for step in range(len(calls) - 1):
        for model in (mine, twin):
            model.zero_grad()
            seeded(step)
            # after the first step the ranks make different calls
            calls[step + (dist.get_rank() if step else 0)](model).square().mean().backward()
        local_mean(twin)
        found += [f"step {step}: {name}" for name in differences(mine, twin)]
        plans.add(vars(mine)["_autopar"].compilation.plan.digest())
    return found, len(plans) == 1


def test_calls_of_another_structure_keep_the_plan(ranks: Ranks) -> None:
    """Other kwargs, constants, dtypes and numbers of dims are captured anew, also on one rank alone."""
    assert ranks(changing_calls, 2) == [([], True)] * 2


def no_sync_needs_forward_inside() -> list[str]:
    """Names of what differs from DDP for a forward outside and a backward inside ``no_sync``."""
    mine, twin, theirs = make_pair("mlp")
    for model in (mine, theirs):
        loss = _loss("mlp", model)
        with autopar.no_sync(model) if model is mine else model.no_sync():
            loss.backward()
    return differences(mine, twin)


def test_forward_outside_no_sync_is_synchronised(ranks: Ranks) -> None:
    """As under DDP, the forward decides, not the backward."""
    assert ranks(no_sync_needs_forward_inside, 2) == [[], []]


class _Growing(nn.Module):
    """Uses its second layer only when it is told to, and returns another value for every number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor, number: int = 0) -> torch.Tensor:
        x = self.first(x) * (1 + number)
        return self.second(x) if number >= 100 else x


def late_parameter() -> str:
    """The text when a layer that the plan left out gets a gradient in a later call."""
    mine, _ = twin_of(_Growing)
    mine(torch.randn(4, 6)).sum().backward()
    with pytest.raises(RuntimeStateError) as caught:
        mine(torch.randn(4, 6), 100).sum().backward()
    return str(caught.value)


def test_parameter_that_the_plan_left_out_is_never_local_in_silence(ranks: Ranks) -> None:
    """The parameter is named, with the reason and the mend."""
    one, other = ranks(late_parameter, 2)
    assert one == other
    assert "Parameter 'second.bias' got a gradient, which no bucket carries" in one
    assert "no path leads from it to an output" in one


def ever_new_calls() -> tuple[list[str], int]:
    """What differs from the mean over twelve kinds of calls, and how many warnings there were."""
    mine, twin = twin_of(_Growing)
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in [*range(12), 0, 11]:
            for model in (mine, twin):
                model.zero_grad()
                seeded(step)
                model(torch.randn(4, 6), step).square().mean().backward()
            local_mean(twin)
            found += [f"step {step}: {name}" for name in differences(mine, twin) if "second" not in name]
    return found, sum("kinds of calls" in str(one.message) for one in caught)


def test_ever_new_kinds_of_calls_end_in_hooks(ranks: Ranks) -> None:
    """After eight kinds further ones run eagerly; this is said once, and gradients stay right."""
    assert ranks(ever_new_calls, 2) == [([], 1)] * 2


def frozen_for_a_while() -> tuple[list[str], int]:
    """What differs when the whole model is frozen between steps, and how many compilations there were."""
    mine, twin = twin_of(ZOO["mlp"].build)
    found: list[str] = []
    compilations = set()
    for step in range(3):
        for model in (mine, twin):
            model.requires_grad_(False)
            x = torch.randn(3, 6, requires_grad=True)
            model(x).sum().backward()
            assert x.grad is not None
            model.requires_grad_(True)
            model.zero_grad()
            _loss("mlp", model, step).backward()
        local_mean(twin)
        found += differences(mine, twin)
        compilations.add(id(vars(mine)["_autopar"].compilation))
    return found, len(compilations)


def test_model_that_is_frozen_for_a_while(ranks: Ranks) -> None:
    """A frozen model runs as it is (a discriminator in its generator's step), and compiles once."""
    assert ranks(frozen_for_a_while, 2) == [([], 1)] * 2


def functional_calls() -> tuple[bool, list[str]]:
    """Whether swapped-in tensors get the right gradients on rank 0 alone, and what differs afterwards."""
    mine, twin = twin_of(ZOO["mlp"].build)
    _loss("mlp", mine).backward()
    mine.zero_grad()
    right = True
    if dist.get_rank() == 0:
        x = torch.randn(3, 6)
        own = {name: p.detach() * 2 for name, p in twin.named_parameters()}
        results = [
            torch.func.grad(lambda values, model=model: torch.func.functional_call(model, values, (x,)).sum())(own)
            for model in (mine, twin)
        ]
        right = all(torch.equal(results[0][name], results[1][name]) for name in own)
    for model in (mine, twin):
        _loss("mlp", model).backward()
    local_mean(twin)
    return right, differences(mine, twin)


def test_functional_call(ranks: Ranks) -> None:
    """``torch.func.functional_call`` trains the caller's tensors, without the other ranks."""
    assert ranks(functional_calls, 2) == [(True, [])] * 2


class _HugeOffset(nn.Module):
    """Its input and its parameter get one and the same gradient tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1040, 1040))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x + self.offset)


def shared_with_the_input() -> tuple[bool, list[str]]:
    """Whether the input's gradient is the local one, and what differs from the mean."""
    mine, twin = twin_of(_HugeOffset)
    inputs = []
    for model in (mine, twin):
        seeded()
        x = torch.randn(1040, 1040, requires_grad=True)
        model(x).square().sum().backward()
        inputs.append(x.grad)
    local_mean(twin)
    return same(*inputs), differences(mine, twin)


def test_a_gradient_that_the_input_shares_is_left_alone(ranks: Ranks) -> None:
    """Averaging a parameter's gradient never reaches a tensor that somebody else has."""
    assert ranks(shared_with_the_input, 2) == [(True, [])] * 2
