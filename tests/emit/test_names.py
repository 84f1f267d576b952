"""No name of the user's can become code, and no name hides another."""

from __future__ import annotations

import torch
from torch import fx

from autopar.emit import emit_forward
from autopar.emit.attributes import attribute
from autopar.emit.names import Scope, in_text, is_identifier, quoted
from tests.emit import models
from tests.emit.compiled import assert_equal, step
from tests.emit.handmade import program_of, unary


def run(text: str) -> object:
    """The function that a printed forward defines."""
    namespace: dict[str, object] = {"torch": torch, "F": torch.nn.functional}
    exec(text, namespace)
    return namespace["forward"]


def test_names_that_are_code_stay_text() -> None:
    """A module, a parameter and a comment with quotes, brackets, line ends and ligatures."""
    model = models.OddNames()
    program = program_of(model, fx.Tracer().trace(model), (models.x(),))
    text = emit_forward(program)
    assert repr(models.OddNames.INJECTION) in text
    assert not any(line.strip().startswith(("import os", "line")) for line in text.splitlines())
    assert_equal(step(model, run(text), (models.x(),), {}), step(model, models.OddNames.forward, (models.x(),), {}))


def test_attribute_uses_index_key_or_getattr() -> None:
    """Each container is read as people read it."""
    model = models.Nested()
    assert attribute(model, "net.2.0") == "self.net[2][0]"
    assert attribute(model, "heads.b c.weight") == 'self.heads["b c"].weight'
    assert attribute(models.OddNames(), "lambda") == 'getattr(self, "lambda")'
    assert attribute(models.OddNames(), "weights.ﬁ") == 'self.weights["ﬁ"]'


def test_identifiers_must_be_normalised() -> None:
    """A ligature is an identifier, but Python reads it as another one."""
    assert is_identifier("größe")
    assert not is_identifier("ﬁ")
    assert not is_identifier("class")


def test_quoted_evaluates_to_the_text() -> None:
    """Whatever it holds."""
    for text in ("a", "it's", 'say "x"', "a\\b", "a\nb", "\ud800", "é"):
        assert eval(quoted(text)) == text


def test_text_for_comments_has_one_line_and_no_quotes() -> None:
    """It can end neither a comment nor a docstring."""
    assert in_text('a\n"""; import os\\') == "a?'''; import os/"


def test_scope_reuses_a_name_whose_value_is_dead() -> None:
    """And numbers it otherwise; builtins and imports are never taken."""
    scope = Scope({"F"})
    assert scope.bind("x", 0, 2) == "x"
    assert scope.bind("x", 1, 3) == "x_1"
    assert scope.bind("x", 2, 3) == "x"
    assert scope.bind("F", 3, 4) == "F_1"
    assert scope.bind("list", 4, 5) == "list_1"


def test_values_with_one_name_do_not_mix() -> None:
    """fx makes names unique; the printer must keep values apart that are alive together."""

    def build(graph: fx.Graph, x: fx.Node, weight: fx.Node) -> fx.Node:
        first = graph.call_function(torch.mul, (x, weight))
        second = graph.call_function(torch.add, (x, first))
        return graph.call_function(torch.sub, (second, first))

    assert emit_forward(unary(build)).splitlines()[1:] == [
        "    mul = torch.mul(x, self.weight)",
        "    add = torch.add(x, mul)",
        "    return torch.sub(add, mul)",
    ]
