"""Batch norms take their statistics over all ranks: ``sync-batch-norm``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autopar import ops
from autopar.errors import OptionError
from autopar.passes.base import PassContext, PassResult
from autopar.program import Program, Remark

__all__ = ["SyncBatchNorm"]


@dataclass(frozen=True, slots=True)
class SyncBatchNorm:
    """Makes every ``ops.batch_norm`` of the graph an ``ops.sync_batch_norm``, as for ``nn.SyncBatchNorm``.

    Training is then that of one process with the whole batch, up to rounding, instead of one whose batch norms
    see a part each. Batch norms in opaque pieces are synchronised by the runtime, where they are.

    Raises:
        OptionError: the strategy was not told so; without it, calls that run eagerly would not take part.
    """

    name: ClassVar[str] = "sync-batch-norm"
    requires: ClassVar[frozenset[str]] = frozenset({"inlined"})
    provides: ClassVar[frozenset[str]] = frozenset()
    on_islands: ClassVar[bool] = True

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Changes the nodes in place."""
        if not ctx.options.get("sync_batch_norm"):
            raise OptionError(
                "The pass 'sync-batch-norm' stands in a pipeline of a strategy that does not synchronise batch norms.",
                mend="Give the option sync_batch_norm=True, which brings the pass with it.",
            )
        nodes = list(program.find("call_function", ops.batch_norm))
        for node in nodes:
            node.target = ops.sync_batch_norm
        shared = len(list(program.find("call_function", ops.sync_batch_norm)))
        message = f"{shared} batch norms take their statistics over all ranks."
        remark = Remark(code="AP215", kind="passed", stage=self.name, message=message)
        return PassResult(program, changed=bool(nodes), remarks=(remark,), counters={"batch norms": shared})
