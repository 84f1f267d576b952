"""Front ends 2 and 3: torch.export on the model's Python as it is, or by way of dynamo.

Both follow the model on fake tensors, so its code runs (or is interpreted) once more, and return a
graph of ATen operators. They take what a recording of a real run cannot, such as a branch that a
value decides but that ``torch.cond`` expresses, and they lose what Python does beside the operations:
what is known to be lost is refused here, and the gate compares the rest.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any, Literal

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.aliasing import written_reads
from autopar.capture.call import Call, fresh, input_names
from autopar.capture.exported_graph import ExportRefusedError, adopt, attribute, input_shapes
from autopar.capture.exported_sizes import size_conditions
from autopar.capture.gate import Step
from autopar.capture.recorder import DRAWS
from autopar.capture.rules import reason_to_ask_other_ranks, reason_to_keep_whole
from autopar.capture.source import one_line
from autopar.capture.state import ModelState
from autopar.capture.streams import RandomStreams
from autopar.capture.watch import OF_EVERY_MODULE, PLAIN, Patches
from autopar.guards import Guards, shapes_of
from autopar.program import Program, Signature
from autopar.structure import take_apart

__all__ = ["ExportRefusedError", "export_program"]

_PREFIX = "model."


def export_program(
    model: nn.Module, call: Call, state: ModelState, eager: Step, *, front_end: Literal["export", "dynamo"]
) -> Program:
    """One call of a model as torch.export sees it, as a Program.

    The model, its inputs and the random streams are left as they were. Dims that torch.export keeps
    free are free; the others are guarded.

    Args:
        model: the user's model.
        call: the sample call.
        state: the model's state before.
        eager: what a real step of it left behind.
        front_end: ``"export"`` runs the model's Python on fake tensors; ``"dynamo"`` interprets it.

    Raises:
        ExportRefusedError: torch.export cannot, or the graph would not do all that the model does.
    """
    _refuse_beforehand(model, eager)
    attributes: dict[tuple[str, str], Any] = {}
    streams = RandomStreams()
    try:
        if front_end == "export":
            with _watching(model, attributes):
                exported = _exported(model, call, strict=False)
            if RandomStreams() != streams:  # fake tensors draw none
                raise ExportRefusedError(DRAWS)
        else:
            attributes = _plain_attributes(model)
            with compat.recurrent_layers_in_dynamo():
                exported = _exported(model, call, strict=True)
    finally:
        state.restore()
        streams.restore()
    graph = adopt(exported, model, input_names(compat.original_class(model).forward, call), prefix=_PREFIX)
    for name in written_reads(graph):
        if isinstance(attribute(model, name), nn.Parameter):
            raise ExportRefusedError(f"its forward writes to the parameter {name!r} in place")
    constants = {index: leaf for index, leaf in enumerate(eager.outputs) if not _flows(leaf)}
    return Program(
        graph_module=compat.graph_module(model, graph, compat.original_class(model).__name__),
        model=model,
        signature=Signature(
            in_spec=call.spec,
            constants=dict(call.constants),
            inputs=tuple(node.name for node in graph.find_nodes(op="placeholder")),
            out_spec=eager.structure,
            out_constants=constants | _constant_outputs(graph, constants),
        ),
        front_end=front_end,
        example=call.tensors,
        mode_dependent={path: module.training for path, module in model.named_modules()},
        attributes=attributes,
        guards=Guards(
            conditions=size_conditions(input_shapes(exported), call.tensors),
            confirmed={shapes_of(call.tensors)},
        ),
    )


class _Flat(nn.Module):
    """The model as a function of the call's tensors, which returns the tensors and whole numbers of its result."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self._call, self._forward = call, compat.original_class(model).forward

    def forward(self, *inputs: torch.Tensor) -> tuple[Any, ...]:
        """Without the model's own hooks, which run around a Program."""
        args, kwargs = self._call.fill(inputs)
        leaves, _ = take_apart(self._forward(self.model, *args, **kwargs))
        return tuple(leaf for leaf in leaves if _flows(leaf))


def _flows(leaf: Any) -> bool:
    return isinstance(leaf, (torch.Tensor, torch.SymInt)) or type(leaf) is int


def _exported(model: nn.Module, call: Call, *, strict: bool) -> Any:
    inputs = tuple(fresh(call.tensors))
    free = tuple(dict.fromkeys(range(tensor.dim()), torch.export.Dim.AUTO) for tensor in inputs)
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), _quiet_logs():  # what matters is raised
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(_Flat(model, call), inputs, dynamic_shapes=(free,), strict=strict)
        except ExportRefusedError:
            raise
        except Exception as error:
            raise ExportRefusedError(f"torch.export raised {one_line(error)}") from error


def _constant_outputs(graph: fx.Graph, constants: Mapping[int, Any]) -> dict[int, Any]:
    """Takes outputs that no node computes out of the graph; their places among all leaves, with their values."""
    (output,) = graph.find_nodes(op="output")
    values = iter(output.args[0])
    total = len(constants) + len(output.args[0])
    by_place = {index: next(values) for index in range(total) if index not in constants}
    output.args = (tuple(value for value in by_place.values() if isinstance(value, fx.Node)),)
    return {index: value for index, value in by_place.items() if not isinstance(value, fx.Node)}


def _refuse_beforehand(model: nn.Module, eager: Step) -> None:
    """What torch.export is known to leave out.

    Raises:
        ExportRefusedError: the model does such a thing.
    """
    if eager.delta:
        changed = sorted({name for names in eager.changed.values() for name in names})
        raise ExportRefusedError(f"its forward changes the attribute {', '.join(map(repr, changed))}")
    for path, module in model.named_modules():
        reason = reason_to_keep_whole(module, hooks=module is not model) or reason_to_ask_other_ranks(module)
        if reason is not None:
            raise ExportRefusedError(f"of its submodule {path} ({reason})" if path else reason)


@contextmanager
def _watching(model: nn.Module, attributes: dict[tuple[str, str], Any]) -> Iterator[None]:
    """Notes the plain attributes that forward reads, and refuses what torch.export drops without a word."""
    paths = {id(vars(module)): path for path, module in model.named_modules()}  # torch.export puts proxies in between

    def read(module: nn.Module, name: str) -> Any:
        value = object.__getattribute__(module, name)
        if type(value) in PLAIN and name not in OF_EVERY_MODULE:
            held = object.__getattribute__(module, "__dict__")
            if name in held and id(held) in paths:
                attributes[paths[id(held)], name] = value
        return value

    def refuse(what: str) -> Callable[..., Any]:
        def refused(*args: Any, **kwargs: Any) -> Any:
            raise ExportRefusedError(f"it {what}, which torch.export leaves out")

        return refused

    functions = refuse("uses a custom autograd function")
    hooks = refuse("registers a tensor hook")
    patches = Patches(
        [
            (nn.Module, "__getattribute__", read),
            (torch.autograd.graph.saved_tensors_hooks, "__enter__", refuse("uses activation checkpointing")),
            (torch.Tensor, "register_hook", hooks),
            (torch.Tensor, "register_post_accumulate_grad_hook", hooks),
        ]
    )
    with patches, compat.before_custom_functions(functions):
        yield


def _plain_attributes(model: nn.Module) -> dict[tuple[str, str], Any]:
    """All of them: nobody sees which of them dynamo reads."""
    return {
        (path, name): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if type(value) in PLAIN and name not in OF_EVERY_MODULE
    }


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Within this block torch logs nothing: what it could not do is said in a remark."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
