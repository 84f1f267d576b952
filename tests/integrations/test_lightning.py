"""Lightning: Fabric, and the ``Trainer`` with automatic and manual optimization, against torch's DDP."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.integrations.wrappers import LINE, Outcome, differing, needs, outcome, train_with_each, wrapped_by

pytestmark = needs("lightning")


class Net(nn.Module):
    """A batch norm between layers, and a training step that uses more than forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
        self.second, self.other = nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 2)."""
        return self.second(self.norm(self.first(x)).relu())

    def training_step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """A loss."""
        return nn.functional.mse_loss(self(x) + self.other(self.first(x)), y)


def batches() -> DataLoader[Any]:
    """Sixteen batches of four random samples, the same on every rank."""
    draws = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(64, 8, generator=draws), torch.randn(64, 2, generator=draws))
    return DataLoader(data, batch_size=4, shuffle=True)


def fabric(folder: Path, *, by_step: bool = False, precision: str = "32-true") -> Outcome:
    """Accumulation over two micro-steps, clipping, and a checkpoint that is loaded back."""
    from lightning.fabric import Fabric

    runner = Fabric(accelerator="cpu", devices=2, strategy="ddp_find_unused_parameters_true", precision=precision)
    runner.launch()
    runner.seed_everything(0, verbose=False)
    net = Net()
    model, optimizer = runner.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2))
    if by_step:
        model.mark_forward_method("training_step")
    for index, (x, y) in enumerate(runner.setup_dataloaders(batches())):
        accumulates = index % 2 == 0
        with runner.no_backward_sync(model, enabled=accumulates):
            loss = model.training_step(x, y) if by_step else nn.functional.mse_loss(model(x), y)
            runner.backward(loss / 2)
        if not accumulates:
            runner.clip_gradients(model, optimizer, max_norm=0.1)
            optimizer.step()
            optimizer.zero_grad()
    trained = outcome(net, model._forward_module)
    runner.save(folder / "fabric.ckpt", {"model": model, "optimizer": optimizer})
    for parameter in net.parameters():
        parameter.data.zero_()
    runner.load(folder / "fabric.ckpt", {"model": model, "optimizer": optimizer})
    keys = list(torch.load(folder / "fabric.ckpt")["model"])
    return outcome(net, model._forward_module, (differing(trained, outcome(net, net)), keys))


def trainer(folder: Path, *, manual: bool = False, resumes: bool = False) -> Outcome:
    """The ``Trainer`` for eight steps; with automatic optimization, two micro-steps each and clipping."""
    import lightning.pytorch as pl

    from tests.integrations.lightning_module import LitNet

    class Wrapper(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            wrappers.append(trainer.strategy.model)

    wrappers: list[nn.Module] = []
    pl.seed_everything(0, verbose=False)
    model = LitNet(Net(), manual=manual)
    made = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_find_unused_parameters_true",
        max_epochs=4 if resumes or not manual else 2,
        callbacks=[Wrapper(), pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({} if manual else {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}),
    )
    made.fit(model, batches(), batches(), ckpt_path=str(folder / "epoch=1.ckpt") if resumes else None)
    return outcome(model, wrappers[-1], [float(made.callback_metrics[name]) for name in ("seen", "validation")])


SCENARIOS: dict[str, Callable[[Path], Outcome]] = {
    "fabric": fabric,
    "fabric, by step": lambda folder: fabric(folder, by_step=True),
    "fabric, bf16": lambda folder: fabric(folder, precision="bf16-mixed"),
    "trainer": lambda folder: trainer(folder / "automatic"),
    "trainer, resumed": lambda folder: trainer(folder / "automatic", resumes=True),
    "trainer, manual": lambda folder: trainer(folder / "manual", manual=True),
}


def train(replaced: bool, folder: str) -> dict[str, Outcome | str]:
    """Every scenario, and what was said on standard error."""
    logging.getLogger("lightning").setLevel(logging.ERROR)
    with wrapped_by(replaced) as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, Outcome | str] = {name: scenario(Path(folder)) for name, scenario in SCENARIOS.items()}
        found["said"] = said.getvalue()
        return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Any]]:
    """All scenarios on both ranks, with either wrapper."""
    return train_with_each(train, tmp_path_factory.mktemp("lightning"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_lightning_ends_with_the_bits_of_ddp(trained: dict[bool, list[Any]], scenario: str) -> None:
    """On both ranks, which are equal."""
    for mine, theirs in zip(trained[True], trained[False], strict=True):
        assert differing(mine[scenario], theirs[scenario]) == []
        assert mine[scenario].wrapper == "autopar.nn.distributed"
        assert theirs[scenario].wrapper == "torch.nn.parallel.distributed"
    first, second = trained[True]
    assert differing(first[scenario], second[scenario]) == []


def test_a_checkpoint_of_fabric_has_plain_keys_and_loads_back(trained: dict[bool, list[Any]]) -> None:
    """Through ``fabric.save`` and ``fabric.load``."""
    for mine in trained[True]:
        assert mine["fabric"].extra == ([], list(Net().state_dict()))


def test_the_trainer_resumes_where_it_was(trained: dict[bool, list[Any]]) -> None:
    """From a checkpoint of the second epoch to the bits of the whole run."""
    for mine in trained[True]:
        assert differing(mine["trainer, resumed"], mine["trainer"]) == []


def test_what_training_step_logs_is_logged_at_every_step(trained: dict[bool, list[Any]]) -> None:
    """Its Python runs each time: nothing of it was frozen into a graph."""
    for mine, theirs in zip(trained[True], trained[False], strict=True):
        assert mine["trainer"].extra[0] == theirs["trainer"].extra[0] == 8.0 * 4
        assert mine["trainer, manual"].extra[0] == 8.0 * 2


def test_a_line_says_that_autopar_runs(trained: dict[bool, list[Any]]) -> None:
    """Once, on rank 0, with the place that constructs the wrapper."""
    first, second = (found["said"] for found in trained[True])
    assert len(re.findall(LINE.format(r"ddp\.py:\d+"), first)) == 1
    assert "DistributedDataParallel in" not in second
