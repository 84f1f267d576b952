"""What trainers do to a wrapped module behind its back: another forward, a backward synchronised late."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import autopar
from autopar.errors import UsageError
from autopar.nn import DistributedDataParallel
from tests.nn.wrapped import pair, start
from tests.runtime.pairs import Ranks, differences, seeded


class TwoHeads(nn.Module):
    """A forward that uses one head, and a method that uses both."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.other = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 2)."""
        return self.head(self.body(x).relu())

    def training_step(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        """A loss."""
        return (self(x) * scale - self.other(self.body(x))).square().sum()


def led_through(wrapper: nn.Module, x: torch.Tensor, scale: float) -> torch.Tensor:
    """``training_step`` as Lightning calls it: in the place of forward, which comes back while it runs."""

    def instead(*args: Any) -> Any:
        del module.forward
        return module.training_step(*args)

    module = wrapper.module
    module.forward = instead
    return wrapper(x, scale)


def other_forwards() -> list[str]:
    """What differs from torch's DDP where another forward stands in at every second call."""
    start()
    models = pair(TwoHeads, find_unused_parameters=True)
    found: list[str] = []
    for step in range(5):
        for model in models:
            seeded(step)
            x = torch.randn(3, 4)
            loss = led_through(model, x, 1.0 + step) if step % 2 == 0 else model(x).square().sum()
            loss.backward()
        found += differences(*models)
        for model in models:
            model.zero_grad()
    return found


class Stepping(TwoHeads):
    """Steps an optimizer within its own training step, as Lightning's manual optimization does."""

    def training_step(self, x: torch.Tensor, scale: float) -> None:
        """Two steps of SGD."""
        for _ in range(2):
            self.steps = getattr(self, "steps", 0) + 1
            loss = super().training_step(x, scale)
            self.wrapper[0].reducer._rebuild_buckets()
            self.wrapper[0].reducer.prepare_for_backward([loss])
            self.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter -= 0.1 * parameter.grad


def stepping_inside() -> tuple[list[str], int]:
    """What differs from torch's DDP, in values, and how many steps autopar's model has taken."""
    start()
    models = pair(Stepping, find_unused_parameters=True)
    for model in models:
        model.module.wrapper = (model,)  # a tuple, which is no submodule
        for step in range(3):
            seeded(step)
            led_through(model, torch.randn(3, 4), 1.0)
    return differences(*models, what=lambda parameter: parameter), models[0].module.steps


def test_a_forward_that_trains_runs_once_a_call(ranks: Ranks) -> None:
    """Its Python is neither captured nor tried out, at the first call either."""
    assert ranks(stepping_inside, 2) == [([], 6)] * 2


def kept_forward() -> tuple[list[str], bool]:
    """The same where the other forward stays, as Accelerate's around autocast does."""
    start()
    models = pair(TwoHeads, find_unused_parameters=True)
    outputs = []
    for model in models:
        plain = model.module.forward
        model.module.forward = lambda x, plain=plain: plain(x.bfloat16().float()) * 2
        seeded()
        output = model(torch.randn(3, 4))
        output.square().sum().backward()
        outputs.append(output.detach())
    return differences(*models), torch.equal(*outputs)


def test_a_forward_that_stands_in_for_the_modules_runs(ranks: Ranks) -> None:
    """For one call or for good; hooks gather the gradients of whatever it uses."""
    assert ranks(other_forwards, 2) == [[], []]
    assert ranks(kept_forward, 2) == [([], True)] * 2


def late_synchronisation() -> list[str]:
    """What differs from torch's DDP where a backward is synchronised whose forwards were not to be."""
    start()
    models = pair(TwoHeads, find_unused_parameters=True)
    found: list[str] = []
    for step in range(3):
        for model in models:
            seeded(step)
            with model.no_sync():
                losses = [model(torch.randn(3, 4)).square().sum() for _ in range(2)]
                losses[0].backward()
            model.require_backward_grad_sync = model.require_forward_param_sync = True
            model.reducer.prepare_for_backward([losses[1]])
            losses[1].backward()
        found += differences(*models)
        for model in models:
            model.zero_grad()
    return found


def test_the_reducer_synchronises_a_backward_after_unsynchronised_forwards(ranks: Ranks) -> None:
    """As Accelerate's ``trigger_sync_in_backward`` asks for: the sum of both backwards is averaged."""
    assert ranks(late_synchronisation, 2) == [[], []]


def wrapped_when_parallel() -> tuple[list[str], str]:
    """What differs from torch's DDP where the drop-in wraps a parallel model, and what torch's makes of one."""
    start()
    mine, theirs = pair(TwoHeads, find_unused_parameters=True)
    parallel = autopar.parallelize(mine.module, "ddp")
    again = DistributedDataParallel(parallel, find_unused_parameters=True)
    for model in (again, theirs):
        seeded()
        led_through(model, torch.randn(3, 4), 2.0).backward()
    twice = TorchDDP(autopar.parallelize(TwoHeads(), "ddp"))
    try:
        twice(torch.ones(1, 4))
    except UsageError as error:
        return differences(again, theirs), str(error)
    return differences(again, theirs), "no error"


def test_a_model_is_not_made_parallel_twice(ranks: Ranks) -> None:
    """The drop-in takes over from ``parallelize``; torch's wrapper around a parallel model is refused."""
    for differs, text in ranks(wrapped_when_parallel, 2):
        assert differs == []
        assert "TwoHeads is parallel already" in text
        assert "autopar run" in text
