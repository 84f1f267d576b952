"""Front end 1: a torch.fx graph with symbolic sizes, recorded from one real run of the model.

The user's modules are taken apart; a module whose forward does what a graph cannot show stays one
call, and so does every simple module of ``torch.nn`` (the pass ``inline-modules`` opens those that
are pure). What would be wrong without a word is turned into a refusal of that module instead: see
``autopar.capture.recorder`` and ``autopar.capture.watch``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.call import Call, input_names
from autopar.capture.frames import Frame, Refusal, python_streams
from autopar.capture.recorded import Recorded
from autopar.capture.recorder import DRAWS, Recorder
from autopar.capture.rules import RecordingRules, reason_to_ask_other_ranks, reason_to_keep_whole
from autopar.capture.sizes import Size
from autopar.capture.source import forward_line
from autopar.capture.state import ModelState
from autopar.capture.tape import UnknownTensorError
from autopar.capture.watch import watching
from autopar.program import Program
from autopar.structure import take_apart

__all__ = ["Recording"]


class Recording:
    """One run of a model, and the graph that it left.

    Args:
        model: the user's model.
        call: the sample call.
        state: the model's state before.
        follow_random: find the module that draws such numbers.

    Attributes:
        refusal: why the whole model cannot be a graph; None where it is one.
        unsettled: whether a module was refused because this run changed its attributes.
        drew: whether the run drew random numbers of Python's or NumPy's, which no node draws.
    """

    def __init__(self, model: nn.Module, call: Call, state: ModelState, *, follow_random: bool = False) -> None:
        self.model, self.call, self.state = model, call, state
        self.follow_random, self.drew = follow_random, False
        self.refusal: Refusal | None = None
        self.unsettled = False
        self._result: Recorded | None = None

    def forward(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Runs the model on the call's tensors, as eager does, and records.

        Returns:
            What the model returned.

        Raises:
            Exception: whatever the model raises.
        """
        reason = reason_to_keep_whole(self.model, hooks=False) or reason_to_ask_other_ranks(self.model)
        forward = compat.original_class(self.model).forward
        args, kwargs = self.call.fill(inputs)
        if reason is not None:
            self.refusal = Refusal(self.model, reason, None)
            own = vars(self.model).get("forward")
            return own(*args, **kwargs) if own is not None else forward(self.model, *args, **kwargs)
        names = input_names(forward, self.call)
        recorder = Recorder(self.state.modules, list(zip(names, inputs, strict=True)), follow_random=self.follow_random)
        rules = RecordingRules(recorder, self.state)
        root = Frame("", self.model, compat.ambient_modes())
        recorder.frames.append(root)
        before, streams = rules.before(self.model), python_streams()
        root.streams = recorder.streams()
        with watching(recorder, rules.call) as rules.patches, recorder:
            result = forward(self.model, *args, **kwargs)
        problem = rules.after(self.model, before)
        self.drew = streams != python_streams()
        if problem is None and root.streams != recorder.streams():
            problem = DRAWS
        if problem is not None:
            recorder.refuse(problem, forward_line(self.model))
        if root.refusal is None:
            self._finish(recorder, root, result)
        self.refusal, self.unsettled = root.refusal, recorder.unsettled
        return compat.tree_map(lambda leaf: int.__int__(leaf) if type(leaf) is Size else leaf, result)

    def program(self, changed: Mapping[nn.Module, Sequence[str]]) -> Program | None:
        """The program, or None where the model has to stay whole.

        Args:
            changed: what the run changed of the model, as ``ModelState.restore`` tells.
        """
        if self.refusal is None:
            self.refusal = self._unseen(changed)
            self.unsettled = self.unsettled or self.refusal is not None
        if self.refusal is not None or self._result is None:
            return None
        return self._result.program(self.model, self.call)

    def _finish(self, recorder: Recorder, root: Frame, result: Any) -> None:
        leaves, structure = take_apart(result)
        constants = {
            index: leaf
            for index, leaf in enumerate(leaves)
            if not isinstance(leaf, torch.Tensor) and type(leaf) is not Size
        }
        try:
            recorder.finish([leaf for index, leaf in enumerate(leaves) if index not in constants])
        except UnknownTensorError as error:
            recorder.refuse(str(error))
            return
        self._result = Recorded(recorder, root, structure, constants)

    def _unseen(self, changed: Mapping[nn.Module, Sequence[str]]) -> Refusal | None:
        """A change of a module that no call in the graph makes."""
        if self._result is None:
            return None
        recorder = self._result.recorder
        called = {str(node.target) for node in recorder.graph.nodes if node.op == "call_module"}
        for module, names in changed.items():
            path = recorder.paths.get(id(module), "")
            parts = path.split(".")
            if not any(".".join(parts[: index + 1]) in called for index in range(len(parts))):
                what = ", ".join(map(repr, names)) + (f" of {path}" if path else "")
                return Refusal(module, f"its forward changes the attribute {what}", forward_line(module))
            read = [name for name in names if (module, name) in self._result.root.attributes]
            if read:
                return Refusal(module, f"it reads {path}.{read[0]}, which an opaque module changes", None)
        return None
