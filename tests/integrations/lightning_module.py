"""A LightningModule around a plain model; of its own file, since Lightning is imported in the ranks only."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

__all__ = ["LitNet"]


class LitNet(pl.LightningModule):
    """Trains a model that has a ``training_step(x, y)``; counts its own steps.

    Args:
        net: the model.
        manual: optimize by hand, with one optimizer for each half of the parameters.
    """

    def __init__(self, net: nn.Module, *, manual: bool) -> None:
        super().__init__()
        self.net, self.steps = net, 0
        self.automatic_optimization = not manual

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """The model's own loss."""
        self.steps += 1
        self.log("seen", float(self.steps))
        loss = self.net.training_step(*batch)
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(loss, retain_graph=True)
                optimizer.step()
                loss = self.net.training_step(*batch)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """Logs the mean over all ranks."""
        self.log("validation", self.net.training_step(*batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW; two where they are stepped by hand."""
        halves = [self.net.parameters()]
        if not self.automatic_optimization:
            parameters = list(self.net.parameters())
            halves = [parameters[::2], parameters[1::2]]
        return [torch.optim.AdamW(half, lr=1e-2) for half in halves]
