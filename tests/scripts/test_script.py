"""Loading a script runs what its model is made from, and nothing else."""

from __future__ import annotations

import pickle
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autopar.errors import ModelError, UsageError
from autopar.scripts.script import LoadedScript, load_script

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a script and returns its path."""

    def write_text(text: str) -> Path:
        path = tmp_path / "scripted.py"
        path.write_text(textwrap.dedent(text))
        return path

    return write_text


@pytest.fixture
def load(write: Write) -> Callable[[str], LoadedScript]:
    """Loads a script from its text."""
    return lambda text: load_script(write(text))


def test_training_code_does_not_run(load: Callable[[str], LoadedScript]) -> None:
    """Calls, loops that train and the main guard are left alone when a value is evaluated."""
    script = load("""
        ran = []
        def fit(): raise SystemExit("trained")
        n = 2 + 1
        fit()
        for step in range(3):
            n = fit()
            loss.backward()
        if __name__ == "__main__":
            n = fit()
    """)
    assert script.evaluate("n") == 3


def test_only_what_the_value_reads_runs(load: Callable[[str], LoadedScript]) -> None:
    """A statement that the value is not made from does not run, whatever it would do."""
    script = load("""
        data = open("/does/not/exist").read()
        width = len("abc")
        size = width * 2
        lost = data + 1
    """)
    assert script.evaluate("size") == 6


def test_names_in_functions_count_when_they_are_called(load: Callable[[str], LoadedScript]) -> None:
    """A function body's globals are made before it is called; its locals are not looked up."""
    script = load("""
        def double():
            data = factor * 2
            return data
        data = open("/does/not/exist")
        factor = int("4")
        value = double()
    """)
    assert script.evaluate("value") == 8


def test_building_calls_run(load: Callable[[str], LoadedScript]) -> None:
    """A list that is appended to, and an argument parser, come out whole."""
    script = load("""
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--width", type=int, default=7)
        args = parser.parse_args()
        sizes = list()
        for i in range(2):
            sizes.append(args.width + i)
    """)
    assert script.evaluate("sizes") == [7, 8]


def test_a_value_is_seen_where_it_is_asked_for(load: Callable[[str], LoadedScript]) -> None:
    """A statement that runs late sees its names as they were at its line."""
    script = load("""
        n = 10
        early = [n]
        n = 5
        late = [n]
    """)
    assert script.evaluate("late") == [5]
    assert script.evaluate("early") == [10]
    assert script.evaluate("n") == 5


def test_a_statement_runs_once(load: Callable[[str], LoadedScript]) -> None:
    """Two values that are made from one object share it."""
    script = load("""
        shared = object()
        first = [shared]
        second = [shared]
    """)
    assert script.evaluate("first")[0] is script.evaluate("second")[0]


def test_seeds_run(load: Callable[[str], LoadedScript]) -> None:
    """A seed at module level holds for what is made after it."""
    script = load("""
        import torch
        torch.manual_seed(5)
        drawn = torch.rand(3)
    """)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(1)
    again = load_script(script.path)
    assert torch.equal(again.evaluate("drawn"), expected)


def test_wrappers_and_launchers_are_inert(load: Callable[[str], LoadedScript]) -> None:
    """DataParallel and DDP give the module itself; ranks read as one process."""
    from torch import nn

    before = nn.DataParallel, nn.parallel.DistributedDataParallel
    script = load("""
        import os, torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        dist.init_process_group("nccl")
        rank = int(os.environ["RANK"]) + dist.get_rank()
        inner = nn.Linear(2, 2).to(rank)
        model = DDP(nn.DataParallel(inner), device_ids=[rank])
    """)
    assert script.evaluate("model") is script.evaluate("inner")
    assert before == (nn.DataParallel, nn.parallel.DistributedDataParallel)


def test_the_module_is_real(load: Callable[[str], LoadedScript]) -> None:
    """Instances of its classes pickle; __file__, __name__ and sys.argv are as for an import."""
    script = load("""
        import sys
        class Thing: pass
        argv = list(sys.argv)
        name = __name__ + ""
    """)
    thing = script.evaluate("Thing")
    assert type(pickle.loads(pickle.dumps(thing()))) is thing
    assert script.evaluate("argv") == [str(script.path)]
    assert script.evaluate("name") != "__main__"
    assert script.module.__file__ == str(script.path)


def test_siblings_are_importable(load: Callable[[str], LoadedScript], tmp_path: Path) -> None:
    """The file's folder is first on sys.path while it loads, and not afterwards."""
    (tmp_path / "sibling_of_scripted.py").write_text("value = 3")
    before = list(sys.path)
    assert load("from sibling_of_scripted import value").evaluate("value") == 3
    assert sys.path == before


def test_prints_do_not_reach_standard_output(
    load: Callable[[str], LoadedScript], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the script prints goes to standard error, beside autopar's own output."""
    load("""
        def make():
            print("making")
            return 1
        value = make()
    """).evaluate("value")
    assert capsys.readouterr() == ("", "making\n")


def test_future_imports_hold_for_all_statements(load: Callable[[str], LoadedScript]) -> None:
    """Annotations stay strings where the file asks for it."""
    script = load("""
        from __future__ import annotations
        def f(x: Unknown) -> Missing: return 1
    """)
    assert script.evaluate("f").__annotations__ == {"x": "Unknown", "return": "Missing"}


def test_missing_file() -> None:
    """A file that is not there is a usage error that names it."""
    with pytest.raises(UsageError, match=r"nowhere\.py does not exist\. Give the path"):
        load_script("nowhere.py")


def test_folder(tmp_path: Path) -> None:
    """A folder is a usage error."""
    with pytest.raises(UsageError, match="is a folder, not a file"):
        load_script(tmp_path)


def test_not_python(tmp_path: Path) -> None:
    """A file of another kind is a model error."""
    path = tmp_path / "model.txt"
    path.write_text("model = 1")
    with pytest.raises(ModelError, match=r"model\.txt is not a Python file"):
        load_script(path)


@pytest.mark.parametrize("content", [b"x = 1\nmodel = (\n", b"x = 1\nmodel = '\xff'\n"])
def test_syntax_error(tmp_path: Path, content: bytes) -> None:
    """A syntax error names file and line; bytes that are no text count as one."""
    path = tmp_path / "broken.py"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.py:\d+: syntax error"):
        load_script(path)


def test_failed_import_is_named_when_needed(load: Callable[[str], LoadedScript]) -> None:
    """An import that fails is an error only for what is made from it."""
    script = load("""
        import surely_not_installed
        fine = len("ab")
        value = surely_not_installed.make()
    """)
    assert script.evaluate("fine") == 2
    with pytest.raises(ModelError, match=r"scripted\.py:2: `import surely_not_installed` raised Module.*Install"):
        script.evaluate("value")


def test_failed_statement_names_its_line(load: Callable[[str], LoadedScript]) -> None:
    """The line in the file that raised is named, also inside of a function."""
    script = load("""
        def make(n):
            return 1 // n
        value = make(0)
    """)
    with pytest.raises(ModelError, match=r"scripted\.py:3: `return 1 // n` raised ZeroDivisionError"):
        script.evaluate("value")


def test_exit_names_its_line(load: Callable[[str], LoadedScript]) -> None:
    """A required command-line argument ends the script: the error says so and how to go on."""
    script = load("""
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--width", required=True)
        args = parser.parse_args()
    """)
    with pytest.raises(ModelError, match=r"scripted\.py:5: `args = .* ended the program.*build_model"):
        script.evaluate("args")
