"""Writes the statements of a printed function."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path

from torch import fx, nn

from autopar import ops
from autopar.emit.layout import assign, render
from autopar.emit.names import in_text
from autopar.emit.operations import IN_PLACE, Operations
from autopar.emit.variables import Layout, Variables
from autopar.partitioner.plan import BucketSpec, Plan
from autopar.program import info

__all__ = ["Body", "bucket_text"]

_INDENT = "    "


class Body:
    """Writes the statements of one graph.

    Args:
        layout, variables, operations: of the graph.
        model: the user's module, to tell their own classes from torch's.
        plan: for the comments on buckets; None before there is one.
    """

    def __init__(
        self, layout: Layout, variables: Variables, operations: Operations, model: nn.Module, plan: Plan | None
    ) -> None:
        self.layout, self.variables, self.operations = layout, variables, operations
        self.model, self.plan = model, plan
        self._mentioned: set[int] = set()
        self._modules = dict(model.named_modules(remove_duplicate=False))

    def lines(self, returned: fx.Node | None = None) -> list[str]:
        """All statements, with comments where another module begins and where a bucket is.

        Args:
            returned: the node that is the function's result as it stands: where its statement is
                the last one, it becomes the ``return``. None where the result is put together.
        """
        lines: list[str] = []
        region = ""
        for node in self.layout.statements:
            here = self._region(node)
            if here is not None and here != region:
                lines += [f"{_INDENT}# {text}" for text in self._heading(here, node)]
                region = here
            lines += [f"{_INDENT}# {text}" for text in self._remarks(node)]
            lines += self._return(node) if node is returned else self._statement(node)
        return lines

    def returns(self, node: object) -> fx.Node | None:
        """The node, if its statement is the last one and can be the ``return``."""
        if not self.layout.statements or node is not self.layout.statements[-1] or node in self.layout.unpacked:
            return None
        assert isinstance(node, fx.Node)
        return None if node.target in IN_PLACE else node

    def _return(self, node: fx.Node) -> list[str]:
        return render(self.operations.expression(node), indent=_INDENT, before="return ")

    def _statement(self, node: fx.Node) -> list[str]:
        if node.target is operator.setitem and not node.users:
            target, value = self.operations.item_assignment(node)
            return render(value, indent=_INDENT, before=f"{target} = ")
        if node.users and node.target in IN_PLACE and node.op == "call_function":
            return self._in_place(node)
        value = self.operations.expression(node)
        if not node.users and node.op != "get_attr" and not isinstance(value, str):
            return render(value, indent=_INDENT)
        names = self.variables.bind(node)
        return assign(names, value, indent=_INDENT, unpack=node in self.layout.unpacked)

    def _in_place(self, node: fx.Node) -> list[str]:
        """``x += y`` where the result takes over the variable, else ``z = operator.iadd(x, y)``."""
        owner, change = node.args
        held = self.variables.names.get(owner) if isinstance(owner, fx.Node) else None
        names = self.variables.bind(node)
        if names != [held]:
            return assign(names, self.operations.expression(node), indent=_INDENT)
        value = self.operations.write.expression(change)
        return render(value, indent=_INDENT, before=f"{held} {IN_PLACE[node.target]} ")

    def _region(self, node: fx.Node) -> str | None:
        """Path of the user's innermost module around a node; torch's own modules are operations."""
        if node.target is ops.sync_gradients or node.op == "get_attr":
            return None
        path = info(node).module_path
        opaque_self = node.op == "call_module"
        while path:
            module = self._modules.get(path)
            if not opaque_self and module is not None and not type(module).__module__.startswith("torch.nn."):
                return path
            path, opaque_self = path.rpartition(".")[0], False
        return ""

    def _heading(self, region: str, node: fx.Node) -> list[str]:
        source = info(node).source
        place = f"  ({in_text(Path(source.file).name)}:{source.line})" if source is not None else ""
        return [f"{in_text(region) or type(self.model).__name__}{place}"]

    def _remarks(self, node: fx.Node) -> list[str]:
        if self.plan is None:
            return []
        if node.target is ops.sync_gradients:
            return [
                bucket_text(self.plan, bucket) for bucket in self.plan.buckets if bucket.index == node.kwargs["bucket"]
            ]
        if node.op != "call_module":
            return []
        inside = self._modules.get(info(node).module_path)
        owned = {id(parameter) for parameter in inside.parameters()} if inside is not None else set()
        named = {name for name, parameter in self.model.named_parameters() if id(parameter) in owned}
        touched = [b for b in self.plan.buckets if b.route == "hook" and named & set(b.parameters)]
        texts = [self._first_mention(self.plan, bucket) for bucket in touched]
        return [f"opaque; by hooks, {text}" for text in texts]

    def _first_mention(self, plan: Plan, bucket: BucketSpec) -> str:
        """Everything about the bucket of an opaque call, or its number where another call has said it."""
        known = bucket.index in self._mentioned
        self._mentioned.add(bucket.index)
        return f"bucket {bucket.index}" if known else bucket_text(plan, bucket)


def bucket_text(plan: Plan, bucket: BucketSpec) -> str:
    """What a bucket carries and when: ``bucket 0: 41.0 KiB, 2 parameters, ready 1st in backward``."""
    order: Sequence[int] = sorted(b.index for b in plan.buckets)
    count = len(bucket.parameters)
    return (
        f"bucket {bucket.index}: {_size(bucket.nbytes)}, {count} parameter{'s' if count != 1 else ''}, "
        f"ready {_ordinal(order.index(bucket.index) + 1)} in backward{_compression(bucket)}"
    )


def _compression(bucket: BucketSpec) -> str:
    return f", sent as {bucket.compression}, {_size(bucket.sent_nbytes)}" if bucket.compression else ""


def _size(nbytes: int) -> str:
    if nbytes < 1024:
        return f"{nbytes} B"
    size, unit = nbytes / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"{size:.1f} {unit}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
