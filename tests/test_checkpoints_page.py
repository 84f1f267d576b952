"""docs/checkpoints.md is right: its script runs as it stands, and leaves the files that the page lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To its end, and from the last checkpoint to the same end once more."""
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    spaces: list[dict[str, object]] = [{}, {}]
    for space in spaces:
        exec(compile(first, "docs/checkpoints.md", "exec"), space)
    whole, resumed = spaces
    assert whole["last"] is None
    assert resumed["last"].step == 10  # type: ignore[attr-defined]
    pairs = zip(whole["model"].parameters(), resumed["model"].parameters(), strict=True)  # type: ignore[attr-defined]
    assert all(torch.equal(one, other) for one, other in pairs)
    exec(compile(second, "docs/checkpoints.md", "exec"), whole)
    assert isinstance(whole["momenta"], torch.Tensor)
    listed = re.findall(r"^ {8}(\S+)", PAGE.partition("## On the disk")[2], flags=re.MULTILINE)
    there = (tmp_path / "runs" / "example" / "latest").iterdir()
    assert sorted(listed) == sorted(file.name for file in there)
