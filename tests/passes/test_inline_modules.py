"""Opening torch.nn modules: bitwise the same computation, and only where the class is known to be pure."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autopar import ops
from autopar.compat import tree_flatten
from autopar.passes.preserving import inline_modules
from autopar.program import info
from tests.opaque import kept_whole
from tests.passes.programs import compiled, outputs

R = torch.randn
LABELS = torch.tensor([0, 2, 1])
torch.manual_seed(0)

CASES: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
    "identity": (nn.Identity(), (R(2, 3),)),
    "flatten": (nn.Flatten(), (R(2, 3, 4),)),
    "flatten-dims": (nn.Flatten(0, 1), (R(2, 3, 4),)),
    "unflatten": (nn.Unflatten(1, (2, 3)), (R(2, 6),)),
    "linear": (nn.Linear(3, 4), (R(2, 3),)),
    "linear-no-bias": (nn.Linear(3, 4, bias=False), (R(2, 5, 3),)),
    "bilinear": (nn.Bilinear(3, 4, 5), (R(2, 3), R(2, 4))),
    "bilinear-no-bias": (nn.Bilinear(3, 4, 5, bias=False), (R(2, 3), R(2, 4))),
    "embedding": (nn.Embedding(5, 3), (LABELS,)),
    "embedding-options": (nn.Embedding(5, 3, padding_idx=1, scale_grad_by_freq=True), (LABELS,)),
    "embedding-bag": (nn.EmbeddingBag(5, 3), (LABELS[None],)),
    "embedding-bag-sum": (
        nn.EmbeddingBag(5, 3, mode="sum", include_last_offset=True), (LABELS, torch.tensor([0, 2, 3])),
    ),
    "conv1d": (nn.Conv1d(3, 4, 3), (R(2, 3, 8),)),
    "conv1d-circular": (nn.Conv1d(3, 6, 3, 2, 2, 2, groups=3, bias=False, padding_mode="circular"), (R(2, 3, 9),)),
    "conv2d": (nn.Conv2d(3, 4, 3), (R(2, 3, 6, 6),)),
    "conv2d-reflect": (nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"), (R(2, 3, 6, 6),)),
    "conv2d-same": (nn.Conv2d(3, 4, (3, 2), padding="same", bias=False), (R(2, 3, 6, 6),)),
    "conv3d": (nn.Conv3d(2, 3, 2), (R(1, 2, 4, 4, 4),)),
    "conv3d-replicate": (nn.Conv3d(2, 4, 3, padding=1, groups=2, padding_mode="replicate"), (R(1, 2, 4, 4, 4),)),
    "conv-transpose1d": (nn.ConvTranspose1d(3, 4, 3), (R(2, 3, 5),)),
    "conv-transpose1d-options": (nn.ConvTranspose1d(4, 4, 3, 2, 1, 1, groups=2, bias=False), (R(2, 4, 5),)),
    "conv-transpose2d": (nn.ConvTranspose2d(3, 4, 3, dilation=2), (R(2, 3, 5, 5),)),
    "conv-transpose3d": (nn.ConvTranspose3d(2, 3, 2, stride=2), (R(1, 2, 3, 3, 3),)),
    "layer-norm": (nn.LayerNorm(4), (R(2, 4),)),
    "layer-norm-no-bias": (nn.LayerNorm((3, 4), eps=0.1, bias=False), (R(2, 3, 4),)),
    "layer-norm-plain": (nn.LayerNorm(4, elementwise_affine=False), (R(2, 4),)),
    "group-norm": (nn.GroupNorm(2, 4), (R(2, 4, 3),)),
    "group-norm-plain": (nn.GroupNorm(2, 4, affine=False, eps=0.1), (R(2, 4, 3),)),
    "rms-norm": (nn.RMSNorm(4), (R(2, 4),)),
    "rms-norm-eps": (nn.RMSNorm(4, eps=0.1, elementwise_affine=False), (R(2, 4),)),
    "local-response-norm": (nn.LocalResponseNorm(2, k=2.0), (R(2, 4, 5),)),
    "relu": (nn.ReLU(), (R(2, 3),)),
    "relu-inplace": (nn.ReLU(inplace=True), (R(2, 3),)),
    "relu6": (nn.ReLU6(), (R(2, 3) * 9,)),
    "leaky-relu": (nn.LeakyReLU(0.3), (R(2, 3),)),
    "prelu": (nn.PReLU(), (R(2, 3),)),
    "prelu-many": (nn.PReLU(3, init=0.1), (R(2, 3),)),
    "elu": (nn.ELU(0.5), (R(2, 3),)),
    "selu": (nn.SELU(), (R(2, 3),)),
    "celu": (nn.CELU(0.5), (R(2, 3),)),
    "gelu": (nn.GELU(), (R(2, 3),)),
    "gelu-tanh": (nn.GELU(approximate="tanh"), (R(2, 3),)),
    "silu": (nn.SiLU(), (R(2, 3),)),
    "mish": (nn.Mish(), (R(2, 3),)),
    "tanh": (nn.Tanh(), (R(2, 3),)),
    "sigmoid": (nn.Sigmoid(), (R(2, 3),)),
    "hardtanh": (nn.Hardtanh(-0.2, 0.3), (R(2, 3),)),
    "hardswish": (nn.Hardswish(), (R(2, 3) * 4,)),
    "hardsigmoid": (nn.Hardsigmoid(), (R(2, 3) * 4,)),
    "softplus": (nn.Softplus(2.0, 0.5), (R(2, 3),)),
    "softsign": (nn.Softsign(), (R(2, 3),)),
    "log-sigmoid": (nn.LogSigmoid(), (R(2, 3),)),
    "softmax": (nn.Softmax(dim=1), (R(2, 3),)),
    "log-softmax": (nn.LogSoftmax(dim=0), (R(2, 3),)),
    "glu": (nn.GLU(), (R(2, 4),)),
    "glu-dim": (nn.GLU(0), (R(2, 4),)),
    "max-pool1d": (nn.MaxPool1d(2), (R(2, 3, 6),)),
    "max-pool2d": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (R(2, 3, 6, 6),)),
    "max-pool3d": (nn.MaxPool3d(2, dilation=2), (R(1, 2, 5, 5, 5),)),
    "max-pool-indices": (nn.MaxPool2d(2, return_indices=True), (R(2, 3, 6, 6),)),
    "avg-pool1d": (nn.AvgPool1d(2, count_include_pad=False, padding=1), (R(2, 3, 6),)),
    "avg-pool2d": (nn.AvgPool2d(3, 2, 1, divisor_override=2), (R(2, 3, 6, 6),)),
    "avg-pool3d": (nn.AvgPool3d(2), (R(1, 2, 4, 4, 4),)),
    "adaptive-avg1d": (nn.AdaptiveAvgPool1d(2), (R(2, 3, 6),)),
    "adaptive-avg2d": (nn.AdaptiveAvgPool2d((None, 2)), (R(2, 3, 6, 6),)),
    "adaptive-avg3d": (nn.AdaptiveAvgPool3d(1), (R(1, 2, 4, 4, 4),)),
    "adaptive-max1d": (nn.AdaptiveMaxPool1d(2), (R(2, 3, 6),)),
    "adaptive-max2d": (nn.AdaptiveMaxPool2d(2, return_indices=True), (R(2, 3, 6, 6),)),
    "adaptive-max3d": (nn.AdaptiveMaxPool3d(1), (R(1, 2, 4, 4, 4),)),
    "zero-pad2d": (nn.ZeroPad2d((1, 0, 2, 1)), (R(1, 2, 3, 3),)),
    "constant-pad1d": (nn.ConstantPad1d(2, 1.5), (R(1, 2, 3),)),
    "constant-pad2d": (nn.ConstantPad2d((1, 2, 0, 1), -1.0), (R(1, 2, 3, 3),)),
    "reflection-pad2d": (nn.ReflectionPad2d(1), (R(1, 2, 3, 3),)),
    "replication-pad2d": (nn.ReplicationPad2d(2), (R(1, 2, 3, 3),)),
    "upsample": (nn.Upsample(scale_factor=2), (R(1, 2, 3, 3),)),
    "upsample-bilinear": (nn.Upsample((5, 4), mode="bilinear", align_corners=True), (R(1, 2, 3, 3),)),
    "pixel-shuffle": (nn.PixelShuffle(2), (R(1, 4, 3, 3),)),
    "pixel-unshuffle": (nn.PixelUnshuffle(2), (R(1, 1, 4, 4),)),
    "unfold": (nn.Unfold(2, padding=1), (R(1, 2, 4, 4),)),
    "fold": (nn.Fold((4, 4), 2, stride=2), (R(1, 8, 4),)),
    "cross-entropy": (nn.CrossEntropyLoss(), (R(3, 4), LABELS)),
    "cross-entropy-options": (
        nn.CrossEntropyLoss(torch.rand(4), ignore_index=2, reduction="sum", label_smoothing=0.1),
        (R(3, 4), LABELS),
    ),
    "nll": (nn.NLLLoss(torch.rand(4)), (R(3, 4), LABELS)),
    "mse": (nn.MSELoss(reduction="none"), (R(3, 4), R(3, 4))),
    "l1": (nn.L1Loss(), (R(3, 4), R(3, 4))),
    "smooth-l1": (nn.SmoothL1Loss(beta=0.3), (R(3, 4), R(3, 4))),
    "huber": (nn.HuberLoss(delta=0.3), (R(3, 4), R(3, 4))),
    "bce": (nn.BCELoss(torch.rand(4)), (torch.rand(3, 4), torch.rand(3, 4))),
    "bce-logits": (nn.BCEWithLogitsLoss(pos_weight=torch.rand(4)), (R(3, 4), torch.rand(3, 4))),
    "kl": (nn.KLDivLoss(reduction="batchmean", log_target=True), (R(3, 4), R(3, 4))),
    "cosine": (nn.CosineSimilarity(dim=0, eps=0.1), (R(3, 4), R(3, 4))),
}  # fmt: skip


class Calls(nn.Module):
    """Calls one module; a weight of its own makes every output require a gradient."""

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.module, self.kwargs = module, kwargs
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, *args: torch.Tensor) -> Any:
        first, *rest = args
        return self.module(first * self.weight, *rest, **self.kwargs)


class CallsPlainly(Calls):
    """The same without the weight, for integer inputs."""

    def forward(self, *args: torch.Tensor) -> Any:
        return self.module(*args, **self.kwargs)


def wrapped(module: nn.Module, args: tuple[torch.Tensor, ...], **kwargs: Any) -> nn.Module:
    """The module inside of a model."""
    return (Calls if args[0].dtype.is_floating_point else CallsPlainly)(module, **kwargs)


def test_every_pure_class_is_tried() -> None:
    """A class that is added to the list needs a case here."""
    assert {type(module) for module, _ in CASES.values()} == inline_modules._PURE


@pytest.mark.parametrize(("module", "args"), CASES.values(), ids=list(CASES))
def test_opened_module_is_bitwise_the_module(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    """Values, and gradients of everything."""
    model = wrapped(module, args)
    program = compiled(model, "inline-modules", *args)
    assert not list(program.find("call_module"))
    found, _ = tree_flatten(outputs(program, *args))
    expected, _ = tree_flatten(model(*args))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    parameters = list(model.parameters())
    if expected[0].requires_grad:
        gradients = [
            torch.autograd.grad(values[0].square().sum(), parameters, allow_unused=True) for values in (found, expected)
        ]
        assert all(a is b or torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_parameters_are_read_by_name() -> None:
    """Under the module's path, once each."""
    program = compiled(nn.Sequential(nn.Linear(3, 4)), "inline-modules", R(2, 3))
    assert [node.target for node in program.find("get_attr")] == ["0.weight", "0.bias"]
    (linear,) = program.find("call_function")
    assert linear.target is torch.nn.functional.linear
    assert (info(linear).module_path, info(linear).created_by) == ("0", "inline-modules")


class MyLinear(nn.Linear):
    """A subclass that does more."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 1


class MyNorm(nn.BatchNorm1d):
    """A subclass that does not."""


def hooked() -> nn.Module:
    """A layer with a hook."""
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda module, args, output: output * 2)
    return layer


@pytest.mark.parametrize(
    "module",
    [hooked(), MyNorm(3)],
    ids=["hooked", "subclass"],
)
def test_what_may_do_more_is_not_opened(module: nn.Module) -> None:
    """It stays one call, which is said once."""
    model = nn.Sequential(module)
    program = compiled(model, "inline-modules", torch.ones(2, 3))
    (call,) = program.find("call_module")
    assert info(call).opaque
    (remark,) = [remark for remark in program.remarks if remark.kind == "missed"]
    assert remark.module_path == "0"


def test_subclass_is_traced_and_not_opened() -> None:
    """A user's subclass of Linear is a user's module: what it adds is in the graph."""
    model = nn.Sequential(MyLinear(3, 3))
    program = compiled(model, "inline-modules", torch.ones(2, 3))
    assert torch.equal(outputs(program, torch.ones(2, 3))[0], model(torch.ones(2, 3)))


def test_renormalising_embedding_is_not_opened() -> None:
    """``max_norm`` writes to the weight in forward."""
    program = compiled(nn.Sequential(nn.Embedding(5, 3, max_norm=1.0)), "inline-modules", LABELS)
    assert [node.target for node in program.find("call_module")] == ["0"]


def test_module_with_parameters_that_stays_whole_is_said() -> None:
    """With its path, class and bytes; dropout has nothing to say."""
    model = nn.Sequential(kept_whole(nn.GRUCell(3, 3)), nn.Dropout())
    program = compiled(model, "inline-modules", R(2, 3))
    (remark,) = [remark for remark in program.remarks if remark.kind == "missed"]
    assert remark.message.startswith("0 (GRUCell) stays one opaque call")
    assert remark.nbytes == 4 * (9 + 9 + 3 + 3) * 3


def test_forward_that_needs_a_size_stays_whole() -> None:
    """Nothing of the attempt is left in the graph."""
    model = wrapped(nn.ConvTranspose1d(3, 4, 3, stride=2), (R(2, 3, 5),), output_size=[12])
    program = compiled(model, "inline-modules", R(2, 3, 5))
    assert [node.target for node in program.find("call_module")] == ["module"]
    assert [node.target for node in program.find("get_attr")] == ["weight"]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.1, "momentum": 0.3}],
    ids=["default", "average", "plain", "untracked", "options"],
)
@pytest.mark.parametrize(
    ("cls", "shape"), [(nn.BatchNorm1d, (4, 3)), (nn.BatchNorm2d, (2, 3, 2, 2)), (nn.BatchNorm3d, (2, 3, 1, 2, 2))]
)
def test_batch_norm_is_opened_with_its_statistics(
    cls: type[nn.Module], shape: tuple[int, ...], options: dict[str, Any], training: bool
) -> None:
    """Outputs and buffers after two steps; the mode is read when it runs."""
    torch.manual_seed(0)
    batch = R(*shape)
    model, plain = (nn.Sequential(cls(3, **options), nn.Tanh()) for _ in range(2))
    program = compiled(wrapped(model, (batch,)), "inline-modules", batch)
    assert list(program.find("call_function", ops.batch_norm))
    model.train(training)
    plain.train(training)
    for _ in range(2):
        assert torch.equal(outputs(program, batch)[0], plain(batch))
    for one, other in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)


def test_batch_norm_called_by_keyword() -> None:
    """``self.norm(input=x)``."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(input=x)

    program = compiled(Named(), "inline-modules", R(4, 3))
    assert list(program.find("call_function", ops.batch_norm))


def test_batch_norm_refuses_the_shapes_that_the_module_refuses() -> None:
    """The check of dims is still there."""
    program = compiled(nn.Sequential(nn.BatchNorm1d(3)), "inline-modules", R(4, 3))
    with pytest.raises(ValueError, match="expected 2D or 3D"):
        outputs(program, R(2, 3, 2, 2))
