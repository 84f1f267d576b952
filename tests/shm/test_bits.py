"""Every kind and dtype, bit by bit against gloo, with the compiled transport and with the one in Python."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from autopar.errors import UsageError
from tests.runtime.pairs import Ranks
from tests.shm.groups import communicating, gloo, values

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_DTYPES = (*_FLOATS, torch.int8, torch.uint8, torch.int32, torch.int64)
_OPERATORS = ("sum", "min", "max", "product")
_COMPILED: dict[str, str | None] = {"AUTOPAR_NO_COMPILER": None}
_PORTABLE: dict[str, str | None] = {"AUTOPAR_NO_COMPILER": "1"}
_TRANSPORTS = pytest.mark.parametrize("environment", [_COMPILED, _PORTABLE], ids=["compiled", "portable"])


def _reductions() -> tuple[str, list[str]]:
    wrong = []
    with communicating() as group:
        for dtype in _DTYPES:
            for op in _OPERATORS:
                for count in (1, 2, 7, 1001, 40_003):
                    mine = group.empty(count, dtype).copy_(values(count, dtype))
                    expected = gloo(mine, op)
                    group.all_reduce(mine, op).wait()
                    if not torch.equal(mine, expected):
                        wrong.append(f"{op} of {count} {dtype}")
        return repr(group), wrong


@_TRANSPORTS
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_reductions_have_gloos_bits(ranks: Ranks, world_size: int, environment: dict[str, str | None]) -> None:
    """At any world size: each element is added up in the order of gloo's ring."""
    transport = "Portable" if environment is _PORTABLE else "Native"
    for text, wrong in ranks(_reductions, world_size, environment=environment):
        assert transport in text
        assert wrong == []


def _large() -> list[bool]:
    counts = (3_000_001, 6_000_001)  # gloo cuts messages into segments of 1 MiB at most
    with communicating() as group:
        results = []
        for count in counts:
            mine = group.empty(count, torch.float32).copy_(values(count, torch.float32))
            expected = gloo(mine, "sum")
            group.all_reduce(mine).wait()
            results.append(torch.equal(mine, expected))
        return results


def test_large_messages_have_gloos_bits(ranks: Ranks) -> None:
    """On three ranks, where the order shows, and beyond the size at which gloo changes it."""
    assert ranks(_large, 3) == [[True, True]] * 3


def _scaled() -> list[str]:
    wrong = []
    with communicating() as group:
        for dtype in _FLOATS:
            mine = group.empty(5003, dtype).copy_(values(5003, dtype))
            expected = gloo(mine * (1 / 3), "sum")
            group.all_reduce(mine, scale=1 / 3).wait()
            if not torch.equal(mine, expected):
                wrong.append(str(dtype))
    return wrong


@_TRANSPORTS
def test_scaling_on_the_way_rounds_as_scaling_before(ranks: Ranks, environment: dict[str, str | None]) -> None:
    """Each product is rounded to the dtype before it is added."""
    assert ranks(_scaled, 3, environment=environment) == [[]] * 3


def _averages() -> list[bool]:
    with communicating() as group:
        results = []
        for dtype in _FLOATS:
            mine = values(999, dtype)
            expected = gloo(mine, "sum") / group.world_size
            group.all_reduce(mine, "avg").wait()
            results.append(torch.equal(mine, expected))
        for tensor, options in (
            (torch.ones(3, dtype=torch.int32), {"op": "avg"}),
            (torch.ones(3, dtype=torch.int32), {"scale": 0.5}),
            (torch.ones(3, dtype=torch.complex64), {}),
            (torch.ones(3), {"op": "median"}),
        ):
            with pytest.raises(UsageError):
                group.all_reduce(tensor, **options)  # type: ignore[arg-type]
        return results


def test_averages_are_for_floating_point(ranks: Ranks) -> None:
    """The sum over the number of ranks; anything else is refused before it is sent."""
    assert ranks(_averages, 2) == [[True] * 4] * 2


def _booleans() -> list[list[bool]]:
    rank = dist.get_rank if dist.is_initialized() else None
    assert rank is None
    results = []
    with communicating() as group:
        for op in ("sum", "max", "product", "min"):
            mine = torch.tensor([True, group.rank == 0, False])
            group.all_reduce(mine, op).wait()
            results.append(mine.tolist())
    return results


@_TRANSPORTS
def test_booleans(ranks: Ranks, environment: dict[str, str | None]) -> None:
    """Sum and max are "or", product and min are "and", as torch adds and multiplies booleans."""
    either, both = [True, True, False], [True, False, False]
    assert ranks(_booleans, 2, environment=environment) == [[either, either, both, both]] * 2


def _moving() -> list[str]:
    wrong = []
    with communicating() as group:
        rank, size = group.rank, group.world_size
        for dtype in (*_DTYPES, torch.bool, torch.complex64, torch.int16):
            sent = [values(1003, dtype, rank) for rank in range(size)]
            root = size - 1
            for mine in (sent[rank].clone(), group.empty(1003, dtype).copy_(sent[rank])):
                group.broadcast(mine, root).wait()
                if not torch.equal(mine, sent[root]):
                    wrong.append(f"broadcast {dtype}")
            gathered = [torch.zeros(1003, dtype=dtype) for _ in range(size)]
            group.all_gather(gathered, sent[rank]).wait()
            if not all(map(torch.equal, gathered, sent)):
                wrong.append(f"all-gather {dtype}")
        for dtype in _DTYPES:
            parts = [values(500 + 7 * number, dtype)[:500] for number in range(size)]
            mine = torch.zeros(500, dtype=dtype)
            group.reduce_scatter(mine, parts).wait()
            if not torch.equal(mine, gloo(torch.stack(parts), "sum")[rank]):
                wrong.append(f"reduce-scatter {dtype}")
        group.barrier().wait()
    return wrong


@_TRANSPORTS
@pytest.mark.parametrize("world_size", [1, 2])
def test_moving_kinds(ranks: Ranks, world_size: int, environment: dict[str, str | None]) -> None:
    """Broadcast, all-gather and reduce-scatter, against what was sent."""
    assert ranks(_moving, world_size, environment=environment) == [[]] * world_size


def _mixed_transports() -> tuple[str, bool]:
    import os

    if int(os.environ["RANK"]) % 2:
        os.environ["AUTOPAR_NO_COMPILER"] = "1"
    with communicating() as group:
        mine = values(30_001, torch.float32)
        expected = gloo(mine, "sum")
        group.all_reduce(mine).wait()
        return repr(group), torch.equal(mine, expected)


def test_both_transports_in_one_communicator(ranks: Ranks) -> None:
    """One rank has a compiler, the other has none."""
    results = ranks(_mixed_transports, 2, environment=_COMPILED)
    assert [equal for _, equal in results] == [True, True]
    assert "Native" in results[0][0]
    assert "Portable" in results[1][0]


def _many_ranks() -> list[bool]:
    with communicating() as group:
        results = []
        for step in range(70):  # more than the ring of descriptors holds
            mine = group.empty(100, torch.float32).fill_(group.rank + step)
            work = group.all_reduce(mine)
            if step % 7 == 0:
                work.wait()
                results.append(bool((mine == 120 + 16 * step).all()))
        group.barrier().wait()
        return results


def test_sixteen_ranks(ranks: Ranks) -> None:
    """More ranks than cores, and more operations than the ring has room for."""
    assert ranks(_many_ranks, 16) == [[True] * 10] * 16
