"""``autopar.nn.DistributedDataParallel`` where torch's own tests (``tests/parity``) do not look, or need a GPU."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from autopar.nn import DistributedDataParallel
from tests.nn.wrapped import Branches, Norm, pair, start
from tests.runtime.pairs import Ranks, differences, seeded


def changing_branches() -> list[str]:
    """What differs from torch's DDP where the layers that are used change from step to step and rank to rank."""
    rank = start()
    mine, theirs = pair(Branches, find_unused_parameters=True, bucket_cap_mb=25)
    found = []
    for step in range(4):
        for model in (mine, theirs):
            seeded(step)
            model.zero_grad()
            model(torch.randn(3, 4), left=(step + rank) % 3 == 0).sum().backward()
        found += differences(mine, theirs)
    return found


def test_find_unused_parameters_lets_the_branches_change(ranks: Ranks) -> None:
    """From step to step and from rank to rank; a parameter that no rank used keeps None."""
    assert ranks(changing_branches, 2) == [[], []]


def unused_parameter() -> tuple[str, str]:
    """The errors of autopar's wrapper and of torch's at the second forward."""
    start()
    texts = []
    for model in pair(Branches):
        model(torch.ones(1, 4), left=True).sum().backward()
        try:
            model(torch.ones(1, 4), left=True)
        except RuntimeError as error:
            texts.append(str(error))
    mine, theirs = texts
    return mine, theirs


def test_an_unused_parameter_is_refused_at_the_next_forward(ranks: Ranks) -> None:
    """As torch does, with the same indices."""
    for mine, theirs in ranks(unused_parameter, 2):
        for text in (mine, theirs):
            assert "Expected to have finished reduction in the prior iteration" in text
            assert "2 3" in text


def read_only_buffer() -> list[float]:
    """A buffer on this rank after each of three steps, of which rank 0 alone changed it before the second."""
    rank = start()
    model = DistributedDataParallel(Norm())
    values = []
    for step in range(3):
        if step == 1 and rank == 0:
            model.module.scale.fill_(5.0)
        model(torch.randn(6, 4)).sum().backward()
        values.append(model.module.scale[0].item())
    return values


def test_what_rank_0_makes_of_a_buffer_reaches_all(ranks: Ranks) -> None:
    """Also of one that forward only reads, with the next backward."""
    assert ranks(read_only_buffer, 2) == [[1.0, 5.0, 5.0]] * 2


def bucket_sizes(caps: list[float]) -> list[int]:
    """Numbers of parameters in the buckets of eight layers of 0.25 MiB, without biases."""
    start()
    model = DistributedDataParallel(
        nn.Sequential(*[nn.Linear(256, 256, bias=False) for _ in range(8)]), bucket_cap_mb_list=caps
    )
    model(torch.ones(1, 256)).sum().backward()
    assert model.plan is not None
    return [len(bucket.parameters) for bucket in model.plan.buckets]


def test_bucket_cap_mb_list_sets_each_size(ranks: Ranks) -> None:
    """The last one is for all further buckets."""
    assert ranks(bucket_sizes, 2, [0.25, 1.0, 0.5]) == [[1, 4, 2, 1]] * 2


def refused_arguments() -> list[str]:
    """The exceptions of a constructor with arguments that torch refuses."""
    start()
    layer = nn.Linear(2, 2)
    cases: list[tuple[nn.Module, dict[str, Any]]] = [
        (nn.ReLU(), {}),
        (layer, {"device_ids": [0]}),
        (layer, {"device_ids": [0, 1]}),
        (nn.LazyLinear(2), {}),
        (layer, {"bucket_cap_mb": -1}),
        (layer, {"bucket_cap_mb_list": [1, -1]}),
        (layer, {"delay_all_reduce_named_params": [("weight", layer.weight)]}),
        (cast("nn.Module", 3), {}),
    ]
    said = []
    for module, options in cases:
        try:
            DistributedDataParallel(module, **options)
        except Exception as error:
            said.append(type(error).__name__)
    return said


def test_refusals_have_the_types_of_torch(ranks: Ranks) -> None:
    """Negative caps are refused, which torch takes."""
    types = ["RuntimeError", "ValueError", "ValueError", "RuntimeError", "ValueError", "ValueError", "ValueError"]
    types += ["TypeError"]
    assert ranks(refused_arguments, 2) == [types] * 2


def wrapped_twice() -> list[str]:
    """What is said of a wrapper around torch's, and around autopar's inside of another module."""
    start()
    said = []
    around, within = nn.parallel.DistributedDataParallel(nn.Linear(2, 2)), DistributedDataParallel(nn.Linear(2, 2))
    for module in (around, nn.Sequential(within)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            DistributedDataParallel(module)
        said += [str(one.message).split(" is a")[0] for one in caught if "averaged twice" in str(one.message)]
    return said


def test_a_wrapper_around_a_wrapper_is_noticed(ranks: Ranks) -> None:
    """Torch takes it without a word; the means of means are the same, and each gradient is sent twice."""
    assert ranks(wrapped_twice, 2) == [["The module", "Its submodule '0'"]] * 2


def delayed_parameters() -> list[str]:
    """What differs from the same model without delayed parameters."""
    start()
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    plain = DistributedDataParallel(copy.deepcopy(module))
    delayed = DistributedDataParallel(
        module,
        delay_all_reduce_named_params=[("0.weight", module[0].weight)],
        param_to_hook_all_reduce=module[0].bias,
    )
    for model in (plain, delayed):
        seeded()
        model(torch.randn(3, 4)).sum().backward()
    return differences(plain, delayed)


def test_delayed_parameters_get_the_same_gradients(ranks: Ranks) -> None:
    """They travel with all others."""
    assert ranks(delayed_parameters, 2) == [[], []]


def local_state() -> tuple[bool, bool, bool]:
    """Whether ignored values stay this rank's own, others are rank 0's, and ignored gradients stay local."""
    rank = start()
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for parameter in model.parameters():
        nn.init.constant_(parameter, rank + 1.0)
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ["0.weight"])
    wrapped = DistributedDataParallel(model)
    wrapped(torch.full((1, 2), rank + 1.0)).sum().backward()
    own, shared = model[0].weight, model[1].weight
    gathered = [torch.empty_like(own) for _ in range(2)]
    dist.all_gather(gathered, own.grad)
    return bool((own == rank + 1.0).all()), bool((shared == 1.0).all()), not torch.equal(*gathered)


def test_ignored_parameters_are_left_alone(ranks: Ranks) -> None:
    """Value and gradient; everything else is synchronised."""
    assert ranks(local_state, 2) == [(True, True, True)] * 2


def copies() -> tuple[list[str], list[str], str]:
    """What a deep copy and an unpickled one do otherwise than the original, and the error of a wrapper with a group."""
    start()
    model = DistributedDataParallel(Norm())
    model.register_comm_hook(None, default_hooks.allreduce_hook)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for one in (model, *twins):
        seeded()
        one(torch.randn(6, 4)).sum().backward()
    with pytest.raises(RuntimeError) as caught:
        pickle.dumps(DistributedDataParallel(nn.Linear(2, 2), process_group=dist.new_group()))
    return differences(model, twins[0]), differences(model, twins[1]), str(caught.value)


def test_copies_train_as_the_original(ranks: Ranks) -> None:
    """Without its communication hook; a process group cannot be copied."""
    for deep, unpickled, text in ranks(copies, 2):
        assert (deep, unpickled) == ([], [])
        assert "cannot be pickled or copied" in text


def optimizers_in_backward() -> list[str]:
    """What differs from a step after backward."""
    from torch.distributed.optim import _apply_optimizer_in_backward

    start()
    module = Norm()
    after, during = DistributedDataParallel(copy.deepcopy(module)), copy.deepcopy(module)
    _apply_optimizer_in_backward(torch.optim.SGD, during.parameters(), {"lr": 0.1})
    during = DistributedDataParallel(during)
    optimizer = torch.optim.SGD(after.parameters(), lr=0.1)
    for step, model in itertools.product(range(3), (after, during)):
        seeded(step)
        model(torch.randn(6, 4)).square().sum().backward()
        if model is after:
            optimizer.step()
            optimizer.zero_grad()
    return differences(after, during, lambda p: p.detach())


def test_optimizers_that_step_in_backward_step_with_means(ranks: Ranks) -> None:
    """On the CPU, where torch's DDP raises."""
    assert ranks(optimizers_in_backward, 2) == [[], []]
