"""From a script on disk to a compilation, as ``transform`` and ``view`` need it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopar.cli.terminal import note, waiting
from autopar.errors import AutoparError, CaptureError, OptionError, PassError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from autopar.cli.instruments import Instruments
    from autopar.compilation import Compilation
    from autopar.partitioner.plan import Plan
    from autopar.scripts.candidates import FoundModel
    from autopar.strategies.base import Strategy

__all__ = ["Compiled", "Request", "compile_script", "resolve_request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to compile and how.

    Attributes:
        spec: ``"path.py"`` or ``"path.py:Name"``.
        model: the name, where it is given apart from the path.
        strategy: registered name; None takes the plan's, or ddp.
        options: options of the strategy.
        inputs: shapes of the arguments, such as ``"32x10"``.
        capture: the front end, see ``autopar.capture.ladder.capture``.
        world_size: number of ranks, where it is known.
        rates: speeds that the user gave, by name.
        pipeline: another pipeline of passes as text.
        plan: path of a plan to follow.
        stop_after: pass to stop after.
        print_after: pass to print the program after, or ``"all"``.
        disabled: passes to leave out.
        dump_after: pass to write the program after, ``"all"`` or ``"changed"``.
        folder: where what is dumped will lie; None where nothing is written.
    """

    spec: str
    model: str | None = None
    strategy: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    capture: str = "auto"
    world_size: int | None = None
    rates: Mapping[str, str] = field(default_factory=dict)
    pipeline: str | None = None
    plan: str | None = None
    stop_after: str | None = None
    print_after: str | None = None
    disabled: tuple[str, ...] = ()
    dump_after: str | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of a request."""

    compilation: Compilation
    found: FoundModel
    strategy: Strategy
    instruments: Instruments


def compile_script(request: Request) -> Compiled:
    """Loads a script's definitions, finds model and inputs, and compiles.

    What the script prints goes to standard error: standard output is for results.

    Raises:
        AutoparError: anything that is wrong, with its exit code; nothing was written.
    """
    note("Loading PyTorch")
    from autopar.capture.ladder import check_choice
    from autopar.cli.instruments import Instruments
    from autopar.compilation import compile_program
    from autopar.partitioner.rates import Rates
    from autopar.progress import telling
    from autopar.runtime.device import device_of
    from autopar.scripts.candidates import find_model
    from autopar.scripts.example_inputs import find_inputs

    # All that needs no model comes first, so that a typing mistake costs no capture.
    check_choice(request.capture)
    strategy, plan = resolve_request(request)
    with contextlib.redirect_stdout(sys.stderr):
        found = find_model(request.spec, request.model)
        device = device_of(found.model)  # what cannot be parallel cannot be captured either: say so before it fails
        args, kwargs = find_inputs(found.script, found.model, list(request.inputs))
        instruments = Instruments(request, found)
        note(f"Capturing {found.how}")
        try:
            with found.script.active(), waiting(f"Capturing {found.name}") as tell, telling(tell):
                compilation = compile_program(
                    found.model,
                    args,
                    kwargs,
                    strategy,
                    pipeline=request.pipeline,
                    plan=plan,
                    world_size=request.world_size,
                    rates=Rates.assumed(device.type).given(request.rates),
                    capture=request.capture,
                    stop_after=request.stop_after,
                    disabled=request.disabled,
                    observers=[instruments],
                )
        except PassError as error:
            raise instruments.reported(error) from error
        except AutoparError:
            raise
        except Exception as error:  # the model's own: passes turn theirs into PassError
            raise CaptureError(
                f"{found.name} in {request.spec} does not run on the sample input ({_shapes(args, kwargs)}): "
                f"{type(error).__name__}: {str(error).strip().rstrip('.')}.",
                mend="Give inputs that fit with --input SHAPE[:DTYPE], or a function example_inputs() in the file.",
            ) from error
    return Compiled(compilation, found, strategy, instruments)


def resolve_request(request: Request) -> tuple[Strategy, Plan | None]:
    """The strategy and the plan that a request names, and a check of its pipeline; no model is needed for that.

    Raises:
        UsageError: an unknown name, an option that cannot be, or a plan that cannot be read.
    """
    plan = _read_plan(request.plan) if request.plan else None
    strategy = _strategy(request, plan)
    _check_names(strategy, request)
    return strategy, plan


def _read_plan(path: str) -> Plan:
    from autopar.partitioner.plan import Plan

    try:
        return Plan.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The plan {path} cannot be read: {getattr(error, 'strerror', None) or error}.",
            mend="Give the plan.json that `autopar transform` wrote.",
        ) from None


def _strategy(request: Request, plan: Plan | None) -> Strategy:
    from autopar.strategies import resolve

    name = request.strategy or (plan.strategy if plan else "ddp")
    if plan is not None and name != plan.strategy:
        raise UsageError(
            f"The plan {request.plan} is one of {plan.strategy}, and --strategy is {name}.",
            mend="Leave --strategy out, or make another plan.",
        )
    try:
        return resolve(name, request.options)
    except (TypeError, ValueError) as error:
        listed = ", ".join(f"{key}={value!r}" for key, value in request.options.items())
        raise OptionError(
            f"Strategy {name!r} refuses its options {listed}: {error}.",
            mend="See `autopar passes` for what each takes.",
        ) from error


def _check_names(strategy: Strategy, request: Request) -> None:
    """Reads the pipeline, and refuses a --stop-after, --print-after or --dump-after that is not in it."""
    from autopar.compilation import pipeline_entries
    from autopar.passes.pipeline import build, check_contract

    entries, _ = pipeline_entries(strategy, request.pipeline, request.disabled)
    check_contract(build(entries))
    names = [entry.name for entry in entries]
    for wanted, words in (
        (request.stop_after, ()),
        (request.print_after, ("all",)),
        (request.dump_after, ("all", "changed")),
    ):
        if wanted is not None and wanted not in (*words, *names):
            raise UnknownNameError("pass of this pipeline", wanted, [*words, *names])


def _shapes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    values = [("", value) for value in args] + [(f"{name}=", value) for name, value in kwargs.items()]
    return ", ".join(
        f"{name}{'x'.join(map(str, value.shape)) if hasattr(value, 'shape') else type(value).__name__}"
        for name, value in values
    )
