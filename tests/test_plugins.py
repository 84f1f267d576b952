"""Passes and strategies of other packages are found through their entry points."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from autopar import plugins
from autopar.capture.ladder import capture
from autopar.compilation import compile_program
from autopar.errors import UnknownNameError, UsageError
from autopar.passes.base import PassContext
from autopar.passes.pipeline import build, parse
from autopar.passes.registry import passes
from autopar.passes.runner import run_pipeline
from autopar.plugins import Registry
from autopar.strategies import resolve, strategies

SOURCE = Path(__file__).parent / "plugin_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package installed into it, by pip, without a network."""
    home = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, home / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(home / "site"), str(home / "source")],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return home / "site"


def test_installed_pass_runs_in_a_pipeline(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, with its options, under the contract, and known by its package."""
    monkeypatch.syspath_prepend(str(installed))
    assert "count-operations" in passes.names()
    assert passes.origin("count-operations") == "autopar-example 1.2.3"
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    program = capture(model, (torch.ones(2, 4),))
    program, records = run_pipeline(program, build(parse("inline-modules,count-operations{most=1}")), PassContext())
    assert [record.name for record in records] == ["inline-modules", "count-operations"]
    assert program.remarks[-1].message == "The most frequent operations: 2 linear."


def test_installed_strategy_is_resolved_and_compiles(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own pipeline runs, with its own pass."""
    monkeypatch.syspath_prepend(str(installed))
    assert strategies.origin("counted") == "autopar-example 1.2.3"
    strategy = resolve("counted", {"bucket_cap_mb": 1})
    compilation = compile_program(nn.Linear(4, 2), (torch.ones(3, 4),), {}, strategy)
    assert compilation.plan.strategy == "counted"
    assert "count-operations" in [record.name for record in compilation.records]


def test_it_is_unknown_where_it_is_not_installed(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, and again afterwards: what is found follows ``sys.path``."""
    assert "count-operations" not in passes.names()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(installed))
        assert "count-operations" in passes.names()
    with pytest.raises(UnknownNameError, match="no pass named 'count-operations'"):
        passes.get("count-operations")


def advertise(folder: Path, package: str, points: str) -> None:
    """Writes the metadata of an installed package."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[things]\n{points}\n")


@pytest.fixture
def things() -> Registry[object]:
    """A registry of a group that nobody uses."""
    return Registry("thing", group="things")


def test_package_installed_later_is_found(
    things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is on the path already has changed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    assert things.names() == []
    advertise(tmp_path, "late", "one = os:path")
    assert things.names() == ["one"]
    assert things.get("one") is os.path
    shutil.rmtree(tmp_path / "late-1.0.dist-info")
    assert things.names() == []


def test_metadata_is_read_once(things: Registry[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading that of all packages at every look-up took most of a compilation's start."""
    reads: list[str] = []
    original: Callable[..., list[EntryPoint]] = plugins.entry_points
    monkeypatch.setattr(plugins, "entry_points", lambda group: reads.append(group) or original(group=group))
    for _ in range(3):
        things.names()
    assert reads == ["things"]


def test_two_packages_with_one_name(things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither wins silently; both are named."""
    advertise(tmp_path, "first", "one = os:path")
    advertise(tmp_path, "second", "one = os:sep\ntwo = os:sep")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"'one' is advertised by several packages: (first|second) 1\.0 and"):
        things.get("one")
    assert things.get("two") == os.sep


@pytest.mark.parametrize("point", ["one = no_such_module:x", "one = os:no_such_name"])
def test_package_that_cannot_be_imported(
    point: str, things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package and the reason are named; other names still work."""
    advertise(tmp_path, "broken", point)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"thing 'one' is advertised by broken 1\.0 but cannot be loaded: .*no_such"):
        things.get("one")
    assert things.names() == ["one"]


def test_added_object_hides_no_advertised_one(
    things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the other way round."""
    advertise(tmp_path, "first", "one = os:path")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"already a thing named 'one', from first 1\.0"):
        things.add("one", object())


def test_unknown_name_suggests_the_nearest(things: Registry[object]) -> None:
    """And says what the kind of thing is."""
    things.add("bucket", object())
    with pytest.raises(UnknownNameError, match=r"no thing named 'buckets'\. Did you mean 'bucket'\? Known: bucket\."):
        things.get("buckets")
    with pytest.raises(UnknownNameError, match=r"no thing named .zebra.\. Known: bucket\. .*`pip install -e \.`"):
        things.get("zebra")


def test_entry_point_that_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that names it says what is missing."""
    advertise(tmp_path, "first", "unused = os:path")
    points = tmp_path / "first-1.0.dist-info" / "entry_points.txt"
    points.write_text("[autopar.passes]\nnot-a-pass = collections:Counter\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="Counter cannot be used as a pass: it has no name, requires, provides, run"):
        build(parse("not-a-pass"))
