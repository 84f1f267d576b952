"""How one sample call becomes batches and parts."""

from __future__ import annotations

import pytest
import torch

from autopar.errors import UsageError
from autopar.verification.batches import Batches, filled

CALL = ((torch.arange(5), torch.zeros(3)), {"scale": 2, "mask": torch.arange(5) > 2})


def test_parts_are_equal_and_roll_on() -> None:
    """Another sample comes to each part at each step; what has no batch goes to all."""
    batches = Batches(CALL, parts=2, dim=0, equal=True)
    assert (batches.size, batches.dropped) == (4, 1)
    assert [batches.part(0, i)[0].tolist() for i in range(2)] == [[0, 1], [2, 3]]
    assert [batches.part(1, i)[0].tolist() for i in range(2)] == [[4, 0], [1, 2]]
    assert batches.part(0, 1)[1].shape == (3,)
    assert batches.whole(1)[0].tolist() == [4, 0, 1, 2]


def test_other_tensors_go_back_into_the_call() -> None:
    """And what is no tensor stays."""
    args, kwargs = filled(CALL, [torch.ones(1), torch.ones(2), torch.ones(3)])
    assert [tensor.numel() for tensor in args] == [1, 2]
    assert (kwargs["scale"], kwargs["mask"].numel()) == (2, 3)


@pytest.mark.parametrize("call", [((torch.ones(1, 4),), {}), ((3,), {})])
def test_too_few_samples(call: tuple[tuple[object, ...], dict[str, object]]) -> None:
    """Before any process is started."""
    with pytest.raises(UsageError, match="cannot be divided over 2 parts"):
        Batches(call, parts=2, dim=0, equal=True)
