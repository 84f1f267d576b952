"""The functions that people call; each is a few lines over the parts of the compiler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from autopar.attach import Attachment, attach, attachment_of, detach
from autopar.attach.ranks import with_ranks
from autopar.capture import ladder
from autopar.errors import OptionError, UsageError
from autopar.nn.joining import JoinedModel
from autopar.optimizers import shard_optimizer
from autopar.partitioner.plan import Plan
from autopar.passes.base import PassContext
from autopar.passes.pipeline import build, parse
from autopar.passes.runner import run_pipeline
from autopar.program import Program
from autopar.runtime.ddp import DDPExecutor
from autopar.runtime.group import launched_world_size
from autopar.runtime.loader import ShardedLoader
from autopar.runtime.notices import say
from autopar.runtime.report import step_report
from autopar.strategies.auto import pick_strategy
from autopar.strategies.base import Strategy, resolve
from autopar.strategies.zero1 import ZeRO1
from autopar.tracebacks import as_eager

__all__ = ["flush", "join", "no_sync", "parallelize", "report", "shard", "trace", "unparallelize"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def trace(model: nn.Module, /, *args: Any, autopar_capture: str = "auto", **kwargs: Any) -> Program:
    """Captures one call of a model and annotates it; the model is left as it was.

    Args:
        model: any module that runs eagerly on the call.
        *args: positional arguments of a sample call.
        autopar_capture: the front end: ``"auto"``, ``"symbolic"``, ``"export"``, ``"dynamo"`` or ``"opaque"``;
            named so that it cannot be meant for the model.
        **kwargs: keyword arguments of the call.

    Returns:
        A Program whose modules are opened into operations, with shapes, dtypes, bytes and FLOPs.

    Raises:
        ModelError: the model has lazy parameters, or the front end that was asked for cannot capture it.
        UnknownNameError: there is no such front end.
        Exception: whatever the model itself raises on this call.

    Example:
        >>> import torch
        >>> program = trace(nn.Linear(10, 1), torch.randn(32, 10))
        >>> [node.name for node in program.graph.nodes]
        ['input_1', 'weight', 'bias', 'linear', 'output']
    """
    try:
        program = ladder.capture(model, args, kwargs, front_end=autopar_capture)
    except Exception as error:
        raise as_eager(error)  # noqa: B904 - it is the same error
    program, _ = run_pipeline(program, build(parse("inline-modules,shapes")), PassContext())
    return program


def parallelize(
    model: ModuleT,
    strategy: str | Strategy = "auto",
    example_inputs: Any = None,
    *,
    pipeline: str | None = None,
    plan: Plan | None = None,
    gate: bool = True,
    capture: str = "auto",
    optimizer: Optimizer | None = None,
    **options: Any,
) -> ModuleT:
    """Makes a model train in parallel, in place, and returns the same object.

    Class, attributes, methods, ``state_dict`` keys and parameter objects stay; optimizers made
    before or after work. Under ``torch.no_grad()`` the model runs as it always did.

    Args:
        model: the user's model, on the device where it is to train.
        strategy: ``"auto"``, a registered name such as ``"ddp"`` or ``"data_parallel"``, or a
            strategy object.
        example_inputs: a sample call, to compile now instead of at the first forward: a tensor, a
            tuple of positional arguments, or a dict of keyword arguments.
        pipeline: another pass pipeline than the strategy's, as text.
        plan: a plan to follow instead of solving one.
        gate: compare one step of the captured program with eager before using it.
        capture: how the model becomes a graph: ``"auto"`` takes the finest form that is exact;
            ``"symbolic"``, ``"export"``, ``"dynamo"`` and ``"opaque"`` force one.
        optimizer: of the model's parameters, for strategies that divide its state among the ranks; in place. One
            that is made later goes to ``autopar.shard_optimizer``.
        **options: options of the strategy, such as ``bucket_cap_mb=10``.

    Raises:
        UsageError: an unknown strategy, front end or option, no model, or one that is parallel already.
        ModelError: nothing to train, or parameters on several devices.
        LaunchError: the launch environment or the process group is broken.
        RankMismatchError: the ranks hold different models; raised alike on all of them.

    Example:
        >>> model = nn.Linear(10, 1)
        >>> parallelize(model, "ddp") is model
        True
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"A {type(model).__name__} was given where a torch.nn.Module is needed.", mend="Give the model itself."
        )
    reason = ""
    if strategy == "auto":
        chosen, reason = pick_strategy(model, options)
    else:
        chosen = resolve(strategy, options)
    ladder.check_choice(capture)
    divides = isinstance(chosen, ZeRO1)
    if optimizer is not None and not divides:
        raise OptionError(
            f"An optimizer was given to strategy {chosen.name!r}, which leaves optimizers alone.",
            mend="Say strategy='zero1' to divide its state among the ranks, or leave it out.",
        )
    attachment = Attachment(chosen, pipeline=pipeline, plan=plan, gate=gate, capture=capture)
    attach(model, attachment)
    try:
        attachment.start()
        if reason:
            say(f"strategy {chosen.name!r}: {reason}")
        if optimizer is not None:
            shard_optimizer(model, optimizer)
        elif divides and launched_world_size() not in (None, 1):
            say("zero1: an optimizer is divided among the ranks by autopar.shard_optimizer(model, optimizer)")
        if example_inputs is not None:
            args, kwargs = as_call(example_inputs)
            attachment.compile(args, kwargs)
    except BaseException as error:
        detach(model)
        raise as_eager(error)  # noqa: B904 - it is the same error
    return model


def unparallelize(model: ModuleT) -> ModuleT:
    """Gives the model back as it was before ``parallelize``, with the values that it has now.

    Optimizers that the ranks divided have all of their state again; all ranks must call it then.
    """
    detach(model)
    return model


@contextmanager
def no_sync(model: nn.Module) -> Iterator[None]:
    """Within this block backward only adds to the local ``.grad``; the first one after it sends the sum.

    As with ``DistributedDataParallel.no_sync``, the forward must be inside.

    Raises:
        UsageError: the model is not parallel.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise UsageError(f"This {type(model).__name__} is not parallel.", mend="Call autopar.parallelize(model) first.")
    with attachment.accumulating():
        yield


def flush(model: nn.Module) -> int:
    """Ends a window of ``accumulate=`` that has fewer backwards than it should, such as the last one of an epoch.

    To be called on all ranks, outside of a backward. Afterwards ``.grad`` is the mean over the backwards that all
    ranks ran since the last window, also where some ran fewer than others, or none.

    Returns:
        How many backwards that were, over all ranks; with 0 nothing was sent, and there is no step to take.

    Raises:
        UsageError: the model is not parallel, or was not given ``accumulate=``.
        RuntimeStateError: the ranks finished different numbers of windows; raised alike on all of them.
    """
    attachment = attachment_of(model)
    executor = None if attachment is None else attachment.executor
    if not isinstance(executor, DDPExecutor) or executor.accumulate == 1:
        raise UsageError(
            f"This {type(model).__name__} does not accumulate.",
            mend='Call autopar.parallelize(model, "ddp", accumulate=k) first.',
        )
    return executor.flush()


@contextmanager
def join(model: nn.Module, *, stop_early: bool = False) -> Iterator[None]:
    """Within this block ranks may have different numbers of batches.

    As with ``DistributedDataParallel.join``: a rank that leaves the block takes part in the steps of the others
    until all are done, and then takes over the model of the rank that trained longest. With ``weight=`` it weighs
    nothing; otherwise its gradients count as zeros.

    Args:
        model: parallel with ``ddp``.
        stop_early: raise RuntimeError on all ranks as soon as one has no batch.

    Raises:
        UsageError: the model is not parallel, or not with ``ddp``.
        OptionError: batch norms take their statistics over all ranks, and ``stop_early`` is False.
    """
    attachment, executor = with_ranks(model, "join", strategy="ddp")
    if executor.world_size == 1:
        yield
        return
    joined = JoinedModel(attachment)
    attachment.before_forward = joined.announce
    try:
        with joined.join(throw_on_early_termination=stop_early):
            yield
    finally:
        attachment.before_forward = None


def report(model: nn.Module) -> dict[str, Any]:
    """What the plan predicted of a step beside what this rank measured in its last 50, as JSON values.

    Times are in milliseconds from the beginning of the forward to the end of backward; ``measured`` is None
    before the first step, and where nothing travels. Of each bucket, ``nbytes`` are those of its gradients and
    ``sent_nbytes`` those that this rank handed to collectives for it in its last step.

    Raises:
        UsageError: the model is not parallel, or has not seen a batch.
    """
    attachment = attachment_of(model)
    if attachment is None or attachment.compilation is None:
        raise UsageError(
            f"There is no plan for this {type(model).__name__}.",
            mend="Call autopar.parallelize(model), then give it a batch.",
        )
    executor = attachment.executor
    engine = executor.engine if isinstance(executor, DDPExecutor) else None
    if engine is None:
        return step_report(attachment.compilation.plan, None)
    return step_report(attachment.compilation.plan, engine.times, engine.compressed)


def shard(loader: DataLoader[Any], *, resumable: bool = False) -> DataLoader[Any]:
    """A loader of the same batches' worth of data, of which each rank gets its part.

    With one process the loader itself. Otherwise the dataset is divided by a
    ``DistributedSampler``: shuffled if the loader shuffles, every rank the same number of batches,
    and a new order each time the loader is iterated, without ``set_epoch``. The batch size stays
    that of one rank, so the global batch is ``batch_size * world_size``.

    Args:
        loader: over a dataset that has a length, with torch's own samplers.
        resumable: with one process, too, a loader whose place ``autopar.save`` can keep; its order is then the one
            that several ranks share, and no longer the plain loader's.

    Raises:
        UsageError: the loader has a sampler of its own or an iterable dataset, which cannot be
            divided without knowing it.
    """
    return ShardedLoader.of(loader, resumable=resumable)


def as_call(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a sample call: a tensor, a tuple of the former, or a dict of the latter."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return tuple(example_inputs), {}
    return (example_inputs,), {}
