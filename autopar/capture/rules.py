"""Which submodules of a recording are taken apart, and which stay one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autopar import compat, ops
from autopar.capture.frames import Rules
from autopar.capture.recorder import Recorder
from autopar.capture.state import ModelState
from autopar.capture.watch import Patches

__all__ = ["RecordingRules", "reason_to_ask_other_ranks", "reason_to_keep_whole"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
# Modules of torch.nn that are made of others, or of operations on their own parameters.
_COMPOSITES = (
    nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder, nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.AdaptiveLogSoftmaxWithLoss,
)  # fmt: skip


class RecordingRules(Rules):
    """Simple modules of torch.nn stay calls, and so does what no graph can show."""

    def __init__(self, recorder: Recorder, state: ModelState) -> None:
        self.recorder, self.state = recorder, state
        self.patches: Patches | None = None

    def call(self, module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the submodule in a frame."""
        return self.recorder.call_module(module, call, args, kwargs, self)

    def decide(self, module: nn.Module) -> tuple[bool, str | None]:
        """Whether it is one call whatever its forward does, and for what reason if that is a loss."""
        reason = reason_to_keep_whole(module)
        if reason is None and _is_simple(module) and torch.is_grad_enabled():
            return True, None
        reason = reason or reason_to_ask_other_ranks(module)
        return reason is not None, reason

    def run_whole(
        self, module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs a submodule that is one call; a compiled one as if nobody watched, because dynamo would trace that."""
        if not compat.is_compiled(module):
            return call(module, *args, **kwargs)
        assert self.patches is not None
        with self.patches.removed(), compat.without_function_mode():
            return module(*args, **kwargs)

    def before(self, module: nn.Module) -> Any:
        """What to compare with after its forward: changes that others made to it."""
        return self.state.changes_of(module)

    def _changes(self, module: nn.Module) -> dict[str, bool]:
        """What is not as it was of the module and of those below it that only its own code touches."""
        changes = self.state.changes_of(module)
        for path, below in module.named_children():
            if id(below) not in self.recorder.called:
                changes |= {f"{path}.{name}": kind for name, kind in self._changes(below).items()}
        return changes

    def after(self, module: nn.Module, before: Any) -> str | None:
        """Why its forward cannot be nodes, in view of what it changed."""
        changes = {name: kind for name, kind in self._changes(module).items() if name not in before}
        if not changes:
            return None
        self.recorder.called.update(map(id, module.modules()))  # their changes are this module's from now on
        self.recorder.unsettled = True
        replaced = {name for name, in_place in changes.items() if not in_place}
        self.recorder.changed.setdefault(id(module), set()).update(replaced)
        written = [name for name, in_place in changes.items() if in_place]
        if written:
            path = self.recorder.paths[id(module)]
            name = f"{path}.{written[0]}" if path else written[0]
            return f"its forward writes to {name!r} in place"
        return f"its forward changes the attribute {', '.join(map(repr, sorted(changes)))}"


def reason_to_keep_whole(module: nn.Module, *, hooks: bool = True) -> str | None:
    """Why a module cannot be opened whatever its forward does; None where it can be tried.

    Args:
        module: the module.
        hooks: whether its hooks count; those of the root run around the program.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return "it is a ScriptModule"
    if compat.is_compiled(module):
        return "it is compiled by torch.compile"
    if hooks and compat.has_module_hooks(module):
        return "it has hooks"
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    return None


def reason_to_ask_other_ranks(module: nn.Module) -> str | None:
    """Why operations cannot stand for a module's forward that other ranks take part in; None where none does.

    They would be those of a capture, in which every rank is alone.
    """
    if isinstance(module, nn.SyncBatchNorm) or ops.shares_statistics(module):
        return "it takes its statistics over all ranks"
    return None


def _is_simple(module: nn.Module) -> bool:
    ours = type(module).__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not compat.is_parametrized(module)
    return ours and not isinstance(module, (*_CONTAINERS, *_COMPOSITES))
