"""Train a small convolutional classifier on scikit-learn's handwritten digits.

An ordinary training script for one process, plus two lines: `autopar.parallelize` on the model and
`autopar.shard` on the data loader. The same file then runs

    python examples/digits.py                              one process
    torchrun --nproc-per-node 2 examples/digits.py         two processes, gradients all-reduced
    python examples/digits.py --strategy data_parallel     one process, two replicas

`examples/digits_demo.py` does all three and compares the results.

With `--checkpoints FOLDER` it writes one after each epoch and goes on from the last one there, so that

    autopar run --nproc 2 --max-restarts 3 examples/digits.py --checkpoints FOLDER

comes to the same end, bit for bit, whatever fails on the way.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from progress import Steps
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import autopar

GLOBAL_BATCH = 64


class DigitClassifier(nn.Module):
    """Three convolutions and a linear head.

    GroupNorm instead of BatchNorm and no dropout: then an image's gradient does not depend on which
    other images share its part of the batch, and one process and two must agree to the last bits.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm2 = nn.GroupNorm(4, 2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.norm3 = nn.GroupNorm(4, 2 * width)
        self.head = nn.Linear(2 * width * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(images)))
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.norm3(self.conv3(x))), 2)
        return self.head(x.flatten(1))


def digits() -> tuple[TensorDataset, TensorDataset]:
    """1,797 images (1 x 8 x 8, float64, 0 to 1) with their labels: four fifths to train on, one held out."""
    data = load_digits()
    images = torch.as_tensor(data.images).unsqueeze(1) / 16
    labels = torch.as_tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out, train = order[: len(order) // 5], order[len(order) // 5 :]
    return TensorDataset(images[train], labels[train]), TensorDataset(images[held_out], labels[held_out])


@torch.no_grad()
def accuracy(model: nn.Module, dataset: TensorDataset) -> float:
    images, labels = dataset.tensors
    model.eval()
    return (model(images).argmax(1) == labels).double().mean().item()


def shuffled(dataset: TensorDataset, epoch: int) -> Subset:
    """The dataset in an order that depends on the epoch alone, and so is the same for any number of ranks."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(epoch))
    return Subset(dataset, order.tolist())


def batches(dataset: TensorDataset, epochs: Iterable[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's part of every global batch: with two ranks, every other image of each 64."""
    local_batch = GLOBAL_BATCH // int(os.environ.get("WORLD_SIZE", "1"))
    for epoch in epochs:
        yield from autopar.shard(DataLoader(shuffled(dataset, epoch), batch_size=local_batch, drop_last=True))


def train(model: nn.Module, dataset: TensorDataset, epochs: int, checkpoints: Path | None = None) -> list[float]:
    """Train in place, from the last checkpoint on; the duration of every step in milliseconds."""
    an_epoch = len(dataset) // GLOBAL_BATCH
    total = epochs * an_epoch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total)
    run = {"model": model, "optimizer": optimizer, "path": checkpoints, "extras": {"schedule": schedule}}
    last = checkpoints and autopar.load(**run, missing_ok=True)
    done = last.step if last else 0
    progress, step_ms = Steps("training", total, done=done), []
    for step, (images, labels) in zip(progress, batches(dataset, range(done // an_epoch, epochs)), strict=True):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        step_ms.append(1e3 * (time.perf_counter() - start))
        progress.note = f"loss {loss.item():.3f}"
        if checkpoints and (step + 1) % an_epoch == 0:
            autopar.save(**run, step=step + 1)
    return step_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--strategy", default="auto", choices=("none", "auto", "ddp", "data_parallel"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--checkpoints", type=Path, help="write them to this folder, and go on from the last one there")
    parser.add_argument("--save", type=Path, help="write weights, accuracy and step times to this file")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = DigitClassifier().double()
    if args.strategy != "none":
        autopar.parallelize(model, strategy=args.strategy)

    train_set, held_out = digits()
    step_ms = train(model, train_set, args.epochs, args.checkpoints)
    correct = accuracy(model, held_out)
    if os.environ.get("RANK", "0") == "0":
        print(f"accuracy {correct:.1%} on {len(held_out)} held-out images")
        if args.save:
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
            torch.save({"weights": weights, "accuracy": correct, "step_ms": step_ms}, args.save)


if __name__ == "__main__":
    main()
