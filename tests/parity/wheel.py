"""The tests of DDP that torch ships in its wheel, imported so that a substitute stands in DDP's place.

Importing this module changes torch for the whole process. It is for the driver, which does nothing else.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import tempfile
import types
import unittest
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from autopar.scripts.cuda_redirect import cuda_means_cpu
from autopar.scripts.patching import Patches, replace_wrappers
from tests.parity.expected import OVER_GLOO

__all__ = ["WheelTests", "skip_codes"]

_GROUP_TIMEOUT = timedelta(seconds=20)  # that a rank waits in a collective; some tests wait in vain on purpose
_NEEDS_GPU = "autopar_needs_gpu"
_WRAPPERS = {"DistributedDataParallel", "DDP"}


class WheelTests:
    """The test methods that build a DDP model.

    Args:
        substitute: the class to put in DDP's place; None leaves torch's own.
        world_size: how many ranks the tests are to believe in.

    Attributes:
        names: the tests, in the order of the file.
        needs_gpu: those that torch itself runs on GPUs only.
    """

    def __init__(self, substitute: type[nn.Module] | None, world_size: int) -> None:
        self.world_size = world_size
        self.directory = tempfile.TemporaryDirectory(prefix="parity")
        os.environ.update(
            BACKEND="gloo",
            WORLD_SIZE=str(world_size),
            TEMP_DIR=self.directory.name,
            GLOO_SOCKET_IFNAME="lo",
            PYTORCH_PRINT_REPRO_ON_FAILURE="0",
        )
        torch.set_num_threads(1)
        _import_without_expecttest()
        _mark_gpu_tests()
        _forget_devices(substitute or nn.parallel.DistributedDataParallel)
        if substitute is not None:
            with Patches() as patches:
                replace_wrappers(patches, data_parallel=nn.DataParallel, distributed=substitute)
                patches.pop_all()  # for good: the tests look the class up when they run
        import torch.testing._internal.distributed.distributed_test as module

        self.module, self.base = module, module.DistributedTest._DistTestBase
        self.case = type("WheelDDP", (module.TestDistBackend, self.base), {})
        methods = {name: value for name, value in vars(self.base).items() if inspect.isfunction(value)}
        users = {name for name in methods if _uses(name, methods, set())}
        self.names = [name for name in methods if name.startswith("test") and name in users]
        self.needs_gpu = {name for name in self.names if _is_marked(methods[name])}

    def prepare(self, name: str) -> Callable[[int], None]:
        """What each of a test's ranks has to call, with its number; called once, before they start."""
        folder = os.path.join(self.directory.name, name)
        os.makedirs(os.path.join(folder, "barrier"))
        return lambda rank: self._run(name, rank, folder)

    def _run(self, name: str, rank: int, folder: str) -> None:
        import torch.distributed as dist
        from torch.testing._internal.common_utils import set_rng_seed

        os.environ.update(TEMP_DIR=folder, RANK=str(rank), LOCAL_RANK=str(rank), TORCH_SHOW_CPP_STACKTRACES="0")
        if name in OVER_GLOO:
            os.environ["AUTOPAR_BACKEND"] = "torch"
        case: Any = self.case(name)
        case.rank, case.file_name = rank, os.path.join(folder, "store")
        store = f"file://{case.file_name}"
        dist.init_process_group("gloo", store, _GROUP_TIMEOUT, self.world_size, rank)
        self.module.Barrier.sync()
        set_rng_seed()
        with ExitStack() as stack:
            if name in self.needs_gpu:
                stack.enter_context(cuda_means_cpu())
                patches = stack.enter_context(Patches())
                patches.set(torch.cuda, "device_count", lambda: self.world_size)
                patches.set(torch.cuda, "manual_seed", torch.manual_seed)
            getattr(case, name)()
        self.module.Barrier.sync()


def skip_codes() -> dict[int, str]:
    """Exit codes with which a rank says that its test is to be skipped, and why."""
    from torch.testing._internal.common_distributed import TEST_SKIPS

    return {skip.exit_code: skip.message for skip in TEST_SKIPS.values()}


def _import_without_expecttest() -> None:
    """Gives torch's test utilities the base class that they import, which no DDP test uses."""
    if importlib.util.find_spec("expecttest") is None:
        stand_in = types.ModuleType("expecttest")
        vars(stand_in).update(TestCase=unittest.TestCase)
        sys.modules["expecttest"] = stand_in


def _mark_gpu_tests() -> None:
    """Replaces the decorators that skip where there are too few GPUs by one that only notes it."""
    import torch.testing._internal.common_distributed as common
    from torch.testing._internal import common_utils

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, _NEEDS_GPU, True)
        return function

    def note_unless(count: int, *, allow_cpu: bool = False) -> Callable[..., Any]:
        return (lambda function: function) if allow_cpu else note

    vars(common).update(skip_if_lt_x_gpu=note_unless, skip_if_no_gpu=note)
    vars(common_utils)["IS_LINUX"] = (
        False  # some are skipped on Linux because GPUs in torch's CI fail them now and then
    )


def _is_marked(function: Any) -> bool:
    while function is not None:
        if getattr(function, _NEEDS_GPU, False):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _uses(name: str, methods: dict[str, Any], seen: set[str]) -> bool:
    """Whether a method, or one that it names, names a DDP class."""
    if name in seen:
        return False
    seen.add(name)
    names = set(_names(inspect.unwrap(methods[name]).__code__))
    return bool(names & _WRAPPERS) or any(_uses(other, methods, seen) for other in names & methods.keys())


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _forget_devices(cls: type[Any]) -> None:
    """Lets the class be built without the GPU indices that the tests give it."""
    original = cls.__init__

    def construct(
        self: Any, module: nn.Module, device_ids: Any = None, output_device: Any = None, **kwargs: Any
    ) -> None:
        original(self, module, **kwargs)

    cls.__init__ = construct
