"""torch's own models, and modules with what torch itself wraps around parameters and forwards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint_sequential

from tests.zoo.entry import Call, Entry

__all__ = ["MODELS"]


def _sequences(size: int) -> Call:
    return (torch.randn(size, 7, 16),)


def _images(size: int) -> Call:
    return (torch.randn(size, 3, 12, 12),)


def _pairs_of_sequences(size: int) -> Call:
    return {"src": torch.randn(size, 9, 16), "tgt": torch.randn(size, 7, 16)}


def _bags(size: int) -> Call:
    return (torch.randint(50, (size, 6)),)


def _classes(size: int) -> Call:
    return (torch.randn(size * 4, 16), torch.randint(60, (size * 4,)))


class LSTMStack(nn.Module):
    """The recurrent language model of torch's own word-language-model example, in its three cells."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(50, 16)
        self.rnn = getattr(nn, kind)(16, 24, num_layers=2, dropout=0.2, batch_first=True, bidirectional=True)
        self.decoder = nn.Linear(48, 50)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, time) to (batch, time, words)."""
        states, _ = self.rnn(self.drop(self.encoder(tokens)))
        logits: torch.Tensor = self.decoder(self.drop(states))
        return logits


class Unrolled(nn.Module):
    """A cell in a Python loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(16, 24), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, features) to (batch, classes)."""
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        logits: torch.Tensor = self.head(state[0])
        return logits


class Checkpointed(nn.Module):
    """Segments that are computed again in backward."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(16, 16), layer, nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, features) to the same."""
        result: torch.Tensor = checkpoint_sequential(self.layers, 2, x, use_reentrant=False)
        return result


class WithCompiled(nn.Module):
    """A submodule under torch.compile between two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)
        self.body = torch.compile(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()), backend="aot_eager")
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, features) to (batch, time, classes)."""
        logits: torch.Tensor = self.head(self.body(self.stem(x)))
        return logits


def _transformer() -> nn.Module:
    return nn.Transformer(16, 2, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=32, batch_first=True)


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", norm_first=True, batch_first=True)
    return nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(16), enable_nested_tensor=False)


def _weight_normed() -> nn.Module:
    convs = [weight_norm(nn.Conv1d(7, 16, 3, padding=1)), weight_norm(nn.Conv1d(16, 16, 3, padding=1, dilation=1))]
    return nn.Sequential(convs[0], nn.LeakyReLU(), convs[1], nn.Flatten(), nn.Linear(256, 4))


def _spectral_normed() -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(3, 8, 3)), nn.LeakyReLU(0.1), spectral_norm(nn.Conv2d(8, 8, 3, stride=2)),
        nn.LeakyReLU(0.1), nn.Flatten(), spectral_norm(nn.Linear(128, 1)),
    )  # fmt: skip


def _parametrized() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(16, 16)), nn.GELU(),
        parametrizations.spectral_norm(nn.Linear(16, 16)), nn.GELU(),
        parametrizations.orthogonal(nn.Linear(16, 16)), nn.Linear(16, 4),
    )  # fmt: skip


def _quantization_aware() -> nn.Module:
    fake = torch.ao.quantization.FakeQuantize
    return nn.Sequential(nn.Linear(16, 16), fake(), nn.ReLU(), nn.Linear(16, 4), fake())


class Bag(nn.Module):
    """Summed embeddings, as text classifiers and recommenders have them."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(50, 16, mode="sum"), nn.Linear(16, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, time) to (batch, classes)."""
        logits: torch.Tensor = self.head(F.relu(self.bag(tokens)))
        return logits


MODELS = [
    Entry(name="torch-transformer", library="torch", build=_transformer, inputs=_pairs_of_sequences),
    Entry(name="torch-transformer-encoder", library="torch", build=_encoder, inputs=_sequences),
    Entry(name="torch-lstm-stack", library="torch", build=lambda: LSTMStack("LSTM"), inputs=_bags),
    Entry(name="torch-gru-stack", library="torch", build=lambda: LSTMStack("GRU"), inputs=_bags),
    Entry(name="torch-lstm-cell", library="torch", build=Unrolled, inputs=_sequences),
    Entry(name="torch-embedding-bag", library="torch", build=Bag, inputs=_bags),
    Entry(
        name="torch-adaptive-softmax",
        library="torch",
        build=lambda: nn.AdaptiveLogSoftmaxWithLoss(16, 60, [20, 40]),
        inputs=_classes,
        loss=lambda result: result.loss,
        unused=True,
    ),
    Entry(name="torch-weight-norm", library="torch", build=_weight_normed, inputs=_sequences),
    Entry(name="torch-spectral-norm", library="torch", build=_spectral_normed, inputs=_images),
    Entry(name="torch-parametrizations", library="torch", build=_parametrized, inputs=_sequences),
    Entry(name="torch-fake-quantize", library="torch", build=_quantization_aware, inputs=_sequences),
    Entry(name="torch-checkpoint", library="torch", build=Checkpointed, inputs=_sequences),
    Entry(name="torch-compiled-submodule", library="torch", build=WithCompiled, inputs=_sequences),
]
