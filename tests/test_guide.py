"""docs/guide.md is right: its script trains on two ranks as it stands, and it names everything public."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import autopar
from tests.runtime.pairs import Ranks

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"


def run_guide(folder: str) -> dict[str, Any]:
    """Runs the guide's script on this rank; returns what it came to."""
    os.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 6
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("\n".join(blocks), str(GUIDE), "exec"), namespace)
    return {
        "state": {name: value.clone() for name, value in namespace["model"].state_dict().items()},
        "batches": [len(x) for x, _ in namespace["batches"]],
        "first": namespace["batches"][0][0],
    }


def test_the_script_of_the_guide_trains_on_two_ranks(ranks: Ranks, tmp_path: Path) -> None:
    """Alike on both, each with its part of the data; the buffers are rank 0's, as the guide says."""
    one, other = ranks(run_guide, 2, str(tmp_path))
    assert one["batches"] == other["batches"] == [8] * 4
    assert not torch.equal(one["first"], other["first"])
    for name, value in one["state"].items():
        assert torch.equal(value, other["state"][name]), name
    assert list(torch.load(tmp_path / "model.pt")) == list(one["state"])


@pytest.mark.parametrize("name", [name for name in autopar.__all__ if not name.startswith("_")])
def test_every_public_name_is_in_the_guide(name: str) -> None:
    """In its last table."""
    table = GUIDE.read_text().partition("## Everything public")[2]
    assert f"`{name}`" in table
