"""``weight=``: the mean over all samples, whatever the ranks' batches; against one process with all of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import autopar
from autopar.attach import attachment_of
from autopar.errors import OptionError, RuntimeStateError, UsageError
from autopar.partitioner.plan import Plan
from autopar.runtime.comm_hook import CommHook
from autopar.strategies import DDP, resolve
from tests.runtime.pairs import Ranks, differences, twin_of
from tests.runtime.zoo import ZOO

_BOUND = 2e-6  # of the largest gradient: float32 sums of other parts, seen up to 2.7e-7
# Rows of each rank, backward by backward: a rank may have none of a batch.
SPLITS = {2: [(1, 7), (5, 3), (8, 0)], 3: [(1, 6, 2), (3, 3, 3), (0, 9, 0)]}
# Traced; gathered by hooks; with a backward inside backward; sparse gradients.
MODELS = ["mlp", "opaque_submodule", "checkpoint_reentrant", "sparse"]


def _batch(name: str, count: int) -> torch.Tensor:
    torch.manual_seed(count)
    return torch.randint(20, (count, 7)) if name == "sparse" else torch.randn(count, 6)


def _apart(mine: nn.Module, whole: nn.Module) -> float:
    """The largest difference of gradients, as a part of the largest gradient."""
    pairs = [(p.grad.to_dense(), q.grad.to_dense()) for p, q in zip(mine.parameters(), whole.parameters(), strict=True)]
    return max((p - q).abs().max().item() for p, q in pairs) / max(q.abs().max().item() for _, q in pairs)


def _train(model: nn.Module, name: str, rows: torch.Tensor) -> None:
    """The mean over the rank's own samples, which is NaN where there are none."""
    model(rows).flatten(1).square().mean(1).mean().backward()


def against_whole(name: str, splits: Sequence[Sequence[int]], **options: Any) -> float:
    """The largest difference from one process, over steps with each of the splits."""
    mine, whole = twin_of(ZOO[name].build, weight="samples", **options)
    worst = 0.0
    for split in splits:
        rows = _batch(name, sum(split))
        mine.zero_grad()
        whole.zero_grad()
        _train(mine, name, rows.split(split)[dist.get_rank()])
        _train(whole, name, rows)
        worst = max(worst, _apart(mine, whole))
    return worst


def in_a_window(splits: Sequence[Sequence[int]], accumulate: int, **options: Any) -> float:
    """The same with all splits in one window: of ``accumulate``, or with ``no_sync`` before its last."""
    mine, whole = twin_of(ZOO["mlp"].build, weight="samples", accumulate=accumulate, **options)
    rows = _batch("mlp", sum(map(sum, splits)))
    batches = rows.split([sum(split) for split in splits])
    for place, (batch, split) in enumerate(zip(batches, splits, strict=True)):
        waits = accumulate == 1 and place + 1 < len(splits)
        with autopar.no_sync(mine) if waits else contextlib.nullcontext():
            _train(mine, "mlp", batch.split(split)[dist.get_rank()])
    _train(whole, "mlp", rows)
    return _apart(mine, whole)


def two_forwards() -> float:
    """One backward through two forwards of other sizes, while a third one is never trained on."""
    mine, whole = twin_of(ZOO["mlp"].build, weight="samples")
    rows, rank = _batch("mlp", 12), dist.get_rank()
    parts = rows.split([1, 2, 3, 6] if dist.get_world_size() == 2 else [1, 2, 3, 3, 1, 2])[2 * rank : 2 * rank + 2]
    mine(rows[: 4 + rank])
    losses = [mine(part).square().mean(1).sum() for part in parts]
    (torch.stack(losses).sum() / sum(map(len, parts))).backward()
    _train(whole, "mlp", rows)
    return _apart(mine, whole)


def equal_sizes() -> list[str]:
    """What differs from training without weights, which there is no reason for with batches of one size."""
    mine, theirs = twin_of(ZOO["mlp"].build, weight="samples")
    autopar.parallelize(theirs, "ddp")
    for model in (mine, theirs):
        torch.manual_seed(dist.get_rank())
        _train(model, "mlp", torch.randn(4, 6))
    return differences(mine, theirs)


def uneven(accumulate: int, **options: Any) -> list[float]:
    """Ranks with other numbers of batches: the difference of the gradient of each step that this rank took."""
    mine, whole = twin_of(ZOO["mlp"].build, weight="samples", accumulate=accumulate, **options)
    rank, found = dist.get_rank(), []
    sizes = [[3, 1], [4, 2, 5, 1, 2], [1, 1, 6]][: dist.get_world_size()]
    rows = {(r, step): torch.randn(n, 6) for r, own in enumerate(sizes) for step, n in enumerate(own)}

    def check(steps: Sequence[int]) -> None:
        whole.zero_grad()
        _train(whole, "mlp", torch.cat([rows[r, s] for s in steps for r in range(len(sizes)) if (r, s) in rows]))
        found.append(_apart(mine, whole))
        mine.zero_grad()

    with autopar.join(mine):
        for step in range(len(sizes[rank])):
            _train(mine, "mlp", rows[rank, step])
            if step % accumulate == accumulate - 1:
                check(range(step + 1 - accumulate, step + 1))
    if accumulate > 1:
        counted = autopar.flush(mine)
        check([4])
        found.append(abs(counted - 1))
    return found


def everything(world: int) -> dict[str, float]:
    """How far each way of training is from one process on the whole batch."""
    splits = SPLITS[world]
    found: dict[str, float] = {name: against_whole(name, splits) for name in MODELS}
    if world == 2:
        found["compiled, accumulate"] = in_a_window(splits[::-1], 3, compile={"backend": "aot_eager"})
    found["over gloo"] = against_whole("mlp", splits, backend="torch", bucket_cap_mb=0)
    found["no_sync"] = in_a_window(splits, 1)
    found["accumulate"] = in_a_window(splits, 3)
    found["two forwards"] = two_forwards()
    found["equal sizes"] = len(equal_sizes())
    for accumulate in (1, 2):
        found |= {f"join {accumulate}, {step}": apart for step, apart in enumerate(uneven(accumulate))}
    everything_travels = {"compression": "topk{ratio=1.0}"}
    found["compressed"] = against_whole("mlp", splits, **everything_travels)
    found["compressed, join"] = max(uneven(1, **everything_travels))
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_any_split_gives_the_gradient_of_the_whole_batch(ranks: Ranks, world: int) -> None:
    """On every route, in windows of several backwards, and with ranks that run out of batches."""
    for found in ranks(everything, world, world, timeout=120):
        assert max(found.values()) < _BOUND, found


class Tokens(nn.Module):
    """Scores of each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)

    def forward(self, ids: torch.Tensor, attention_mask: Any = None, labels: Any = None) -> torch.Tensor:
        """The scores, and with labels the loss."""
        scores = self.head(self.embed(ids))
        return scores if labels is None else F.cross_entropy(scores.flatten(0, 1), labels.flatten())


def _masked(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    mask = labels != -100
    return model(ids, mask)[mask].square().mean()


TOKEN_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "labels": lambda model, ids, labels: model(ids, labels=labels),
    "mask": _masked,
    "integers": lambda model, ids, labels: model(ids).square().mean(),
}


def by_tokens() -> dict[str, float]:
    """The difference from the whole batch with each thing that tells tokens, and with a function."""
    torch.manual_seed(0)
    ids, labels = torch.randint(9, (5, 6)), torch.randint(9, (5, 6))
    labels[0, 2:] = -100
    labels[3, :5] = -100
    found = {}
    for name, loss in TOKEN_LOSSES.items():
        for weight in ("tokens", _valid) if name == "labels" else ("tokens",):
            model, whole = twin_of(Tokens, weight=weight)
            mine = slice(0, 1) if dist.get_rank() == 0 else slice(1, 5)
            loss(model, ids[mine], labels[mine]).backward()
            loss(whole, ids, labels).backward()
            found[f"{name}, {weight}"] = _apart(model, whole)
    return found


def _valid(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (labels >= 0).sum()


def test_tokens_and_functions(ranks: Ranks) -> None:
    """Labels, a mask, integer inputs, and a function of the call."""
    for found in ranks(by_tokens, 2):
        assert len(found) == 4
        assert max(found.values()) < _BOUND, found


def refused() -> list[str]:
    """What each rank raises when rank 1's weight is none, when all are 0, and of what cannot be weighed."""
    said = []

    def attempt(weights: Sequence[float], act: Callable[[nn.Module], Any], **options: Any) -> None:
        model, _ = twin_of(ZOO["mlp"].build, weight=lambda x: weights[dist.get_rank()], **options)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        with pytest.raises(RuntimeStateError) as caught:
            act(model)
        said.append(str(caught.value))
        model.zero_grad()

    def backward(model: nn.Module) -> None:
        model(torch.ones(2, 6)).sum().backward()

    for weights in ((1.0, -2.0), (1.0, math.nan), (math.inf, 1.0), (0.0, 0.0)):
        attempt(weights, backward)
    attempt((1.0, 1.0), backward, accumulate=2)
    attempt((1.0, 1.0), lambda model: torch.autograd.grad(model(torch.ones(2, 6)).sum(), model[0].weight))
    return said


def test_what_is_no_weight_is_an_error_on_every_rank(ranks: Ranks) -> None:
    """The same sentence on all, with the rank and the value."""
    one, other = ranks(refused, 2)
    assert one == other
    for said, part in zip(
        one,
        [
            "Rank 1 gave its batch the weight -2.0.",
            "Rank 1 gave its batch the weight nan.",
            "Rank 0 gave its batch the weight inf.",
            "The weights of all ranks are 0",
            "began with gradients of an earlier one",
            "torch.autograd.grad() was asked for gradients of bucket 0",
        ],
        strict=True,
    ):
        assert part in said


def test_one_process_is_weighed_too() -> None:
    """A script has the same gradients on one process as on many: the mean over its window, not the sum."""
    mine, whole = twin_of(ZOO["mlp"].build, weight="samples")
    rows = _batch("mlp", 6)
    with autopar.no_sync(mine), autopar.join(mine):
        _train(mine, "mlp", rows[:1])
    _train(mine, "mlp", rows[1:])
    _train(whole, "mlp", rows)
    assert _apart(mine, whole) < _BOUND


def test_an_integer_is_needed_for_tokens() -> None:
    """Said at the call."""
    model = autopar.parallelize(nn.Linear(6, 2), "ddp", weight="tokens")
    with pytest.raises(RuntimeStateError, match="found no labels, no attention_mask and no integer tensor"):
        model(torch.ones(2, 6))


@pytest.mark.parametrize("weight", ["rows", 3, "math:nothing", "no.such.place:f"])
def test_what_is_no_measure_is_refused(weight: Any) -> None:
    """Before anything is done to the model."""
    with pytest.raises(OptionError, match="The option weight is"):
        autopar.parallelize(nn.Linear(2, 2), "ddp", weight=weight)


def test_where_weights_do_not_go() -> None:
    """``data_parallel`` is exact as it is; hooks divide by themselves; a plain model has no ranks."""
    with pytest.raises(OptionError, match="'data_parallel' has no option 'weight'"):
        autopar.parallelize(nn.Linear(2, 2), "data_parallel", weight="samples")
    with pytest.raises(OptionError, match="weight and comm_hook"):
        DDP(weight="samples", comm_hook=CommHook(None, print))
    with pytest.raises(UsageError, match="no ranks that could join"), autopar.join(nn.Linear(2, 2)):
        pass


def test_a_plan_keeps_the_weight() -> None:
    """Also a function's, by its place: what is read again weighs the same."""
    for weight in ("tokens", math.hypot):
        model = autopar.parallelize(
            nn.Linear(2, 2), DDP(weight=weight), example_inputs=torch.ones(1, 2, dtype=torch.float)
        )
        attachment: Any = attachment_of(model)
        options = Plan.from_json(attachment.compilation.plan.to_json()).options
        again = resolve("ddp", {"weight": options["weight"]})
        assert again.options()["weight"] == options["weight"] == (weight if isinstance(weight, str) else "math:hypot")
