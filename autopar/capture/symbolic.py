"""Front end 1: a torch.fx graph with symbolic sizes, recorded from one real run of the model.

The user's modules are taken apart; a module whose forward does what a graph cannot show stays one
call, and so does every simple module of ``torch.nn`` (the pass ``inline-modules`` opens those that
are pure). What would be wrong without a word is turned into a refusal of that module instead: see
``autopar.capture.recorder`` and ``autopar.capture.watch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.call import Call, input_names
from autopar.capture.frames import Frame, Refusal, Rules, python_streams
from autopar.capture.recorder import DRAWS, Recorder
from autopar.capture.sizes import Size
from autopar.capture.source import forward_line
from autopar.capture.state import ModelState
from autopar.capture.tape import UnknownTensorError
from autopar.capture.values import questionnaire
from autopar.capture.watch import Patches, watching
from autopar.guards import Condition, Dim, Expression, Guards, shapes_of
from autopar.program import Program, Remark, Signature, info
from autopar.structure import Structure, take_apart

__all__ = ["Recording", "reason_to_keep_whole"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
# Modules of torch.nn that are made of others, or of operations on their own parameters.
_COMPOSITES = (
    nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder, nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.AdaptiveLogSoftmaxWithLoss,
)  # fmt: skip


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
        self._result: _Result | None = None

    def forward(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Runs the model on the call's tensors, as eager does, and records.

        Returns:
            What the model returned.

        Raises:
            Exception: whatever the model raises.
        """
        reason = reason_to_keep_whole(self.model, hooks=False)
        forward = compat.original_class(self.model).forward
        args, kwargs = self.call.fill(inputs)
        if reason is not None:
            self.refusal = Refusal(self.model, reason, None)
            own = vars(self.model).get("forward")
            return own(*args, **kwargs) if own is not None else forward(self.model, *args, **kwargs)
        names = input_names(forward, self.call)
        recorder = Recorder(self.state.modules, list(zip(names, inputs, strict=True)), follow_random=self.follow_random)
        rules = _Rules(recorder, self.state)
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
        self._result = _Result(recorder, root, structure, constants)

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


@dataclass(frozen=True, slots=True)
class _Result:
    """A finished recording."""

    recorder: Recorder
    root: Frame
    structure: Structure
    constants: Mapping[int, Any]

    def program(self, model: nn.Module, call: Call) -> Program:
        recorder = self.recorder
        guards = self._guards(model, call)
        names = tuple(node.name for node in recorder.graph.find_nodes(op="placeholder"))
        module = compat.graph_module(model, recorder.graph, compat.original_class(model).__name__)
        return Program(
            graph_module=module,
            model=model,
            signature=Signature(
                in_spec=call.spec,
                constants=dict(call.constants),
                inputs=names,
                out_spec=self.structure,
                out_constants=self.constants,
            ),
            front_end="symbolic",
            example=call.tensors,
            mode_dependent={recorder.paths[id(m)]: flag for m, flag in self.root.training.items()},
            attributes={
                (recorder.paths[id(module)], name): value for (module, name), value in self.root.attributes.items()
            },
            guards=guards,
            regions={name: made for name, made in recorder.regions.items() if name in self._regions()},
            remarks=[
                *(_remark(path, refusal) for path, refusal in recorder.refusals.items() if self._calls(path)),
                *_rests_on(guards, names),
            ],
        )

    def _regions(self) -> set[str]:
        return {info(node).region for node in self.recorder.graph.nodes}

    def _calls(self, path: str) -> bool:
        return any(node.op == "call_module" and node.target == path for node in self.recorder.graph.nodes)

    def _guards(self, model: nn.Module, call: Call) -> Guards:
        inputs = {node: index for index, node in enumerate(self.recorder.graph.find_nodes(op="placeholder"))}
        conditions = list(self.recorder.notes.conditions)
        ours = [one for one in conditions if all(dim.source in inputs for dim in one.dims())]
        asked = questionnaire(self.recorder.graph, self.root.questions, model)
        return Guards(
            conditions=tuple(
                Condition(one.function, tuple(_at_inputs(part, inputs) for part in one.operands), one.outcome)
                for one in ours
            ),
            confirmed={shapes_of(call.tensors)},
            uncertain=len(ours) < len(conditions),
            questions=asked[0] if asked is not None else None,
            answers=asked[1] if asked is not None else (),
        )


class _Rules(Rules):
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
        return reason is not None or (_is_simple(module) and torch.is_grad_enabled()), reason

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


def _is_simple(module: nn.Module) -> bool:
    ours = type(module).__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not compat.is_parametrized(module)
    return ours and not isinstance(module, (*_CONTAINERS, *_COMPOSITES))


def _at_inputs(operand: Any, inputs: Mapping[fx.Node, int]) -> Any:
    if isinstance(operand, Dim):
        return Dim(inputs[operand.source], operand.dim)
    if isinstance(operand, Expression):
        return Expression(operand.function, tuple(_at_inputs(part, inputs) for part in operand.operands))
    return operand


def _remark(path: str, refusal: Refusal) -> Remark:
    module, reason = refusal.module, refusal.reason
    return Remark(
        code="AP103",
        kind="missed",
        stage="capture",
        message=f"{path} ({type(module).__name__}) stays one opaque call: {reason}.",
        module_path=path,
        source=refusal.source,
        mend=_MENDS.get(reason, "Keep it, or move what is untraceable into a submodule of its own."),
        nbytes=sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad),
    )


def _rests_on(guards: Guards, inputs: Sequence[str]) -> Iterator[Remark]:
    """What a user should know about the calls that the graph is for."""
    if guards.none:
        return
    parts = [one.text(inputs) for one in guards.conditions[:_SHOWN]]
    if len(guards.conditions) > _SHOWN:
        parts.append(f"{len(guards.conditions) - _SHOWN} more conditions on sizes hold")
    if guards.answers:
        values = ", ".join(map(str, guards.answers[:_SHOWN]))
        parts.append(f"what Python asks about values of the inputs has the answers {values}")
    sizes = "sizes inside the model are as recorded (other input sizes are recorded once more)"
    parts += [sizes] if guards.uncertain else []
    message = f"The graph is for calls in which {'; '.join(parts)}."
    yield Remark(code="AP105", kind="analysis", stage="capture", message=message)


_SHOWN = 3
_MENDS = {
    "its Python control flow depends on a tensor": "Use torch.where, or move the branch into a small submodule.",
    "it is a ScriptModule": "Pass the plain module instead of the scripted one.",
    "it has hooks": "Remove the hooks, or keep it: hooks run as they always did.",
}
