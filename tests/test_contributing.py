"""CONTRIBUTING.md is right: its code runs, in order, as it stands."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

from autopar.passes.registry import passes
from autopar.strategies import strategies

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


# The names of the guide's examples, and what they are called here: whoever follows the guide to the
# letter has a pass and a strategy of these names in the package, and two of one name are refused.
NAMES = {"report-largest": "report-largest-of-the-guide", '"alone"': '"alone-of-the-guide"'}


def test_every_step_of_the_guide_runs() -> None:
    """The pass, the strategy and the picture of the guide work as printed."""
    module = types.ModuleType("contributing_guide")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    text = GUIDE.read_text()
    for name, ours in NAMES.items():
        assert name in text
        text = text.replace(name, ours)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 5
    try:
        exec(compile("\n".join(blocks), str(GUIDE), "exec"), vars(module))
    finally:
        passes.remove("report-largest-of-the-guide")
        passes.remove("print-size")
        strategies.remove("alone-of-the-guide")
        del sys.modules[module.__name__]
