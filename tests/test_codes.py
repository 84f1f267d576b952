"""Codes: each is used, has a page, and the example of its page makes it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import autopar
from autopar import errors
from autopar.codes import CODES, page
from autopar.errors import AutoparError, UnknownNameError
from autopar.passes.registry import passes
from tests.cli.conftest import Command, command  # noqa: F401

ROOT = Path(autopar.__file__).parent
EXAMPLE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def used() -> dict[str, set[str]]:
    """Codes that stand in the source, with the kinds of remarks that carry them; ``"error"`` for all others."""
    found: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        if file.name == "codes.py":
            continue
        tree = ast.parse(file.read_text())
        remarks = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Remark"]
        within = {id(inner) for remark in remarks for inner in ast.walk(remark)}
        for remark in remarks:
            given = {keyword.arg: keyword.value for keyword in remark.keywords}
            assert {"code", "kind"} <= given.keys(), f"{file}:{remark.lineno} has no code"
            found.setdefault(ast.literal_eval(given["code"]), set()).add(ast.literal_eval(given["kind"]))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and re.fullmatch(r"AP\d+", str(node.value)) and id(node) not in within:
                found.setdefault(str(node.value), set())
    return {code: kinds or {"error"} for code, kinds in found.items()}


def test_codes_and_pages_are_those_in_use() -> None:
    """No code without its entry and page, none that nothing makes, and the kind is the one in the source."""
    assert used() == {code: {kind} for code, (kind, _) in CODES.items()}
    assert {file.stem for file in (ROOT / "pages").iterdir()} == CODES.keys()


def test_every_class_of_errors_has_a_code() -> None:
    """Of its own: two classes share none."""
    codes = [cls.code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, AutoparError)]
    assert len(set(codes)) == len(codes)
    assert {CODES[code][0] for code in codes if code} == {"error"}


@pytest.mark.parametrize("code", CODES)
def test_page_says_what_it_means_how_it_comes_and_what_to_do(code: str) -> None:
    """Title, meaning, example, mend."""
    title, meaning, *rest = page(code).split("\n\n")
    assert title == f"# {code}: {CODES[code][1]}"
    assert not meaning.startswith("#")
    assert [part for part in rest if part.startswith("#")] == ["## Example", "## How to mend it"]
    assert not rest[-1].startswith("#")
    assert max(map(len, page(code).splitlines())) <= 180


def test_unknown_code() -> None:
    """The nearest are suggested, and where all are; not all in one line."""
    with pytest.raises(
        UnknownNameError, match=r"Did you mean 'AP90.*`autopar explain --list` prints all codes"
    ) as caught:
        page("AP902")
    assert str(caught.value).count("AP") < 6


def test_all_codes_are_listed(command: Command) -> None:  # noqa: F811
    """A line for each, with its kind and title."""
    lines = command("explain", "--list").out.splitlines()
    assert [line.split()[:2] for line in lines] == [[code, kind] for code, (kind, _) in CODES.items()]
    assert all(line.endswith(CODES[line[:5]][1]) for line in lines)


# What needs several processes, or a defect.
NOT_RUN = {"AP109", "AP302", "AP303", "AP304", "AP305", "AP901"}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What the examples that were run have said: many pages share one."""
    return {}


@pytest.fixture
def own_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes back the passes that an example makes known."""
    monkeypatch.setenv("AUTOPAR_PLUGINS", "")
    before = set(passes.names())
    yield
    for name in set(passes.names()) - before:
        passes.remove(name)


@pytest.mark.usefixtures("own_plugins")
@pytest.mark.parametrize("code", sorted(CODES.keys() - NOT_RUN))
def test_example_makes_it(
    code: str,
    said: dict[str, str],
    command: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The files of the page and its commands, in an empty folder; the code is on the terminal."""
    blocks = EXAMPLE.findall(page(code))
    key = str(blocks)
    if key not in said:
        said[key] = ""
        for language, text in blocks:
            if language == "python":
                name, _, content = text.partition("\n")
                Path(name.removeprefix("# ")).write_text(content)
            else:
                for line in text.splitlines():
                    said[key] += _run(line.removeprefix("$ "), command, monkeypatch)
    assert f"[{code}]" in said[key]


def _run(line: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    words = shlex.split(line)
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            patch.setenv(*words.pop(0).split("=", 1))
        assert words.pop(0) == "autopar"
        ended = command(*words)
    return ended.out + ended.err
