"""Which statements a name is made from, told from syntax."""

from __future__ import annotations

import ast

import pytest

from autopar.scripts.names import mutated_names, reads
from autopar.scripts.slicing import Slicer


def sliced(source: str, name: str) -> list[str]:
    """Source lines of the slice of one name at the end of the file."""
    slicer = Slicer(ast.parse(source))
    return [ast.unparse(slicer.statements[i].node) for i in sorted(slicer.slice({name}).statements)]


@pytest.mark.parametrize(
    ("source", "now", "later"),
    [
        ("def f(a, b=c): return a + d", {"c"}, {"d"}),
        ("f = lambda x: x + y", set(), {"y"}),
        ("def f():\n  global g\n  g = 1\n  h = g\n  return h", set(), {"g"}),
        ("v = [i for i in items if i > low]", {"items", "low"}, set()),
        ("class A(B, metaclass=M):\n  k = 1\n  j = k + n\n  def f(self): return k", {"B", "M", "n"}, {"k"}),
        ("x += y", {"x", "y"}, set()),
        ("@wrap\ndef f(x: T) -> R: pass", {"wrap", "T", "R"}, set()),
    ],
)
def test_reads(source: str, now: set[str], later: set[str]) -> None:
    """Reads of a statement, and of the bodies of functions in it, without local names."""
    found = reads(ast.parse(source).body[0])
    assert (found.now, found.later) == (now, later)


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("model.fc = Linear(2, 2)", {"model"}),
        ("config['a']['b'] = 1", {"config"}),
        ("model.eval()", {"model"}),
        ("nn.init.zeros_(model.fc.weight)", {"model"}),
        ("model.fc.weight.data.fill_(0)", {"model"}),
        ("torch.nn.utils.clip_grad_norm_(model.parameters(), 1)", set()),
        ("for x in loader: model.eval(); model(x)", set()),
        ("trainer.fit(model)", set()),
        ("model.load_state_dict(state)", set()),
    ],
)
def test_changes_in_place(source: str, changed: set[str]) -> None:
    """Building changes an object; running it does not."""
    assert mutated_names(ast.parse(source).body[0], imported=frozenset({"torch", "nn"})) == changed


def test_a_new_value_hides_older_ones() -> None:
    """Statements before a sure rebinding are left out."""
    assert sliced("n = 1\nn = 2\nn += 3", "n") == ["n = 2", "n += 3"]


def test_a_branch_hides_nothing() -> None:
    """What a branch may rebind keeps its older value in the slice."""
    assert len(sliced("n = 1\nif flag: n = 2", "n")) == 2


def test_later_rebinding_is_not_read() -> None:
    """A statement reads the values of its own line."""
    assert sliced("n = 1\nm = n\nn = boom()", "m") == ["n = 1", "m = n"]


def test_training_never_is_in_a_slice() -> None:
    """A block with backward() or step() is left out, also when it binds the name."""
    assert sliced("n = 1\nfor i in x:\n  n = i\n  loss.backward()", "n") == ["n = 1"]
