"""Pages that show what the tool prints are right: made anew, they are the same, pictures included."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from autopar.passes.registry import passes
from tests.ranks import run_ranks

DOCS = Path(__file__).parents[1] / "docs"


def generate() -> Callable[..., tuple[str, dict[str, str]]]:
    """The function of ``docs/generate.py``, which is no part of a package."""
    function: Callable[..., tuple[str, dict[str, str]]] = runpy.run_path(str(DOCS / "generate.py"))["generate"]
    return function


def run_here(script: str) -> str:
    """Runs a script on this rank; what it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(script, run_name="__main__")
    return output.getvalue()


def launch(words: Sequence[str]) -> str:
    """``autopar run --nproc 2 SCRIPT``, on ranks that have imported torch already."""
    *launcher, script = words
    assert launcher == ["autopar", "run", "--nproc", "2"]
    return "".join(run_ranks(run_here, 2, str(Path(script).resolve()), timeout=100))


@pytest.fixture
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plug-ins of the pages are known while a page is made only."""
    monkeypatch.setenv("AUTOPAR_PLUGINS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    passes.remove("inplace-relu")
    sys.modules.pop("autopar_plugin_inplace_relu", None)


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("page", ["tutorial.md", "how-it-works.md"])
def test_page_is_what_the_tool_prints(page: str) -> None:
    """`make docs` mends it where it is not."""
    shown = (DOCS / page).read_text(encoding="utf-8")
    made, pictures = generate()(shown, launch)
    assert made == shown
    for name, picture in pictures.items():
        assert (DOCS / "pictures" / name).read_text(encoding="utf-8") == picture
    assert "autopar: error" not in made
    assert "Traceback" not in made


def test_page_that_is_out_of_date_is_noticed() -> None:
    """A listing that says something else is replaced."""
    old = "<!-- file a.py -->\n```python\nprint(3)\n```\n\n<!-- run -->\n```console\n$ python a.py\n2\n```\n"
    assert generate()(old) == (old.replace("2\n```", "3\n```"), {})


def test_tests_that_the_comparison_with_ddp_names_are_there() -> None:
    """Each row of the page says where it is shown; torch's own tests are marked as such."""
    page = (DOCS / "ddp.md").read_text(encoding="utf-8")
    ours = re.sub(r"torch's `\w+\*?`(, `\w+\*?`)*", "", page)
    sources = "".join(file.read_text(encoding="utf-8") for file in DOCS.parent.glob("tests/**/test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", ours))
    assert len(named) > 40
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []
    files = set(re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", page))
    assert [name for name in sorted(files) if not [*DOCS.parent.glob(f"tests/**/{name}")]] == []
