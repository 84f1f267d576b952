"""Train a small character language model on Python's own language reference.

The text is what `help("topics")` reads and ships with every CPython: about 460,000 characters. Run it as

    python examples/char_lm.py                             one process
    torchrun --nproc-per-node 2 examples/char_lm.py        two processes, gradients all-reduced

With `--checkpoints FOLDER` it goes on from the last checkpoint there, so that

    autopar run --nproc 2 --max-restarts 3 examples/char_lm.py --checkpoints FOLDER

comes to the same end whatever fails on the way.

The loss in nats per character goes from about 4.6 (a blind guess) to about 1.6, and a sample is printed.
"""

from __future__ import annotations

import argparse
import os
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from progress import Steps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autopar

CONTEXT = 64
GLOBAL_BATCH = 16


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """A text cut into windows: `CONTEXT` characters and, for each, the one that follows it."""

    def __init__(self, characters: Tensor) -> None:
        self.characters = characters

    def __len__(self) -> int:
        return (len(self.characters) - 1) // CONTEXT

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        window = self.characters[index * CONTEXT : (index + 1) * CONTEXT + 1]
        return window[:-1], window[1:]


class Block(nn.Module):
    """Causal self-attention and a two-layer perceptron, each added to its normalised input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharLM(nn.Module):
    """Logits of the next character at every position of a (batch, time) tensor of character numbers."""

    def __init__(self, vocabulary: int, width: int = 64, heads: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, characters: Tensor) -> Tensor:
        x = self.embed(characters) + self.position[: characters.size(1)]
        return self.head(self.norm(self.blocks(x)))


def language_reference() -> str:
    """The text behind Python's `help()`, its topics in alphabetical order."""
    return "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def encode(text: str) -> tuple[Tensor, str]:
    """Every character as its number in the sorted alphabet, and the alphabet."""
    alphabet = "".join(sorted(set(text)))
    number = {character: position for position, character in enumerate(alphabet)}
    return torch.tensor([number[character] for character in text]), alphabet


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def batches_for_ever(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


@torch.no_grad()
def sample(model: nn.Module, alphabet: str, start: str = "The ", length: int = 240) -> str:
    text = start
    for _ in range(length):
        context = torch.tensor([[alphabet.index(character) for character in text[-CONTEXT:]]])
        probabilities = F.softmax(model(context)[0, -1] / 0.7, dim=-1)
        text += alphabet[int(torch.multinomial(probabilities, 1))]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--checkpoints", type=Path, help="write them to this folder, and go on from the last one there")
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    args = parser.parse_args()
    steps = args.steps
    speaks = os.environ.get("RANK", "0") == "0"

    torch.manual_seed(0)
    characters, alphabet = encode(language_reference())
    split = len(characters) * 19 // 20
    train, held_out = Windows(characters[:split]), Windows(characters[split:])

    model = CharLM(len(alphabet))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, total_steps=steps)
    autopar.parallelize(model)

    local_batch = GLOBAL_BATCH // int(os.environ.get("WORLD_SIZE", "1"))
    windows = DataLoader(train, batch_size=local_batch, shuffle=True, drop_last=True)
    loader = autopar.shard(windows, resumable=args.checkpoints is not None)

    run = {"model": model, "optimizer": optimizer, "path": args.checkpoints, "loader": loader}
    last = args.checkpoints and autopar.load(**run, extras={"schedule": schedule}, missing_ok=True)
    batches = batches_for_ever(loader)

    progress = Steps("training", steps, lines=10, done=last.step if last else 0)
    for step in progress:
        optimizer.zero_grad()
        loss = loss_of(model, *next(batches))
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.note = f"loss {loss.item():.3f}"
        made = step + 1
        if args.checkpoints and (made % args.save_every == 0 or made == steps):
            autopar.save(**run, extras={"schedule": schedule}, step=made)

    model.eval()
    with torch.no_grad():
        inputs, targets = next(iter(DataLoader(held_out, batch_size=len(held_out))))
        held_out_loss = loss_of(model, inputs, targets).item()
    if speaks:
        print(f"held-out loss {held_out_loss:.3f} nats per character")
        print(sample(model, alphabet))


if __name__ == "__main__":
    main()
