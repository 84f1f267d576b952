"""The drop-in for ``torch.nn.DataParallel``."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings

import pytest
import torch
from torch import nn

import autopar
from autopar.nn import DataParallel


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def test_the_signature_is_torchs() -> None:
    """Names, order and defaults."""
    ours = inspect.signature(DataParallel).parameters.values()
    theirs = inspect.signature(nn.DataParallel).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_it_is_a_torch_data_parallel_with_the_module_inside() -> None:
    """Libraries unwrap by isinstance and ``.module``; checkpoints have the prefix."""
    model = _model()
    parallel = autopar.nn.DataParallel(model)
    assert isinstance(parallel, nn.DataParallel)
    assert parallel.module is model
    assert type(parallel.module) is nn.Sequential
    assert list(parallel.state_dict()) == [f"module.{name}" for name in model.state_dict()]


@pytest.mark.parametrize("device_ids", [None, [0], [0, 1], [0, 1, 2]])
def test_the_result_on_the_cpu_is_the_plain_modules(device_ids: list[int] | None) -> None:
    """Outputs and gradients; there it splits, where torch's does nothing."""
    model, x = _model(), torch.randn(7, 5)
    plain = copy.deepcopy(model)
    parallel = DataParallel(model, device_ids)
    found, expected = parallel(x), plain(x)
    torch.testing.assert_close(found, expected)
    found.square().mean().backward()
    expected.square().mean().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_it_really_splits_the_batch() -> None:
    """A layer that stays whole sees its parts only."""
    sizes: list[int] = []

    class Watch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(int(torch.tensor(x.tolist()).shape[0]))
            return x

    parallel = DataParallel(nn.Sequential(nn.Linear(5, 3), Watch()), device_ids=[0, 1, 2])
    parallel(torch.randn(7, 5))
    sizes.clear()
    parallel(torch.randn(7, 5))
    assert sizes == [3, 3, 1]


def test_without_gradients_the_plain_module_runs() -> None:
    """Evaluation needs no replicas for the same result."""
    model, x = _model(), torch.randn(7, 5)
    parallel = DataParallel(model)
    with torch.no_grad():
        assert torch.equal(parallel(x), model(x))


def test_a_model_that_mixes_samples_runs_plain_and_says_so() -> None:
    """Once: torch's wrapper would have run it plain, too."""

    class Centre(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.linear(x)
            return hidden - hidden.mean(0)

    model, x = Centre(), torch.randn(6, 5)
    parallel = DataParallel(model)
    with pytest.warns(UserWarning, match="not split over replicas. Output 0 of Centre mixes samples"):
        assert torch.equal(parallel(x), model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(parallel(x), model(x))


def _with_batch_norm() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_a_batch_norm_that_trains_sees_the_whole_batch() -> None:
    """Outputs, gradients and running statistics are the plain module's, bit for bit; a warning says why, once."""
    model, x = _with_batch_norm(), torch.randn(6, 5)
    plain = copy.deepcopy(model)
    parallel = DataParallel(model)
    with pytest.warns(UserWarning, match=r"not split over replicas. It needs .* whole batch in 1 \(BatchNorm1d\)\."):
        found = parallel(x)
    expected = plain(x)
    assert torch.equal(found, expected)
    found.square().mean().backward()
    expected.square().mean().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for one, other in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel(x)


def test_a_batch_norm_that_begins_to_train_later_sees_the_whole_batch() -> None:
    """It was split as long as it evaluated, and the same graph would serve both modes."""
    model, x = _with_batch_norm().eval(), torch.randn(6, 5)
    plain = copy.deepcopy(model)
    parallel = DataParallel(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(parallel(x), plain(x))
    parallel.train()
    with pytest.warns(UserWarning, match="not split over replicas"):
        assert torch.equal(parallel(x), plain.train()(x))
    assert torch.equal(model[1].running_mean, plain[1].running_mean)


def test_a_frozen_model_runs_plain() -> None:
    """There is no gradient to split the work of."""
    model, x = _model().requires_grad_(False), torch.randn(6, 5)
    assert torch.equal(DataParallel(model)(x), model(x))


def test_hooks_of_the_module_run_once_on_the_whole_batch() -> None:
    """Forward hooks of the wrapped module itself."""
    model, seen = _model(), []
    model.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    parallel = DataParallel(model)
    for _ in range(2):
        parallel(torch.randn(6, 5))
    assert seen == [(6, 3)] * 2
    assert "forward" not in vars(model)


def test_copies_and_pickles_work() -> None:
    """Before and after the first forward; they run by themselves."""
    parallel, x = DataParallel(_model()), torch.randn(6, 5)
    for _ in range(2):
        for other in (copy.deepcopy(parallel), pickle.loads(pickle.dumps(parallel))):
            torch.testing.assert_close(other(x), parallel.module(x))
            assert other.module is not parallel.module
        parallel(x)


def test_moving_it_captures_anew() -> None:
    """In another dtype."""
    parallel, x = DataParallel(_model()), torch.randn(6, 5)
    parallel(x)
    parallel.double()
    assert parallel(x.double()).dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_inputs_are_moved_to_one_cuda_device() -> None:
    """As torch's wrapper scatters them there."""
    parallel = DataParallel(_model().cuda(), device_ids=[0])
    assert parallel(torch.randn(6, 5)).device == torch.device("cuda:0")
    assert parallel.device_ids == [0]
