"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from autopar.cli.completion import capture_names, strategy_names
from autopar.errors import OptionError, UsageError

__all__ = [
    "Choice",
    "compile_options",
    "debug_option",
    "json_option",
    "rate_option",
    "read_options",
    "with_rates",
    "world_size_option",
]

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice  # generic since click 8.2


class Choice(_Choice):
    """One of some names; the answer to any other has the nearest of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name; see ``click.ParamType.convert``."""
        try:
            return str(super().convert(value, param, ctx))
        except click.BadParameter as error:
            near = difflib.get_close_matches(str(value), [str(name) for name in self.choices], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.BadParameter(f"{error.message.rstrip('.')}.{hint}", ctx=ctx, param=param) from None


def debug_option(command: F) -> F:
    """What every command takes: ``--debug`` for full tracebacks, ``-q`` and ``-v`` for less and more of progress."""
    for flags, text in (
        (("--debug",), "Show tracebacks."),
        (("-v", "--verbose"), "Show progress where there is no terminal, too."),
        (("-q", "--quiet"), "Show no progress."),
    ):
        command = click.option(*flags, is_flag=True, expose_value=False, callback=_set, help=text)(command)
    return command


def json_option(command: F) -> F:
    """``--json``: the result as JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def world_size_option(command: F) -> F:
    """``--world-size``: how many ranks."""
    return click.option(
        "--world-size",
        type=int,
        metavar="N",
        callback=_check_world_size,
        help="Ranks that will train; for the figures only, it is not baked in.",
    )(command)


def rate_option(command: F) -> F:
    """``--rate``: speeds to predict times with."""
    return click.option(
        "--rate",
        "rates",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_read_pairs,
        help="Speed to predict times with: flops, memory or link a second; operation or message in seconds.",
    )(command)


def with_rates(document: dict[str, Any], rates: dict[str, str]) -> None:
    """Puts rates that were given in the place of a document's own.

    Raises:
        OptionError: there is no such rate, or it is no positive number.
    """
    from autopar.partitioner.rates import Rates

    document["rates"] = Rates.from_json(document["rates"]).given(rates).to_json()


def compile_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a compilation needs besides the file; it comes to the command together, as the ``how`` of a ``Request``."""

    @wraps(command)
    def together(**values: Any) -> Any:
        options = read_options(values.pop("pairs"), values.pop("bucket_cap_mb"), values.pop("weight"))
        how = {name: values.pop(name) for name in ("strategy", "model", "inputs", "capture", "pipeline")}
        return command(how={**how, "options": options}, **values)

    decorated = together
    for decorate in reversed(
        (
            click.option(
                "--strategy",
                metavar="NAME",
                shell_complete=strategy_names,
                help="ddp (the default), data_parallel, or a plug-in's.",
            ),
            click.option("--model", metavar="NAME", help="Class, factory function or instance in the file."),
            click.option(
                "--input",
                "inputs",
                multiple=True,
                metavar="SHAPE[:DTYPE]",
                help="Shape of an argument, such as 32x10 or 8x128:int64; one for each argument.",
            ),
            click.option(
                "--capture",
                default="auto",
                metavar="NAME",
                shell_complete=capture_names,
                help="How the model becomes a graph: auto (the default), symbolic, export, dynamo or opaque.",
            ),
            click.option("--passes", "pipeline", metavar="TEXT", help="Another pipeline of passes."),
            click.option("--bucket-cap-mb", type=float, metavar="MIB", help="Size of a gradient bucket (ddp)."),
            click.option("--weight", metavar="WHAT", help="Weigh ranks by samples, tokens or module:function (ddp)."),
            click.option("--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the strategy."),
        )
    ):
        decorated = decorate(decorated)
    return decorated


def read_options(pairs: tuple[str, ...], bucket_cap_mb: float | None, weight: str | None = None) -> dict[str, Any]:
    """Strategy options from ``KEY=VALUE`` texts and options of their own; values are Python literals or plain words.

    Raises:
        OptionError: a text has no ``=``, or an option is given twice.

    Example:
        >>> read_options(("replicas=4", "gather=torch", "broadcast_buffers=false"), None)
        {'replicas': 4, 'gather': 'torch', 'broadcast_buffers': False}
    """
    given = {"bucket_cap_mb": bucket_cap_mb, "weight": weight}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise OptionError(f"--option {pair!r} has no value.", mend="Write it as KEY=VALUE.")
        if key in options:
            raise OptionError(f"The option {key!r} is given twice.", mend="Leave one of them out.")
        options[key] = _value(text)
    return options


def _value(text: str) -> Any:
    word = text.strip()
    constants = {"true": True, "false": False, "none": None}
    if word.lower() in constants:
        return constants[word.lower()]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _read_pairs(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in value]
    for key, equals, text in pairs:
        if not (key and equals and text):
            raise UsageError(f"--rate {key + equals + text!r} is no pair.", mend="Write it as NAME=VALUE.")
    return {key: text for key, _, text in pairs}


def _set(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(dict)[str(parameter.name)] = True


def _check_world_size(ctx: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise UsageError(f"World size {value} was asked for.", mend="Give --world-size 1 or more.")
    return value
