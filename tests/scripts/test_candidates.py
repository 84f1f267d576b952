"""Finding the model of a script, and saying what to choose from."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autopar.errors import ModelError, UsageError
from autopar.scripts.candidates import find_model

HEAD = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(width, 1)
    def forward(self, x):
        return self.fc(x)
"""
NEEDY = HEAD.replace("width=4", "width, depth")

Find = Callable[..., Any]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Finds the model in a script that is given as text."""

    def find_in(text: str, *, head: str = HEAD, name: str = "", model: str | None = None) -> Any:
        path = tmp_path / "some.py"
        path.write_text(head + textwrap.dedent(text))
        return find_model(f"{path}:{name}" if name else str(path), model)

    return find_in


def test_the_guides_script() -> None:
    """The script that users start from gives its wrapped instance, unwrapped."""
    found = find_model(str(Path(__file__).parents[2] / "examples" / "mymodel.py"))
    assert (found.name, type(found.model).__name__) == ("model", "MyModel")
    assert found.how == "instance model (mymodel.py:16)"


def test_a_class(find: Find) -> None:
    """One class that builds without arguments is the model."""
    found = find("")
    assert found.how == "class Net (some.py:5)"
    assert list(found.model.state_dict()) == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("head", ["def build_model():", "def tiny() -> nn.Module:"])
def test_a_factory(find: Find, head: str) -> None:
    """A function with a factory's name or annotation hides the class that it returns."""
    found = find(f"{head}\n    return Net(3)\n")
    assert found.how.startswith("function ")
    assert found.model.fc.in_features == 3


def test_an_instance_hides_what_it_is_made_with(find: Find) -> None:
    """Class and factory behind an instance are no candidates of their own."""
    assert find("def build_model(): return Net(5)\nmodel = build_model()").how == "instance model (some.py:12)"


def test_a_rebound_instance_is_one_candidate(find: Find) -> None:
    """Moving, wrapping and changing an instance keeps it the one candidate."""
    found = find("""
        net = Net(2)
        net = nn.DataParallel(net.to("cuda"))
        net.fc = nn.Linear(2, 9)
    """)
    assert found.model.fc.out_features == 9


def test_parts_are_no_candidates(find: Find) -> None:
    """A class used by another, an encoder inside of a model, and a loss are left out."""
    assert find("class Big(nn.Module):\n    net = Net\n    def forward(self, x): return x").name == "Big"
    assert find("encoder = Net()\nmodel = nn.Sequential(encoder, nn.ReLU())").name == "model"
    assert find("model = Net()\ncriterion = nn.CrossEntropyLoss()").name == "model"
    assert find("class Loss(nn.Module):\n    def forward(self, x): return x.sum()").name == "Net"


def test_values_that_are_no_modules_are_not_evaluated(find: Find) -> None:
    """Data, optimizers and outputs of the module are not touched in the search."""
    found = find("""
        model = Net()
        data = open("/does/not/exist")
        optimizer = torch.optim.SGD(model.parameters(), lr=1 / 0)
        output = model(data)
    """)
    assert found.name == "model"


def test_seeded_weights_are_the_scripts(find: Find) -> None:
    """The weights are those that the script itself would draw."""
    found = find("import torch\ntorch.manual_seed(3)\nmodel = torch.nn.Linear(4, 4)\n", head="")
    torch.manual_seed(3)
    assert torch.equal(found.model.weight, nn.Linear(4, 4).weight)


@pytest.mark.parametrize("how", [{"name": "b"}, {"model": "b"}])
def test_choosing_by_name(find: Find, how: dict[str, str]) -> None:
    """A name in the path or beside it chooses among several."""
    assert find("a = Net(1)\nb = Net(2)", **how).model.fc.in_features == 2


def test_choosing_an_attribute(find: Find) -> None:
    """A dotted name reaches inside of a module-level value."""
    assert isinstance(find("holder = Net()", name="holder.fc").model, nn.Linear)


def test_several(find: Find) -> None:
    """Several candidates are listed with their lines and the way to choose."""
    with pytest.raises(UsageError, match=r"2 models: instance a \(some.py:12\), instance b .*some.py:a, or --model a"):
        find("\na = Net(1)\nb = Net(2)")


def test_none(find: Find) -> None:
    """A file without a model says what was looked for."""
    with pytest.raises(ModelError, match=r"No model was found in .*some\.py\. autopar looked for .*build_model\(\)"):
        find("x = 1", head="")


def test_arguments_needed(find: Find) -> None:
    """A class that needs arguments is named with them and with the mend."""
    with pytest.raises(ModelError, match=r"class Net \(some.py:5\) needs width, depth.*model = Net\(width=\.\.\., d"):
        find("", head=NEEDY)


def test_arguments_needed_by_the_named_class(find: Find) -> None:
    """The same when the class was asked for by name."""
    with pytest.raises(ModelError, match=r"class Net \(some.py:5\) needs arguments: width, depth\."):
        find("", head=NEEDY, name="Net")


def test_broken_constructor(find: Find) -> None:
    """A constructor that raises is named with its line."""
    with pytest.raises(ModelError, match=r"some\.py:8: `self\.fc = .*` raised TypeError"):
        find("", head=HEAD.replace("width=4", "width='x'"))


def test_broken_instance_is_not_passed_over(find: Find) -> None:
    """An instance that fails is an error, though its class alone would build."""
    with pytest.raises(ModelError, match=r"some\.py:11: `model = Net\(1 // 0\)` raised ZeroDivisionError"):
        find("model = Net(1 // 0)")


def test_import_behind_the_model_fails(find: Find) -> None:
    """Where there is no model because an import failed, the import is the error."""
    with pytest.raises(ModelError, match="`import surely_not_installed` raised ModuleNotFoundError"):
        find("import surely_not_installed\nclass A(surely_not_installed.Module): pass", head="")


def test_unknown_name(find: Find) -> None:
    """A name that is not there is a usage error with the nearest one."""
    with pytest.raises(UsageError, match=r"nothing named 'Nett' at module level. Did you mean 'Net'"):
        find("", name="Nett")


def test_name_in_the_main_guard(find: Find) -> None:
    """A name bound in the main guard is not run for; the error says where and why."""
    with pytest.raises(UsageError, match=r"'late' is bound only at .*some\.py:11"):
        find("if __name__ == '__main__':\n    late = Net()", name="late")


def test_name_of_something_else(find: Find) -> None:
    """A name that is no model is an error that says what it is."""
    with pytest.raises(ModelError, match=r"size in .*is of type int, not a model"):
        find("size = 3", name="size")


def test_factory_that_returns_something_else(find: Find) -> None:
    """A factory must return a module."""
    with pytest.raises(ModelError, match=r"function make_model\(\) \(some.py:1\) returned something of type int"):
        find("def make_model(): return 3", head="")


def test_two_names(find: Find) -> None:
    """Two different names contradict each other."""
    with pytest.raises(UsageError, match="Two models are named"):
        find("", name="Net", model="Other")
