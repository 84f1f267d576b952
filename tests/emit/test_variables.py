"""Values get the names that the user's source gives them."""

from __future__ import annotations

from autopar.emit import emit_forward
from tests.emit import models
from tests.emit.compiled import compiled


def body(case: str) -> list[str]:
    """The statements of a captured model, unindented."""
    cls, args, kwargs = models.CASES[case]
    return [line.strip() for line in emit_forward(compiled(cls(), args, kwargs).program).splitlines()]


def test_assigned_names_are_kept() -> None:
    """Also where the same name is assigned again, and in ``x += ...``."""
    lines = body("branches")
    assert "left = torch.relu(linear)" in lines
    assert "right = -pow_1" in lines
    assert "x = add - truediv" in lines
    assert any(line.startswith(("x = x + ", "x += ")) for line in lines)


def test_an_unpacking_stays_one_statement() -> None:
    """The parts of a chunk are taken where it is made."""
    assert "q, k, v = linear.chunk(3, dim=-1)" in body("tuple-output")


def test_a_bucket_is_one_statement_with_a_comment() -> None:
    """What it carries and when it is ready stands above it; one parameter is unpacked, too."""
    lines = body("tied")
    at = lines.index("# bucket 0: 112 B, 1 parameter, ready 1st in backward")
    assert lines[at + 1] == "(embed_weight,) = ops.sync_gradients(self.embed.weight, bucket=0)"


def test_boundaries_of_the_users_modules_are_comments() -> None:
    """With the file and line of the first operation; torch's own modules are operations."""
    lines = [line for line in body("stack") if line.startswith("# blocks")]
    assert [line.partition("  ")[0] for line in lines] == ["# blocks.0", "# blocks.1"]
    assert all("(models.py:" in line for line in lines)


def test_an_opaque_call_says_where_its_gradients_go() -> None:
    """Its parameters travel in buckets that hooks fill."""
    lines = body("opaque-part")
    at = next(i for i, line in enumerate(lines) if "self.rnn(" in line)
    assert lines[at - 1].startswith("# opaque; by hooks, bucket ")
    assert lines[at].startswith("h, _ = self.rnn(")
