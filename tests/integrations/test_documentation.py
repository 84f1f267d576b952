"""The scripts in docs/integrations, as they stand, under ``autopar run``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autopar.scripts.run import run_script
from tests.integrations.wrappers import LINE, needs

PAGES = Path(__file__).parents[2] / "docs" / "integrations"
LIBRARIES = {"transformers": ("accelerate", "transformers"), "accelerate": ("accelerate",), "lightning": ("lightning",)}


@pytest.mark.parametrize("page", [pytest.param(page, marks=needs(*names)) for page, names in LIBRARIES.items()])
def test_the_script_of_a_page_runs(
    page: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two ranks, with autopar's wrapper, and with a line that says so."""
    (code,) = re.findall(r"```python\n(.*?)```", (PAGES / f"{page}.md").read_text(), re.DOTALL)
    (tmp_path / "train.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ended = run_script("train.py", nproc=2, device="cpu")
    out, err = capfd.readouterr()
    assert ended == 0, err
    assert out.count("autopar.nn.distributed") == 2
    assert len(re.findall(LINE.format(r"\w+\.py:\d+"), err)) == 1
