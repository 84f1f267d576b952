"""Accelerate: accumulation, clipping, mixed precision, communication hooks and saved states, against torch's DDP."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.integrations.wrappers import LINE, Outcome, differing, needs, outcome, train_with_each, wrapped_by

pytestmark = needs("accelerate")


class Classifier(nn.Module):
    """Has dropout, and maybe a layer that no forward uses."""

    def __init__(self, *, spare: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
        self.spare = nn.Linear(2, 2) if spare else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 2)."""
        return self.layers(x)


def accelerated(mixed_precision: str = "no", *, spare: bool = True, **wrapper: Any) -> tuple[Any, ...]:
    """An Accelerator with everything prepared: model, optimizer, loader."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import set_seed

    AcceleratorState._reset_state()
    GradientState._reset_state()
    options = DistributedDataParallelKwargs(find_unused_parameters=spare, **wrapper)
    accelerator = Accelerator(
        cpu=True, mixed_precision=mixed_precision, gradient_accumulation_steps=2, kwargs_handlers=[options]
    )
    set_seed(0)
    model = Classifier(spare=spare)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = TensorDataset(torch.randn(48, 8), torch.randint(2, (48,)))
    return accelerator, *accelerator.prepare(model, optimizer, DataLoader(data, batch_size=4))


def loop(accelerator: Any, model: nn.Module, optimizer: Any, loader: Any) -> None:
    """An epoch of three steps of two micro-steps."""
    for x, y in loader:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()


def plain(folder: Path) -> Outcome:
    """Accumulation and clipping; the state is saved half way, and the rest is run again from there."""
    accelerator, model, optimizer, loader = accelerated()
    loop(accelerator, model, optimizer, loader)
    accelerator.save_state(str(folder / "state"))
    loop(accelerator, model, optimizer, loader)
    inner = accelerator.unwrap_model(model)
    once = outcome(inner, model)
    accelerator.load_state(str(folder / "state"))
    loop(accelerator, model, optimizer, loader)
    keys = sorted(accelerator.get_state_dict(model))
    return outcome(inner, model, (differing(once, outcome(inner, model)), keys))


def bf16(folder: Path) -> Outcome:
    """Accelerate puts autocast around the module's forward."""
    return looped(mixed_precision="bf16")


def fp16_hook(folder: Path) -> Outcome:
    """A communication hook of torch's."""
    from accelerate import DDPCommunicationHookType

    return looped(comm_hook=DDPCommunicationHookType.FP16)


def looped(**options: Any) -> Outcome:
    """One epoch."""
    accelerator, model, optimizer, loader = accelerated(**options)
    loop(accelerator, model, optimizer, loader)
    return outcome(accelerator.unwrap_model(model), model)


def late(folder: Path) -> Outcome:
    """Forwards without synchronisation, then a backward with it."""
    accelerator, model, optimizer, loader = accelerated(spare=False)  # torch's reducer would take all for unused
    batches = iter(loader)
    for _ in range(3):
        with accelerator.no_sync(model):
            losses = [nn.functional.cross_entropy(model(x), y) for x, y in (next(batches), next(batches))]
            accelerator.backward(losses[0])
        with accelerator.trigger_sync_in_backward(model):
            accelerator.backward(losses[1])
        optimizer.step()
        optimizer.zero_grad()
    return outcome(accelerator.unwrap_model(model), model)


SCENARIOS: dict[str, Callable[[Path], Outcome]] = {"plain": plain, "bf16": bf16, "fp16 hook": fp16_hook, "late": late}


def train(replaced: bool, folder: str) -> dict[str, Outcome | str]:
    """Every scenario, and what was said on standard error."""
    with wrapped_by(replaced) as said:
        found: dict[str, Outcome | str] = {name: scenario(Path(folder)) for name, scenario in SCENARIOS.items()}
        found["said"] = said.getvalue()
        return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Any]]:
    """All scenarios on both ranks, with either wrapper."""
    return train_with_each(train, tmp_path_factory.mktemp("accelerate"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accelerate_ends_with_the_bits_of_ddp(trained: dict[bool, list[Any]], scenario: str) -> None:
    """On both ranks, which are equal."""
    for mine, theirs in zip(trained[True], trained[False], strict=True):
        assert differing(mine[scenario], theirs[scenario]) == []
        assert mine[scenario].wrapper == "autopar.nn.distributed"
        assert theirs[scenario].wrapper == "torch.nn.parallel.distributed"
    first, second = trained[True]
    assert differing(first[scenario], second[scenario]) == []


def test_a_state_that_is_loaded_trains_on_as_before(trained: dict[bool, list[Any]]) -> None:
    """``save_state`` and ``load_state`` with model, optimizer and random numbers; plain keys in the state dict."""
    for mine in trained[True]:
        differs, keys = mine["plain"].extra
        assert differs == []
        assert keys == sorted(Classifier().state_dict())


def test_a_line_says_that_autopar_runs(trained: dict[bool, list[Any]]) -> None:
    """Once, on rank 0, with the place that constructs the wrapper."""
    first, second = (found["said"] for found in trained[True])
    assert len(re.findall(LINE.format(r"accelerator\.py:\d+"), first)) == 1
    assert "DistributedDataParallel" not in second
