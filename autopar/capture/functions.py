"""What a call of a torch function is to a graph: an operation, a question about a tensor, or neither."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import torch
import torch.nn.functional as F

from autopar import compat

__all__ = ["Kind", "classify", "is_random", "pins_sizes", "spelling"]


class Kind(Enum):
    """What the recorder does with a call."""

    OPERATION = auto()
    SIZE = auto()  # the user's code gets the sizes, the graph their expressions
    METADATA = auto()  # the same for every call of the kind that the graph is for
    VALUE = auto()  # Python gets to see a tensor's value
    EFFECT = auto()  # does something that no graph shows


_METADATA = frozenset({
    "dim", "ndimension", "ndim", "dtype", "device", "layout", "requires_grad", "is_leaf", "is_cuda", "is_cpu", "is_xpu",
    "is_mps", "is_meta", "is_sparse", "is_sparse_csr", "is_mkldnn", "is_quantized", "is_nested", "is_complex",
    "is_floating_point", "is_signed", "is_inference", "element_size", "itemsize", "get_device", "names", "is_conj",
    "is_neg", "grad_fn", "output_nr", "is_contiguous", "storage_offset", "retains_grad", "is_vulkan", "is_ort",
    "is_maia", "is_mtia", "is_ipu", "nbytes", "is_shared", "is_pinned", "result_type", "is_distributed", "dim_order",
    "has_names", "_version", "is_coalesced", "sparse_dim", "dense_dim", "_is_view", "can_cast", "promote_types",
    "is_tensor", "is_storage",
})  # fmt: skip
_SIZES = frozenset({"shape", "size", "numel", "nelement", "__len__", "stride"})
_VALUES = frozenset({
    "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__", "numpy",
    "__array__", "__repr__", "__str__", "__format__", "equal", "allclose", "is_nonzero", "__dlpack__", "data_ptr",
    "untyped_storage", "storage", "is_set_to", "is_same_size", "__reduce_ex__", "__deepcopy__",
})  # fmt: skip
_EFFECTS = frozenset({
    "register_hook", "register_post_accumulate_grad_hook", "retain_grad", "backward", "requires_grad_", "set_",
    "resize_", "resize_as_", "share_memory_", "__set__", "__delete__", "grad", "_grad", "__setstate__", "seed",
    "manual_seed",
})  # fmt: skip
_GETTERS = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})
_RANDOM = frozenset({
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "normal_", "uniform_",
    "bernoulli", "bernoulli_", "multinomial", "poisson", "exponential_", "cauchy_", "log_normal_", "geometric_",
    "random_", "rrelu", "rrelu_", "dropout", "dropout_", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
    "dropout1d", "dropout2d", "dropout3d", "gumbel_softmax", "fractional_max_pool2d", "fractional_max_pool3d",
    "scaled_dot_product_attention", "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu",
})  # fmt: skip
_COUNTED = frozenset({"unbind", "chunk", "split", "tensor_split", "split_with_sizes", "hsplit", "vsplit", "dsplit"})
_OPERATORS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "matmul": operator.matmul,
    "neg": operator.neg, "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le, "eq": operator.eq,
    "ne": operator.ne, "add_": operator.iadd, "sub_": operator.isub, "mul_": operator.imul, "div_": operator.itruediv,
    "pow": operator.pow,
    "__getitem__": operator.getitem, "__setitem__": operator.setitem, "__matmul__": operator.matmul,
    "__pow__": operator.pow, "__floordiv__": operator.floordiv, "__mod__": operator.mod, "__and__": operator.and_,
    "__or__": operator.or_, "__xor__": operator.xor, "__invert__": operator.invert, "__iand__": operator.iand,
    "__ior__": operator.ior, "__ixor__": operator.ixor, "__ipow__": operator.ipow, "__ifloordiv__": operator.ifloordiv,
    "__imod__": operator.imod, "__lshift__": operator.lshift, "__rshift__": operator.rshift,
    "__eq__": operator.eq, "__ne__": operator.ne, "__lt__": operator.lt, "__le__": operator.le, "__gt__": operator.gt,
    "__ge__": operator.ge, "__truediv__": operator.truediv, "__idiv__": operator.itruediv,
}  # fmt: skip
_REFLECTED = {
    "__rsub__": operator.sub, "__rdiv__": operator.truediv, "__rtruediv__": operator.truediv, "__rpow__": operator.pow,
    "__rmatmul__": operator.matmul, "__rfloordiv__": operator.floordiv, "__rmod__": operator.mod,
    "__rlshift__": operator.lshift, "__rrshift__": operator.rshift, "__rand__": operator.and_,
    "__ror__": operator.or_, "__rxor__": operator.xor, "__radd__": operator.add, "__rmul__": operator.mul,
}  # fmt: skip
_BINARY = frozenset(
    {"add", "sub", "mul", "div", "matmul", "gt", "ge", "lt", "le", "eq", "ne", "add_", "sub_", "mul_", "div_", "pow"}
)


def classify(function: Any) -> Kind:
    """What kind of call this function is."""
    name = _name(function)
    if name == "getset":
        name = _attribute(function)
        if function.__name__ != "__get__":
            return Kind.EFFECT
        if name in _GETTERS:
            return Kind.OPERATION
    if name in _METADATA:
        return Kind.METADATA
    if name in _SIZES:
        return Kind.SIZE
    if name in _VALUES:
        return Kind.VALUE
    return Kind.EFFECT if name in _EFFECTS and function is not torch.autograd.grad else Kind.OPERATION


def is_random(function: Any) -> bool:
    """Whether the function may draw random numbers."""
    return _name(function) in _RANDOM


def pins_sizes(function: Any) -> bool:
    """Whether the number of tensors that the function returns depends on a size."""
    return _name(function) in _COUNTED


def spelling(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Any, tuple[Any, ...]]:
    """Opcode, target and arguments under which the call stands in a graph."""
    name = _name(function)
    if name == "getset":
        return "call_function", getattr, (args[0], _attribute(function))
    method = getattr(torch.Tensor, name, None) is function
    if method and not kwargs:
        if name in _REFLECTED and len(args) == 2:
            return "call_function", _REFLECTED[name], (args[1], args[0])
        if name in _OPERATORS and (name not in _BINARY or len(args) == 2):
            return "call_function", _OPERATORS[name], args
    if method:
        return "call_method", name, args
    return "call_function", _public(function), args


def _name(function: Any) -> str:
    if type(function).__name__ == "method-wrapper":  # the getter or setter of an attribute
        return "getset"
    if isinstance(function, compat.OpOverload):
        return str(function.overloadpacket.__name__)
    name = str(getattr(function, "__name__", ""))
    if getattr(torch.Tensor, name, function) is not function:  # Tensor.__pow__ calls itself pow
        return _other_names().get(id(function), name)
    return name


@functools.cache
def _other_names() -> dict[int, str]:
    """Methods of Tensor that are not what their own name says."""
    members = {name: getattr(torch.Tensor, name) for name in dir(torch.Tensor) if name.startswith("__")}
    return {id(one): name for name, one in members.items() if getattr(one, "__name__", name) != name}


def _attribute(function: Any) -> str:
    return str(function.__self__.__name__)


@functools.cache
def _public(function: Callable[..., Any]) -> Callable[..., Any]:
    """The public object for a function that the interpreter hands over under another identity."""
    name = getattr(function, "__name__", "")
    for namespace in (F, torch, torch.special, torch.linalg, torch.fft):
        found = getattr(namespace, name, None)
        if found is not None and (found is function or found == function):
            return found  # type: ignore[no-any-return]
    return function
