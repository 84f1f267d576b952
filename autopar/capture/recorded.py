"""A finished recording as a Program: its guards, and remarks on what stayed whole and on what it rests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from autopar import compat
from autopar.capture.call import Call
from autopar.capture.frames import Frame, Refusal
from autopar.capture.recorder import Recorder
from autopar.capture.values import questionnaire
from autopar.guards import Condition, Dim, Expression, Guards, shapes_of
from autopar.program import Program, Remark, Signature, info
from autopar.structure import Structure

__all__ = ["Recorded"]

_SHOWN = 3
_MENDS = {
    "its Python control flow depends on a tensor": "Use torch.where, or move the branch into a small submodule.",
    "it is a ScriptModule": "Pass the plain module instead of the scripted one.",
    "it has hooks": "Remove the hooks, or keep it: hooks run as they always did.",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished recording.

    Attributes:
        recorder: with its graph.
        root: the frame of the model itself.
        structure: of the result.
        constants: leaves of the result that are no tensors, by place.
    """

    recorder: Recorder
    root: Frame
    structure: Structure
    constants: Mapping[int, Any]

    def program(self, model: nn.Module, call: Call) -> Program:
        """The program of the recorded call."""
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
