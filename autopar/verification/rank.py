"""The parallel side of a verification: one process, which trains as a user's script would.

It is told the tensors of its part of each batch, and says what the step left behind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from autopar.api import parallelize
from autopar.attach import Attachment, attachment_of
from autopar.optimizers import shard_optimizer
from autopar.scripts.parent import end_with_caller
from autopar.strategies import ZeRO1
from autopar.verification.batches import filled
from autopar.verification.locate import first_difference
from autopar.verification.messages import described, receive, send
from autopar.verification.settings import Settings
from autopar.verification.sources import Source
from autopar.verification.training import Call, as_record, state_of

__all__ = ["Job", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process of a verification is to do.

    Attributes:
        source: of the model.
        settings: of the training.
        environment: all of its variables; torchrun's are among them where there are several ranks.
    """

    source: Source
    settings: Settings
    environment: Mapping[str, str]


def main(pipe: Connection, job: Job) -> None:
    """Trains until the pipe is closed; what it raises is sent as the last message."""
    end_with_caller()
    os.dup2(2, 1)  # what the user's code prints must not mix with the command's results
    os.environ.clear()
    os.environ.update(job.environment)
    torch.set_num_threads(1)  # as the reference: the number of threads decides in which order sums are made
    try:
        if "RANK" in job.environment:
            dist.init_process_group("gloo", timeout=timedelta(seconds=job.settings.timeout))
        _train(pipe, job)
    except (EOFError, BrokenPipeError):  # the other side has seen enough
        pass
    except Exception as error:
        send(pipe, "failed", **described(error))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _train(pipe: Connection, job: Job) -> None:
    loaded = job.source.load()
    model = loaded.model
    with loaded.active():
        values, tensors = receive(pipe)["values"], receive(pipe)["tensors"]
        optimizer = job.settings.make_optimizer(model)
        attachment = _parallel(model, optimizer, values, filled(loaded.call, tensors), job.settings)
        plan = attachment.compilation.plan if attachment.compilation is not None else attachment.plan
        assert plan is not None, "a printed file brings its plan, and a compilation makes one"
        send(pipe, "ready", record=state_of(model), plan=plan.to_json())
        while True:
            asked = receive(pipe)
            batch = filled(loaded.call, asked["tensors"])
            if asked["kind"] == "locate":
                send(pipe, "located", operation=first_difference(model, batch, asked["seed"]))
                continue
            record = as_record(model, batch, loaded.loss_of, asked["seed"])
            optimizer.step()
            send(pipe, "step", record={**record, **state_of(model)})


def _parallel(
    model: nn.Module, optimizer: Optimizer, values: Mapping[str, torch.Tensor], call: Call, settings: Settings
) -> Attachment:
    """Makes the model parallel unless a printed file did, with the values that it has to start from."""
    attachment = attachment_of(model)
    if attachment is not None:
        _set_values(model, values)
        if isinstance(attachment.strategy, ZeRO1):
            shard_optimizer(model, optimizer)
        return attachment
    if os.environ.get("RANK", "0") == "0":  # on the others they have to arrive by the strategy's own doing
        _set_values(model, values)
    strategy = settings.strategy_object()
    parallelize(
        model,
        strategy,
        optimizer=optimizer if isinstance(strategy, ZeRO1) else None,
        pipeline=settings.pipeline,
        plan=settings.plan,
        capture=settings.capture,
    )
    attachment = attachment_of(model)
    assert attachment is not None
    attachment.compile(*call)
    return attachment


@torch.no_grad()
def _set_values(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        tensor.copy_(values[name])
