"""What lies on the disk: who can read it, and what is said about files that are not as they should be."""

from __future__ import annotations

import collections
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.optim.lr_scheduler import MultiStepLR

import autopar
from autopar.errors import CheckpointError, UnknownNameError, UsageError
from tests.checkpoint.runs import build


def _trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer, _ = build()
    model(torch.randn(4, 6)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a checkpoint of step 7."""
    autopar.save(*_trained(), tmp_path, step=7)
    return tmp_path


def _refused(path: Path, what: str, model: nn.Module | None = None) -> None:
    plain, optimizer, _ = build()
    before = [value.clone() for value in plain.state_dict().values()]
    with pytest.raises(CheckpointError, match=what):
        autopar.load(model or plain, optimizer if model is None else None, path)
    assert all(torch.equal(one, other) for one, other in zip(before, plain.state_dict().values(), strict=True))


def test_plain_torch_reads_it(tmp_path: Path) -> None:
    """DCP loads the model by its own names, and its converter makes a file that is safe to load."""
    model, optimizer = _trained()
    autopar.parallelize(model, "ddp")
    autopar.save(model, optimizer, tmp_path / "run", step=1)
    other, _, _ = build()
    state = {"model": other.state_dict()}
    dcp.load(state, checkpoint_id=tmp_path / "run" / "latest")
    other.load_state_dict(state["model"])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    dcp_to_torch_save(tmp_path / "run" / "latest", tmp_path / "all.pt")
    whole = torch.load(tmp_path / "all.pt", weights_only=True)
    assert whole["model"].keys() == model.state_dict().keys()
    moment = optimizer.state[model.get_parameter("0.weight")]["exp_avg"]
    assert torch.equal(whole["optimizer"]["state"]["0.weight"]["exp_avg"], moment)


def test_wrapped_model_has_plain_names(tmp_path: Path) -> None:
    """What a wrapper adds to the names is not saved."""
    model, optimizer, _ = build()
    autopar.save(nn.DataParallel(model), optimizer, tmp_path, step=1)
    assert autopar.load(build()[0], None, tmp_path).step == 1


def test_extras_of_many_kinds(tmp_path: Path) -> None:
    """Counters, number keys, tuples, bytes and tensors come back as what they were."""

    class Anything:
        state: object = None

        def state_dict(self) -> object:
            return self.state

        def load_state_dict(self, state: object) -> None:
            self.state = state

    one, other, (model, optimizer) = Anything(), Anything(), _trained()
    one.state = {3: (b"\x00x", None), "$a": {1, 2}, "nan": -0.0, "c": collections.Counter({5: 2}), "t": [torch.eye(2)]}
    schedule, again = MultiStepLR(optimizer, [2, 5]), MultiStepLR(_trained()[1], [1])
    autopar.save(model, optimizer, tmp_path, step=1, extras={"any": one, "schedule": schedule})
    autopar.load(model, optimizer, tmp_path, extras={"any": other, "schedule": again})
    assert again.milestones == collections.Counter([2, 5])
    assert str(other.state) == str(one.state)
    one.state = {"deep": [object()]}
    with pytest.raises(CheckpointError, match=r"extras.any.deep.0 is a object, which a checkpoint cannot"):
        autopar.save(model, optimizer, tmp_path, step=2, extras={"any": one})


def test_the_last_ones_stay(tmp_path: Path) -> None:
    """As many as asked for, counted by when they were written and not by their steps."""
    model, optimizer = _trained()
    for step in (10, 20, 30):
        autopar.save(model, optimizer, tmp_path, step=step, keep=2)
    assert autopar.load(model, optimizer, tmp_path / "step-00000020").step == 20
    autopar.save(model, optimizer, tmp_path, step=25, keep=2)
    again = autopar.save(model, optimizer, tmp_path, step=25, keep=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["latest", "step-00000025", "step-00000025.1"]
    assert autopar.load(model, optimizer, tmp_path).path == again.resolve()


def test_no_checkpoint(tmp_path: Path) -> None:
    """An error, or None for a run that may be at its beginning."""
    model, optimizer = _trained()
    assert autopar.load(model, optimizer, tmp_path / "new", missing_ok=True) is None
    _refused(tmp_path / "new", r"There is no checkpoint in .*new\. Give the folder")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (
            lambda: nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(8)),
            r"another model: '1.weight' is float32\[16\] in the",
        ),
        (
            lambda: nn.Sequential(nn.Linear(6, 16).half()),
            r"'0.weight' is float32\[16, 6\] in .* float16\[16, 6\] in",
        ),
        (lambda: nn.Sequential(nn.Linear(6, 16)), r"'1.weight' is in the checkpoint alone\. Build the model"),
        (lambda: nn.Sequential(*build()[0], nn.Linear(1, 1)), r"'5.weight' is in the model alone"),
    ],
)
def test_checkpoint_of_another_model(run: Path, other: object, what: str) -> None:
    """The first difference has a name."""
    _refused(run, what, other())


def test_other_optimizer_and_extras(run: Path) -> None:
    """What was not saved, or is grouped otherwise, is named."""
    model, optimizer = _trained()
    fewer = torch.optim.AdamW(list(model.parameters())[:2])
    with pytest.raises(CheckpointError, match=r"The AdamW groups the parameters otherwise .* group 0 has others"):
        autopar.load(model, fewer, run)
    with pytest.raises(UsageError, match=r"no extra in .* named 'scaler'") as caught:
        autopar.load(model, optimizer, run, extras={"scaler": torch.amp.GradScaler("cpu")})
    assert isinstance(caught.value, UnknownNameError)
    with pytest.raises(UsageError, match=r"The loader is a list.*autopar.shard\(loader, resumable=True\)"):
        autopar.load(model, optimizer, run, loader=[])
    with pytest.raises(CheckpointError, match="Parameter 0 of the SGD is not one of the model's"):
        autopar.save(model, torch.optim.SGD([nn.Parameter(torch.ones(1))]), run, step=8)


def test_damaged_files(run: Path) -> None:
    """Truncated, missing, newer, of something else: each is said, with the file."""
    (folder,) = run.glob("step-*")
    data, origin = folder / "__0_0.distcp", folder / "autopar.json"
    size = data.stat().st_size
    with data.open("ab") as file:
        file.truncate(size - 10)
    _refused(run, re.escape(f"__0_0.distcp has {size - 10:,} bytes and had {size:,}"))
    data.rename(folder / "gone")
    _refused(run, r"is incomplete: __0_0.distcp is missing\. Load an older")
    (folder / "gone").rename(data)
    data.write_bytes(b"\0" * size)
    _refused(run, "The tensors in .* cannot be read")
    content = json.loads(origin.read_text())
    for changed, what in (
        ({**content, "format": 99}, "has format 99; this autopar reads format 1. A newer autopar wrote it"),
        ({"format": 1}, "is damaged: it has no extras, files"),
        ([], "is no checkpoint of autopar's"),
    ):
        origin.write_text(json.dumps(changed))
        _refused(run, what)
    origin.write_text("{")
    _refused(run, "autopar.json cannot be read")


class _Code:
    def __reduce__(self) -> object:
        return (print, ("run",))


def test_index_cannot_run_code(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DCP's index is a pickle; one that names anything but its records is refused, and nothing runs."""
    (folder,) = run.glob("step-*")
    bytes_before = (folder / ".metadata").stat().st_size
    code = pickle.dumps(_Code())
    (folder / ".metadata").write_bytes(code + b"\0" * (bytes_before - len(code)))
    _refused(run, "The checkpoint's index asks for builtins.print, which is no record of a checkpoint")
    assert "run" not in capsys.readouterr().out
