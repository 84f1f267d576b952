"""The ways in which a model is trained: the columns of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autopar.api import parallelize
from autopar.errors import OptionError
from autopar.nn import DistributedDataParallel as DropIn
from autopar.strategies import DDP, DataParallel, Strategy
from autopar.verification.training import Call

__all__ = ["COLUMNS", "PLAIN", "USUAL", "Column", "references", "select_columns", "subjects"]

_ONE_BUCKET = 1 << 20  # MiB: larger than any model here


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One way.

    Attributes:
        name: in the JSON and on the command line.
        title: at the head of the column.
        wrap: from a copy of the model and a sample call to what is called in a step. Runs in every
            rank, with the default process group up.
        kind: ``"plain"`` sends nothing, ``"reference"`` is torch's, ``"subject"`` is autopar's.
        alone: rank 0 has the machine for itself, as many threads as there are ranks, and one rank's batch.
        compiled: through ``torch.compile``; compared with what is, too.
    """

    name: str
    title: str
    wrap: Callable[[nn.Module, Call], nn.Module]
    kind: str
    alone: bool = False
    compiled: bool = False


def _plain(model: nn.Module, call: Call) -> nn.Module:
    return model


def _ddp(**options: object) -> Callable[[nn.Module, Call], nn.Module]:
    return lambda model, call: DistributedDataParallel(model, **options)  # type: ignore[arg-type]


def _compiled(wrap: Callable[[nn.Module, Call], nn.Module]) -> Callable[[nn.Module, Call], nn.Module]:
    return lambda model, call: cast("nn.Module", torch.compile(wrap(model, call)))


def _autopar(strategy: Callable[[], Strategy]) -> Callable[[nn.Module, Call], nn.Module]:
    return lambda model, call: parallelize(model, strategy())


PLAIN = Column(name="plain", title="plain", wrap=_plain, kind="plain")
COLUMNS: tuple[Column, ...] = (
    PLAIN,
    Column(name="ddp", title="DDP", wrap=_ddp(), kind="reference"),
    Column(
        name="ddp-static",
        title="DDP static",
        wrap=_ddp(gradient_as_bucket_view=True, static_graph=True),
        kind="reference",
    ),
    Column(
        name="ddp-one-bucket",
        title="DDP one bucket",
        wrap=_ddp(gradient_as_bucket_view=True, bucket_cap_mb=_ONE_BUCKET),
        kind="reference",
    ),
    Column(name="autopar", title="autopar", wrap=_autopar(DDP), kind="subject"),
    Column(name="autopar-gloo", title="over gloo", wrap=_autopar(lambda: DDP(backend="torch")), kind="subject"),
    Column(name="drop-in", title="drop-in", wrap=lambda model, call: DropIn(model), kind="subject"),
    Column(name="plain-alone", title="plain, alone", wrap=_plain, kind="plain", alone=True),
    Column(name="data-parallel", title="data_parallel", wrap=_autopar(DataParallel), kind="subject", alone=True),
    Column(name="compiled-plain", title="compiled plain", wrap=_compiled(_plain), kind="plain", compiled=True),
    Column(
        name="compiled-ddp",
        title="compiled DDP",
        wrap=_compiled(_ddp(gradient_as_bucket_view=True)),
        kind="reference",
        compiled=True,
    ),
    Column(
        name="ddp-of-compiled",
        title="DDP of compiled",
        wrap=lambda model, call: _ddp(gradient_as_bucket_view=True)(_compiled(_plain)(model, call), call),
        kind="reference",
        compiled=True,
    ),
    Column(
        name="compiled-autopar",
        title="compiled",
        wrap=_autopar(lambda: DDP(compile=True)),
        kind="subject",
        compiled=True,
    ),
)
USUAL = tuple(column for column in COLUMNS if not column.compiled)  # compiling takes up to a minute a column


def select_columns(names: str) -> tuple[Column, ...]:
    """The columns of a comma-separated list, in their own order; the plain ones for them are always there.

    Raises:
        OptionError: a name is not known.
    """
    wanted = [name.strip() for name in names.split(",")]
    known = [column.name for column in COLUMNS]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise OptionError(f"There is no column {unknown[0]!r}.", mend=f"Known: {', '.join(known)}.")
    compiled = any(column.compiled for column in COLUMNS if column.name in wanted)
    always = [PLAIN.name, *(["compiled-plain"] if compiled else [])]
    return tuple(column for column in COLUMNS if column.name in (*wanted, *always))


def references(columns: Sequence[Column], *, compiled: bool) -> list[str]:
    """Names of those that are torch's own DDP; the fastest of them is "DDP's best"."""
    return [column.name for column in columns if column.kind == "reference" and column.compiled == compiled]


def subjects(columns: Sequence[Column]) -> list[Column]:
    """Those that are autopar's."""
    return [column for column in columns if column.kind == "subject"]
