"""What the files that ``--dump-after`` and a failed pass leave behind call when they run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.emit.script import eager_forward, load
from autopar.partitioner.plan import Plan

__all__ = ["compare", "reproduce"]

Sample = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]


def compare(
    file: Path,
    name: str,
    forward: Callable[..., Any],
    sample_inputs: Sample,
    *,
    modes: Mapping[str, bool],
    lifted: Sequence[str] = (),
) -> None:
    """Runs a printed forward and the model's own from the same state, and says how their results compare.

    Args:
        file, name: where the model is.
        forward: the printed one.
        sample_inputs: makes a call.
        modes: train/eval flags by module path that the printed forward is for.
        lifted: state that the printed forward takes in front of the call's arguments.

    Raises:
        SystemExit: with code 1, where results differ by more than rounding.
    """
    torch.manual_seed(0)
    model = load(file, name)
    for path, training in modes.items():
        model.get_submodule(path).training = training
    args, kwargs = sample_inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = _leaves(eager_forward, model, args, kwargs)
    model.load_state_dict(before)
    state = [_read(model, name) for name in lifted]
    found = _leaves(forward, model, (*state, *args), kwargs)
    if len(found) != len(expected):
        sys.exit(f"{len(found)} tensors came out, and the model's own forward returns {len(expected)}")
    if all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)):
        print(f"{len(found)} tensor{'s' if len(found) != 1 else ''} came out, the same as the model's own, bit for bit")
        return
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-4, atol=1e-5):
            sys.exit("the result differs from that of the model's own forward")
    print("the result is that of the model's own forward but for rounding")


def reproduce(
    file: Path,
    name: str,
    sample_inputs: Sample,
    *,
    pipeline: str,
    strategy: str,
    options: Mapping[str, Any],
    world_size: int | None,
    capture: str,
    graph: str,
    plan: str = "",
    plugins: Sequence[Path] = (),
) -> None:
    """Captures and compiles as it was done when a pass failed; raises what it raised.

    Args:
        file, name: where the model is.
        sample_inputs: makes the sample call.
        pipeline: as text, up to the pass that failed.
        strategy, options, world_size, capture, plan: as they were.
        graph: digest of the program that the pass was given.
        plugins: files that make passes known.
    """
    from autopar.compilation import compile_program
    from autopar.passes.observers import PassObserver
    from autopar.passes.pipeline import parse
    from autopar.passes.plugin_files import add_plugins
    from autopar.strategies import resolve

    class Progress(PassObserver):
        """Says which pass is at work, and whether the one that failed gets the same graph as then."""

        left = len(parse(pipeline))

        def before_pass(self, one: Any, program: Any, ctx: Any) -> None:
            self.left -= 1
            same = self.left or program.digest() == graph
            print(f"pass {one.name}{'' if same else ' (on another graph than then)'}", flush=True)

    add_plugins(plugins)
    torch.manual_seed(0)
    model = load(file, name)
    args, kwargs = sample_inputs()
    compile_program(
        model,
        args,
        kwargs,
        resolve(strategy, options),
        pipeline=pipeline,
        plan=Plan.from_json(plan) if plan else None,
        world_size=world_size,
        capture=capture,
        observers=[Progress()],
    )
    sys.exit("no pass failed this time")


def _leaves(function: Callable[..., Any], model: nn.Module, args: Any, kwargs: Any) -> list[torch.Tensor]:
    torch.manual_seed(1)  # dropout and the like draw the same numbers in both
    result = function(model, *args, **kwargs)
    return [leaf for leaf in compat.tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]


def _read(model: nn.Module, name: str) -> Any:
    return reduce(getattr, name.split("."), model)
