"""The bucket engine: reduces gradients during backward, in plan order, and finishes at its end.

Buckets are filled on two routes. On the graph route an ``ops.sync_gradients`` node hands over all
gradients of a bucket at once. On the hook route (opaque regions) a post-accumulate hook tells when
each ``.grad`` is there. Whatever the route and whatever was used, one backward sends every bucket
exactly once and in plan order, so that ranks cannot get out of step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.partitioner.plan import Plan
from autopar.runtime.accumulation import Window
from autopar.runtime.bucket_kinds import AnyBucket, handed_out, is_watched, make_buckets, names
from autopar.runtime.collectives import Collectives, Work
from autopar.runtime.comm_hook import CommHook
from autopar.runtime.compression import CompressedBuckets
from autopar.runtime.refusals import (
    asked_for_hooked_gradients,
    says_another_compression,
    sent_too_early,
    weighted_grad,
)
from autopar.runtime.step_times import StepTimes
from autopar.runtime.sync_node import NOBODYS, Launch, SyncGradients, sole_owner_references
from autopar.runtime.usage import ParameterUsage
from autopar.runtime.weighted import WeightedMean

__all__ = ["BucketEngine"]


class BucketEngine:
    """Synchronises the gradients of one model.

    Args:
        plan: buckets and their order.
        parameters: the model's parameters by canonical name.
        collectives: the backend.
        comm_hook: what reduces a bucket in the place of an all-reduce of its mean.

    Attributes:
        enabled: False while gradients are only accumulated (``no_sync``).
        steps: backwards finished so far, for messages.
        before_backward: called at the start of each synchronised backward.
        after_backward: called at the end of each synchronised backward, in this order.
        pending: whether backwards have been run whose gradients no other rank knows of (``no_sync``).
        usage: told which parameters got gradients; None where nobody asks.
        times: when the buckets of the last steps travelled.
        compressed: what reduces the buckets that travel compressed.
        window: how many backwards share one synchronisation, of which the last one sends.
        inside_graph: whether the last forward's graph reduces its gradients without this engine.
        weights: makes gradients a mean over what the ranks weigh; None where every rank counts alike.
    """

    def __init__(
        self,
        plan: Plan,
        parameters: Mapping[str, nn.Parameter],
        collectives: Collectives,
        comm_hook: CommHook | None = None,
    ) -> None:
        self.plan, self.collectives, self.comm_hook = plan, collectives, comm_hook
        self.enabled, self.steps, self.pending = True, 0, False
        self.before_backward: Callable[[], None] | None = None
        self.after_backward: list[Callable[[], None]] = []
        self.usage: ParameterUsage | None = None
        self.weights: WeightedMean | None = None
        self.buckets = make_buckets(plan, parameters, collectives, hooked=comm_hook is not None)
        self.window = Window(self.buckets, 1 if comm_hook is not None else collectives.world_size)
        self.times = StepTimes(len(self.buckets))
        self.compressed = CompressedBuckets(self.buckets, collectives)
        self._titles = [f"bucket {b.spec.index} of {len(self.buckets)} ({names(b)})" for b in self.buckets]
        self._sole_owner = sole_owner_references()
        self._hooks: list[Any] = []
        self._hooked: set[int] = set()
        self._nested: set[int] = set()  # hook buckets that a backward inside backward contributed to
        self._task, self._forwards = -1, 0
        self._active, self._synced_forward = False, True
        # of the backward that runs: whether it only adds to the local .grad, and whether it counts in the window
        self._local, self._counts = False, True
        self._carried: frozenset[int] = frozenset()
        self._every = frozenset(bucket.spec.index for bucket in self.buckets)
        self.inside_graph = False
        self._anchor = torch.zeros((), requires_grad=True)
        self._given: set[int] = set()  # graph buckets whose memory autograd was given for .grad
        self._works: list[list[Work]] = []  # a list for each bucket sent so far
        self._fired: dict[int, int] = {}
        # bucket index to the local .grad it was loaded from; None where a graph node gave gradients
        self._loaded: dict[int, list[torch.Tensor | None] | None] = {}
        for bucket in self.buckets:
            if bucket.spec.route == "hook":
                self._hook(bucket)

    # forward ---------------------------------------------------------------------------------

    def begin_forward(self, *, carried: bool = False) -> None:
        """Says that a forward starts whose backward is to be synchronised (or, disabled, is not).

        Args:
            carried: the program itself reduces the buckets of the graph route. Where every forward
                of a backward does so, nothing is sent for them.
        """
        if self._active and compat.graph_task() == -1:
            self._abandon()
        if not carried:
            self._carried = frozenset()
        elif self._forwards == 0:
            self._carried = frozenset(b.spec.index for b in self.buckets if b.spec.route == "graph")
        self._note_forward()
        self.times.begin()

    def begin_followed(self) -> None:
        """As ``begin_forward``, for dynamo to follow: hooks are to gather every gradient."""
        self._carried = frozenset()
        self._note_forward()

    def stay_outside(self) -> None:
        """Says, for dynamo to follow, that a forward starts whose graph does all that the engine would do."""
        self.inside_graph, self._carried = True, self._every

    def _note_forward(self) -> None:
        self.inside_graph = False
        self.pending |= not self.enabled
        self._synced_forward = self.enabled
        self._forwards += 1

    def sync(self, bucket: int, parameters: Sequence[torch.Tensor], compression: str = "") -> Sequence[torch.Tensor]:
        """The parameters again; the backward of this node fills the bucket."""
        if compression != self.buckets[bucket].spec.compression:
            raise says_another_compression(self.buckets[bucket], compression)
        if not self._synced_forward or not torch.is_grad_enabled():
            return parameters
        launch = Launch.apply(self, self.buckets[bucket], self._anchor)
        synced: Sequence[torch.Tensor] = SyncGradients.apply(self, self.buckets[bucket], launch, *parameters)
        return synced

    def watch(self, outputs: Iterable[Any]) -> None:
        """Notices the start of backward at the outputs, before any gradient is complete."""
        if not self._synced_forward and self.weights is None:
            return
        synced = self._synced_forward
        for output in outputs:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                output.register_hook(lambda _: self._begin_backward(synced=synced or self._synced_forward))

    @property
    def hooks_everything(self) -> bool:
        """Whether hooks serve all buckets."""
        return len(self._hooked) == len(self.buckets)

    def hook_everything(self) -> None:
        """Serves all buckets through hooks as well, for forwards that run without a program."""
        for bucket in self.buckets:
            self._hook(bucket)

    def synchronise_next(self) -> None:
        """Makes the next backward a synchronised one although its forwards were not to be."""
        if not self._synced_forward:
            self.hook_everything()  # their graphs have no nodes that fill a bucket
            self._synced_forward = True

    def divide_by(self, count: int) -> None:
        """Makes the gradients of the next backwards sums divided by ``count``; hooks divide by themselves."""
        if self.comm_hook is None:
            self.window.ranks = count

    def flush(self, micro_steps: float) -> None:
        """Reduces what ``.grad`` holds, outside of a backward: of so many, as a mean over the ranks."""
        if not self.window.done:  # what is in .grad is of an earlier window
            self._clear()
        if self.before_backward is not None:
            self.before_backward()
        self.window.scale_for(micro_steps)
        self._finish()

    def shadow(self) -> None:
        """Takes part in a backward of the other ranks without one of its own.

        It sends zeros, or what earlier backwards of this window left in ``.grad``.
        """
        if self.before_backward is not None:
            self.before_backward()
        self.window.scale_for(self.window.size)
        if self.weights is not None:
            self.weights.announce()
        earlier = self.window.done > 0 or (self.weights is not None and self.weights.total > 0)
        for bucket in self.buckets:
            self._load(bucket, [p.grad if earlier else None for p in bucket.parameters])
            self._loaded[bucket.spec.index] = None
        self._launch_ready()
        self._wait()
        for bucket in self.buckets:
            bucket.release()
        if earlier:
            self._clear()
        self._end_step()

    def close(self) -> None:
        """Finishes what a backward that raised has sent, and removes every hook."""
        self._abandon()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._hooked.clear()

    # backward --------------------------------------------------------------------------------

    def _begin_backward(self, *, synced: bool = True) -> None:
        # torch.autograd.grad() fills no .grad: there is nothing to finish at its end then.
        if self._active:
            return
        nodes = [(bucket, node) for bucket in self.buckets for node in bucket.accumulators]
        if any(compat.accumulates_into_leaves(node) for _, node in nodes):
            self._counts = synced
            self._activate()
            return
        for bucket, node in nodes:
            if bucket.spec.route == "hook" and compat.hands_gradient_to_caller(node):
                raise asked_for_hooked_gradients(bucket)

    def _activate(self) -> None:
        self._active = True
        self._task = compat.graph_task()
        self._local = self.window.open or not self._counts
        if self.weights is not None:
            self.weights.begin(plain=self._forwards == 1, sends=not self._local)
        if self._local:
            compat.on_backward_end(self._accumulated)
            return
        compat.on_backward_end(self._finish)
        self._loaded |= dict.fromkeys(self._carried)
        self.window.scale_for(self.window.size)
        if self.before_backward is not None:
            self.before_backward()
        if self.weights is not None and not self.weights.late:
            self.weights.announce()

    def reduce(self, bucket: AnyBucket, gradients: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
        """Takes all gradients of a graph bucket; returns what autograd passes on to the parameters."""
        self._begin_backward()
        if self._active and self._local:
            return gradients
        if self.usage is not None:
            self.usage.saw_all(bucket, gradients)
        if torch.is_grad_enabled():  # create_graph: keep it differentiable, reduce .grad at the end
            return gradients
        if not self._active:
            return self._reduce_now(bucket, gradients)
        late = self._forwards != 1 or (self.weights is not None and self.weights.late)
        if late or bucket.spec.layout == "sparse" or is_watched(bucket):
            # Someone will add to these gradients or look at them while they travel: let autograd
            # put the local ones into .grad first and reduce those at the end of backward.
            return gradients
        self._given.add(bucket.spec.index)
        if self.weights is not None:
            self.weights.settle()
        bucket.load(gradients, owners=self._sole_owner)  # not through a method: each call is one more reference
        return handed_out(bucket)

    def launch(self, bucket: AnyBucket) -> None:
        """Sends a graph bucket, unless its parameters got or will get gradients on another way, too."""
        if bucket.spec.index in self._given and bucket.arrived():
            self._loaded[bucket.spec.index] = None
            self._launch_ready()

    def _reduce_now(self, bucket: AnyBucket, gradients: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
        if self.weights is not None:
            raise weighted_grad(bucket)
        self.window.scale_for(1)
        bucket.load(gradients, owners=NOBODYS)
        for work in self._all_reduce(bucket) if bucket in self.compressed else self._send(bucket):
            work.wait()
        return handed_out(bucket)

    def _hook(self, bucket: AnyBucket) -> None:
        index = bucket.spec.index
        if index in self._hooked:
            return
        self._hooked.add(index)
        for parameter in bucket.parameters:
            self._hooks.append(parameter.register_post_accumulate_grad_hook(self._on_accumulated(bucket)))

    def _on_accumulated(self, bucket: AnyBucket) -> Callable[[torch.Tensor], None]:
        index = bucket.spec.index

        def note(parameter: torch.Tensor) -> None:
            if not self._synced_forward or index in self._carried or index in self._given:
                return
            if not self._active:
                self._activate()
            if self._local:
                return
            if self.usage is not None:
                self.usage.saw(bucket, parameter)
            if compat.graph_task() != self._task:
                self._nested.add(index)
            if index in self._loaded:
                raise sent_too_early(bucket, self.steps)
            self._fired[index] = self._fired.get(index, 0) + 1
            # One backward accumulates into a parameter once, however often it was used; only a
            # backward inside it (reentrant checkpointing) comes on top, which the first step shows.
            settled = self.steps > 0 and index not in self._nested and self._forwards == 1
            settled = settled and (self.weights is None or not self.weights.late)
            if settled and self._fired[index] == len(bucket.parameters):
                self._load_from_grad(bucket)
                self._launch_ready()

        return note

    def _load_from_grad(self, bucket: AnyBucket) -> None:
        local = [parameter.grad for parameter in bucket.parameters]
        self._loaded[bucket.spec.index] = local
        self._load(bucket, local)

    def _load(self, bucket: AnyBucket, gradients: Sequence[torch.Tensor | None]) -> None:
        if self.weights is not None:
            self.weights.settle()
        bucket.load(gradients, owners=NOBODYS)

    def _clear(self) -> None:
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.grad = None

    def _launch_ready(self) -> None:
        while len(self._works) < len(self.buckets) and len(self._works) in self._loaded:
            self.times.sent(len(self._works))
            self._works.append(self._send(self.buckets[len(self._works)]))

    def _send(self, bucket: AnyBucket) -> list[Work]:
        if bucket.spec.index in self._carried:
            return []
        if self.comm_hook is not None:
            return [self.comm_hook.send(bucket, is_last=bucket is self.buckets[-1])]
        if bucket in self.compressed:
            return [self.compressed.send(bucket, self._label(bucket))]
        return self._all_reduce(bucket)

    def _all_reduce(self, bucket: AnyBucket) -> list[Work]:
        label, scale = self._label(bucket), bucket.message_scale
        return [self.collectives.all_reduce(message, label, scale) for message in bucket.messages]

    def _accumulated(self) -> None:
        if self.weights is not None:
            self.weights.end()
        self.window.done += self._counts
        self._reset()

    def _finish(self) -> None:
        if self.weights is not None:
            self.weights.end()
            self.weights.announce()
        for bucket in self.buckets:
            index = bucket.spec.index
            if index in self._loaded:
                continue
            if index in self._given:
                bucket.unscale()
            self._load_from_grad(bucket)
        self._launch_ready()
        self.times.computed()
        self._wait()
        self.times.end(plain=self._forwards == 1)
        for bucket in self.buckets:
            local = self._loaded[bucket.spec.index]
            if local is not None:
                bucket.store(local)
            bucket.release()
        self._end_step()
        if self.usage is not None:
            self.usage.finish()

    def _end_step(self) -> None:
        self.steps += 1
        self.pending = False
        self.window.done = 0
        if self.weights is not None:
            self.weights.forget()
        self._reset()
        for callback in self.after_backward:
            callback()

    def _abandon(self) -> None:
        """Clears what a backward that raised left behind."""
        self._wait()
        self._reset()
        if self.usage is not None:
            self.usage.forget()
        if self.weights is not None:
            self.weights.forget()

    def _wait(self) -> None:
        for index, messages in enumerate(self._works):
            for work in messages:
                work.wait()
            self.times.arrived(index)

    def _reset(self) -> None:
        self._active, self._forwards, self._counts = False, 0, True
        self._synced_forward = self.enabled
        self._works, self._fired, self._loaded, self._given = [], {}, {}, set()

    def _label(self, bucket: AnyBucket) -> str:
        return f"step {self.steps}, {self._titles[bucket.spec.index]}"
