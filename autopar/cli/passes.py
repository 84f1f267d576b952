"""``autopar passes``: what passes there are, what each takes and needs, and each strategy's pipeline."""

from __future__ import annotations

import inspect
import json
from typing import Any

import rich_click as click

from autopar.cli.completion import pass_names
from autopar.cli.options import debug_option, json_option
from autopar.cli.pass_options import plugin_option
from autopar.cli.terminal import results
from autopar.errors import AutoparError

__all__ = ["passes"]


@click.command()
@click.argument("name", required=False, shell_complete=pass_names)
@plugin_option
@json_option
@debug_option
def passes(name: str | None, as_json: bool) -> None:
    """List passes and pipelines, or say all about one pass."""
    from autopar.passes.registry import passes as registry

    if name is not None:
        described = _describe(name)
        click.echo(json.dumps(described, indent=2)) if as_json else _print_one(described)
        return
    listed = {"passes": [_describe(one) for one in registry.names()], "strategies": _strategies()}
    click.echo(json.dumps(listed, indent=2)) if as_json else _print_all(listed)


def _describe(name: str) -> dict[str, Any]:
    from autopar.passes.registry import passes as registry

    cls = registry.get(name)
    return {
        "name": name,
        "summary": _first_line(cls),
        "requires": sorted(cls.requires),
        "provides": sorted(cls.provides),
        "options": _options(cls),
        "from": registry.origin(name),
    }


def _strategies() -> list[dict[str, Any]]:
    from autopar.strategies import strategies as registry

    found = []
    for name in registry.names():
        cls = registry.get(name)
        try:
            pipeline: str | None = cls().pipeline()
        except (AutoparError, TypeError):  # a plug-in's that has no default form
            pipeline = None
        found.append(
            {
                "name": name,
                "summary": _first_line(cls),
                "pipeline": pipeline,
                "options": _options(cls),
                "from": registry.origin(name),
            }
        )
    return found


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _options(cls: type) -> dict[str, Any]:
    """Option names with their defaults; a default that JSON does not have is given as text."""
    found = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        plain = default is None or isinstance(default, (bool, int, float, str))
        found[name] = default if plain else "required" if default is parameter.empty else repr(default)
    return found


def _print_one(described: dict[str, Any]) -> None:
    from rich.text import Text

    console = results()
    options = ", ".join(f"{key}={value}" for key, value in described["options"].items())
    console.print(Text(described["name"], style="bold"))
    for label, text in (
        ("", described["summary"]),
        ("requires: ", ", ".join(described["requires"]) or "nothing"),
        ("provides: ", ", ".join(described["provides"]) or "nothing"),
        ("options:  ", options or "none"),
        ("from:     ", described["from"]),
    ):
        console.print(f"  {label}{text}", soft_wrap=not console.is_terminal)


def _print_all(listed: dict[str, Any]) -> None:
    from rich.text import Text

    console = results()
    console.print(Text("passes", style="bold"))
    for one in listed["passes"]:
        options = ", ".join(f"{key}={value}" for key, value in one["options"].items())
        console.print(f"  {one['name']}{{{options}}}" if options else f"  {one['name']}", soft_wrap=True)
        console.print(f"      {one['summary']} [{one['from']}]", soft_wrap=not console.is_terminal)
    console.print(Text("strategies", style="bold"))
    for one in listed["strategies"]:
        console.print(f"  {one['name']}: {one['summary']} [{one['from']}]", soft_wrap=not console.is_terminal)
        console.print(f"      {one['pipeline'] or 'its pipeline depends on its options'}", soft_wrap=True)
