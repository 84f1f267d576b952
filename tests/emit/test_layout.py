"""Long statements are broken as formatters break them."""

from __future__ import annotations

from autopar.emit.layout import assign, call, collection, condition, prefixed, raising, render


def test_short_statements_stay_on_one_line() -> None:
    """Up to the line length."""
    assert render(call("f", ["x", "y"]), indent="    ", before="z = ") == ["    z = f(x, y)"]


def test_arguments_share_a_line_where_they_fit() -> None:
    """Those of a call do, elements of a collection do not."""
    items = ["a" * 30, "b" * 30, "c" * 30]
    assert render(call("function", items)) == ["function(", f"    {', '.join(items)}", ")"]
    assert render(collection("[]", [*items, "d" * 9])) == ["[", *(f"    {item}," for item in [*items, "d" * 9]), "]"]


def test_nested_brackets_break_from_the_outside() -> None:
    """The inner ones only where they must."""
    inner = collection("()", ["x" * 60, "y" * 60])
    assert render(call("f", [prefixed("value=", inner), "z"])) == [
        "f(",
        "    value=(",
        f"        {'x' * 60},",
        f"        {'y' * 60},",
        "    ),",
        "    z,",
        ")",
    ]


def test_targets_break_too() -> None:
    """Where even the opening line would be too long."""
    names = [f"parameter_{index}" * 3 for index in range(4)]
    lines = assign(names, call("ops.sync", names), indent="", unpack=True)
    assert (lines[0], lines[5]) == ("(", ") = ops.sync(")


def test_conditions_break_at_or() -> None:
    """One part a line."""
    parts = ["a" * 50, "b" * 50]
    assert condition(parts, indent="") == ["if (", f"    {parts[0]}", f"    or {parts[1]}", "):"]


def test_long_messages_are_pieces_of_one_string() -> None:
    """Nothing is lost at the joints."""
    message = "word " * 40 + "end"
    lines = raising("ValueError", message, indent="")
    assert "".join(eval(line) for line in lines[1:-1]) == message
