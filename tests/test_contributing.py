"""CONTRIBUTING.md is right: its code runs, in order, as it stands."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

from autopar.passes.registry import passes
from autopar.strategies import strategies

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def test_every_step_of_the_guide_runs() -> None:
    """The pass, the strategy and the picture of the guide work as printed."""
    module = types.ModuleType("contributing_guide")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 5
    try:
        exec(compile("\n".join(blocks), str(GUIDE), "exec"), vars(module))
    finally:
        passes.remove("report-largest")
        strategies.remove("alone")
        del sys.modules[module.__name__]
