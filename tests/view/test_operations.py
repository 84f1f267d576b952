"""Operations as the views see them: parameters at their use, helpers left out."""

from __future__ import annotations

from autopar.view.operations import operations, spec_bytes
from tests.view.documents import WEIGHT_BYTES, chain


def test_parameter_reads_are_folded_into_their_use() -> None:
    """A read weight and what the synchronisation hands out are no rows; the use carries their bytes."""
    found = operations(chain(["a", "b"]))
    assert [one.node["name"] for one in found] == ["x", "s0", "op0", "s1", "op1"]
    used = next(one for one in found if one.node["name"] == "op1")
    assert (used.param_bytes, used.buckets, used.sync) == (WEIGHT_BYTES, (0,), False)


def test_synchronisation_is_marked() -> None:
    """A synchronisation node carries its bucket's bytes."""
    sync = operations(chain(["a", "b"]))[1]
    assert (sync.sync, sync.buckets, sync.param_bytes) == (True, (1,), WEIGHT_BYTES)


def test_opaque_call_has_the_buckets_of_its_parameters() -> None:
    """No edge leads from an opaque module's parameters, so the plan tells their buckets."""
    opaque = operations(chain(["a", "b"], opaque=["b"]))[-1]
    assert (opaque.node["class"], opaque.buckets) == ("LSTM", (0,))


def test_document_without_a_plan() -> None:
    """A pipeline that stopped before the plan still has operations."""
    document = {**chain(["a"]), "plan": None}
    assert [one.node["name"] for one in operations(document)] == ["x", "s0", "op0"]


def test_bytes_of_a_parameter() -> None:
    """Elements times their size; a scalar is one element."""
    assert spec_bytes({"shape": [3, 5], "itemsize": 2}) == 30
    assert spec_bytes({"shape": [], "itemsize": 8}) == 8
