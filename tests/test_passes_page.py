"""docs/passes.md is right: its code runs as it stands, and every option that it names is one of transform's."""

from __future__ import annotations

import re
from pathlib import Path

from autopar.cli.transform import transform

PAGE = (Path(__file__).parents[1] / "docs" / "passes.md").read_text()


def test_code_of_the_page_runs() -> None:
    """The observer sees both passes of a trace."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    namespace: dict[str, object] = {}
    exec(compile(block, "docs/passes.md", "exec"), namespace)
    assert namespace["sizes"].found == [("inline-modules", 5), ("shapes", 5)]  # type: ignore[attr-defined]


def test_options_of_the_page_exist() -> None:
    """In its table."""
    named = set(re.findall(r"`(--[a-z-]+)", PAGE.partition("## When")[0]))
    known = {text for parameter in transform.params for text in parameter.opts}
    assert len(named) > 7
    assert named <= known
