"""What a printed file calls when it runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autopar.emit.script import ReplicaFunction, defined, load, sample_loss
from autopar.errors import ModelError

TEXT = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)

def make():
    return Net()

class Holder:
    net = Net()

net = Net()
count = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A user's file with a class, a factory and an instance."""
    path = tmp_path / "user.py"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("name", ["Net", "make", "net", "Holder.net"])
def test_load_takes_class_factory_and_instance(file: Path, name: str) -> None:
    """Whatever `autopar transform` found the model under."""
    assert type(load(file, name)).__name__ == "Net"


def test_load_refuses_what_is_no_model(file: Path) -> None:
    """It says what it found."""
    with pytest.raises(ModelError, match=r"'count' in .* is no model but a int"):
        load(file, "count")


def test_defined_says_what_is_gone(file: Path) -> None:
    """A function that was removed since, or the whole file."""
    with pytest.raises(ModelError, match="does not define 'gone' any more"):
        defined(file, "gone")
    with pytest.raises(ModelError, match="is not there"):
        defined(file.with_name("other.py"), "Net")


def test_sample_loss_takes_the_models_loss() -> None:
    """A ``loss`` entry or attribute before anything else, else all outputs."""
    one, other = torch.tensor(2.0, requires_grad=True), torch.full((2,), 3.0, requires_grad=True)
    assert sample_loss({"loss": one, "logits": other}).item() == 2.0
    assert sample_loss(SimpleNamespace(loss=one)).item() == 2.0
    assert sample_loss((one, [other], torch.ones(1), None)).item() == 11.0
    with pytest.raises(ModelError, match="nothing that depends on a trainable parameter"):
        sample_loss(torch.ones(1))


def test_a_replica_holds_only_the_children_it_uses() -> None:
    """The others need not be copied for every replica."""
    model = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Linear(1, 1)})
    replica = ReplicaFunction(lambda self, x: self.a(x), model, ("a",))
    assert list(dict(replica.named_children())) == ["a"]
    assert replica(torch.tensor(-1.0)).item() == 0.0
