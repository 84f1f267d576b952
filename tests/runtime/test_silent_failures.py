"""Where torch's DDP goes wrong without a word, or dies without a place: its result and autopar's, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import autopar
from autopar.errors import AutoparError
from tests.runtime.pairs import Ranks, same, seeded

Wrap = Callable[[nn.Module], Any]
WRAPPERS: dict[str, Wrap] = {"torch": TorchDDP, "autopar": lambda model: autopar.parallelize(model, "ddp")}


def joined(timeout: float = 20.0) -> int:
    """Joins the group; gives this rank."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    torch.manual_seed(0)
    return dist.get_rank()


def alike(tensor: torch.Tensor | None) -> bool:
    """Whether all ranks hold the same bits."""
    assert tensor is not None
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor.detach().contiguous())
    return all(same(one, gathered[0]) for one in gathered)


def outcomes(act: Callable[[Wrap], Any], wrappers: Mapping[str, Wrap] = WRAPPERS) -> dict[str, Any]:
    """What ``act`` gives with each wrapper; the class of the error where it raises."""
    joined()
    found: dict[str, Any] = {}
    for name, wrap in wrappers.items():
        try:
            found[name] = act(wrap)
        except AutoparError as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


class Ordered(nn.Module):
    """Two parameters of one shape, registered in the order given."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.full((2, 2), float(len(name)))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Uses both, differently."""
        return x @ self.get_parameter("a") + 3 * x @ self.get_parameter("long")


def swapped() -> dict[str, Any]:
    """Values of parameter "a" after wrapping models that register theirs in another order on rank 1."""

    def act(wrap: Wrap) -> float:
        model = Ordered(*(("a", "long") if dist.get_rank() == 0 else ("long", "a")))
        wrap(model)
        return model.get_parameter("a")[0, 0].item()

    return outcomes(act)


def test_swapped_parameters(ranks: Ranks) -> None:
    """torch gives one parameter the values of another; autopar names both on every rank."""
    first, second = ranks(swapped, 2)
    assert (first["torch"], second["torch"]) == (1.0, 4.0)
    assert first["autopar"] == second["autopar"]
    assert first["autopar"].startswith("RankMismatchError: The ranks do not hold the same model")
    assert "'a'" in first["autopar"]
    assert "'long'" in first["autopar"]


def other_dtypes() -> dict[str, Any]:
    """Whether weights of 1 are still 1 after wrapping a half model on rank 0 and a bfloat16 one on rank 1."""

    def act(wrap: Wrap) -> bool:
        model = nn.Linear(2, 2).to(torch.float16 if dist.get_rank() == 0 else torch.bfloat16)
        nn.init.ones_(model.weight)
        wrap(model)
        return bool((model.weight == 1).all())

    return outcomes(act)


def test_differing_dtypes(ranks: Ranks) -> None:
    """torch copies the bytes, which mean another number there; autopar says which parameter."""
    first, second = ranks(other_dtypes, 2)
    assert (first["torch"], second["torch"]) == (True, False)
    assert first["autopar"] == second["autopar"]
    assert "float16" in first["autopar"]
    assert "bfloat16 on rank 1" in first["autopar"] or "bfloat16" in first["autopar"]


def second_backward() -> dict[str, Any]:
    """Whether ranks have the same gradient after two backwards through one forward."""

    def act(wrap: Wrap) -> bool:
        model = nn.Linear(3, 2)
        seeded()
        loss = wrap(model)(torch.randn(4, 3)).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        return alike(model.weight.grad)

    return outcomes(act)


def test_second_backward(ranks: Ranks) -> None:
    """torch adds the second one's local gradient; autopar its mean."""
    assert ranks(second_backward, 2) == [{"torch": False, "autopar": True}] * 2


def grad_function() -> dict[str, Any]:
    """Whether ranks get the same from ``torch.autograd.grad``."""

    def act(wrap: Wrap) -> bool:
        model = nn.Linear(3, 2)
        seeded()
        (gradient,) = torch.autograd.grad(wrap(model)(torch.randn(4, 3)).square().sum(), model.weight)
        return alike(gradient)

    return outcomes(act)


def test_autograd_grad(ranks: Ranks) -> None:
    """torch returns the local gradient; autopar the mean."""
    assert ranks(grad_function, 2) == [{"torch": False, "autopar": True}] * 2


def late_parameter() -> dict[str, Any]:
    """Whether ranks have the same gradient of a parameter that was added after wrapping."""

    def act(wrap: Wrap) -> bool:
        model = nn.Sequential(nn.Linear(3, 2))
        wrapped = wrap(model)
        wrapped(torch.ones(1, 3)).sum().backward()
        model.append(nn.Linear(2, 2))
        with torch.no_grad():
            for parameter in model[1].parameters():
                parameter.fill_(0.5)
        model.zero_grad()
        seeded()
        wrapped(torch.randn(4, 3)).square().sum().backward()
        return alike(model[1].weight.grad)

    return outcomes(act)


def test_late_parameters(ranks: Ranks) -> None:
    """torch leaves its gradient local; autopar notices the new layer and averages it."""
    assert ranks(late_parameter, 2) == [{"torch": False, "autopar": True}] * 2


def unequal_batches() -> dict[str, Any]:
    """Whether the gradient is that of the mean over all samples, with batches of 1 and 3."""

    def act(wrap: Wrap) -> bool:
        model = nn.Linear(3, 2)
        twin = nn.Linear(3, 2)
        twin.load_state_dict(model.state_dict())
        torch.manual_seed(1)
        everything = torch.randn(4, 3)
        mine = everything[:1] if dist.get_rank() == 0 else everything[1:]
        wrap(model)(mine).square().sum(1).mean().backward()
        twin(everything).square().sum(1).mean().backward()
        return torch.allclose(model.weight.grad, twin.weight.grad)

    return outcomes(act, {**WRAPPERS, "weighed": lambda model: autopar.parallelize(model, "ddp", weight="samples")})


def test_unequal_batches(ranks: Ranks) -> None:
    """Both take the mean of the ranks' means, in which a sample of a small batch counts more; unless weighed."""
    assert ranks(unequal_batches, 2) == [{"torch": False, "autopar": False, "weighed": True}] * 2


def validation_on_rank_0(name: str) -> bool:
    """Whether ranks have the same gradient in the step after rank 0 alone ran an evaluation."""
    rank = joined(timeout=3.0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    wrapped = WRAPPERS[name](model)
    wrapped(torch.randn(4, 3)).square().sum().backward()
    if rank == 0:
        wrapped.eval()
        with torch.no_grad():
            wrapped(torch.randn(4, 3))
        wrapped.train()
    model.zero_grad()
    seeded()
    wrapped(torch.randn(4, 3)).square().sum().backward()
    return alike(model[0].weight.grad)


def validation_with_torch() -> str:
    """The same with torch's DDP, or its error; a rank that aborts says nothing at all."""
    try:
        return str(validation_on_rank_0("torch"))
    except RuntimeError as error:
        return str(error)


def test_validation_on_rank_0(ranks: Ranks) -> None:
    """torch's ranks send each other different things, and abort or lose each other; autopar trains on."""
    assert "True" not in ranks(validation_with_torch, 2, lost=[0, 1], timeout=40)
    assert ranks(validation_on_rank_0, 2, "autopar") == [True, True]


def skipped_backward(name: str) -> str:
    """What this rank raises in three steps of which rank 1 leaves out the second backward."""
    rank = joined(timeout=3.0)
    model = nn.Linear(3, 2)
    wrapped = WRAPPERS[name](model)
    try:
        for step in range(3):
            loss = wrapped(torch.randn(4, 3)).sum()
            if rank == 0 or step != 1:
                loss.backward()
    except (AutoparError, RuntimeError) as error:
        return str(error)
    return "nothing"


def test_skipped_backward(ranks: Ranks) -> None:
    """torch names no step and no parameter; autopar both, on the rank that waits in vain."""
    said = ranks(skipped_backward, 2, "torch", lost=[0], timeout=40)[0] or "an abort"
    assert said != "nothing"
    assert "step" not in said
    assert "bias" not in said
    assert "step 2, bucket 0 of 1 (bias and 1 more)" in ranks(skipped_backward, 2, "autopar", timeout=40)[0]
