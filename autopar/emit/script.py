"""What a printed file calls when it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopar import compat
from autopar.errors import ModelError
from autopar.replica_modules import WholeModel

if TYPE_CHECKING:
    from autopar.scripts.script import LoadedScript

__all__ = ["ReplicaFunction", "defined", "eager_forward", "load", "sample_loss", "whole_model"]


def load(file: str | Path, name: str) -> nn.Module:
    """The model that a user's file holds; its training code does not run.

    Args:
        file: the user's Python file.
        name: of a module there, of a module class that builds without arguments, or of a function
            that returns a module; dotted for an attribute of something, as ``"config.net"``.

    Raises:
        ModelError: there is no such file, or no model of that name in it.
    """
    first, *attributes = name.split(".")
    found = defined(file, first)
    script = _script(Path(file).resolve())
    for attribute in attributes:
        found = script.call(partial(getattr, found, attribute, None))
    if not isinstance(found, nn.Module) and callable(found):
        found = script.call(found)
    if not isinstance(found, nn.Module):
        raise ModelError(
            f"{name!r} in {file} is no model but a {type(found).__name__}.",
            mend="Run `autopar transform` again, on the file as it is now.",
        )
    return found


def defined(file: str | Path, name: str) -> Any:
    """A function, class or value of the user's file; the file is read once.

    Raises:
        ModelError: there is no such file, or it does not define the name.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise ModelError(
            f"The model's file {path} is not there.",
            why="A printed file finds it by its place relative to its own.",
            mend="Put it back, change MODEL_FILE in the printed file, or run `autopar transform` again.",
        )
    script = _script(path)
    if not script.binds(name):
        raise ModelError(
            f"{path} does not define {name!r} any more.", mend="Run `autopar transform` again on the file as it is now."
        )
    return script.evaluate(name)


def eager_forward(model: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    """The user's own forward, also where a printed one stands in front of it."""
    return compat.original_class(model).forward(model, *args, **kwargs)


class ReplicaFunction(nn.Module):
    """A printed replica function as the module that ``replica_ops.parallel_apply`` runs.

    Args:
        function: called as ``function(self, *tensors)``, where ``self`` holds the modules below.
        model: the user's module.
        children: names of the children of ``model`` that the function uses. Only these are copied
            for the other replicas.
    """

    def __init__(self, function: Callable[..., Any], model: nn.Module, children: Sequence[str] = ()) -> None:
        super().__init__()
        self.function = function
        for name in children:
            self.add_module(name, model.get_submodule(name))

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the function returns."""
        return self.function(self, *tensors)


def whole_model(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """An opaque model behind an interface of flat tensors, and the tensors of this call."""
    leaves, spec = compat.tree_flatten((args, kwargs))
    others = {index: leaf for index, leaf in enumerate(leaves) if not isinstance(leaf, torch.Tensor)}
    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    return WholeModel(model, spec, others), tensors


def sample_loss(output: Any) -> torch.Tensor:
    """Something to train on, whatever the model returns.

    Its ``loss`` where it has one. Otherwise the sum over its outputs: a scalar counts as a loss, of
    anything else the mean square is taken, which no number of steps drives to minus infinity.

    Raises:
        ModelError: no output can be differentiated.

    Example:
        >>> sample_loss({"logits": torch.full((3,), 2.0, requires_grad=True)}).item()
        4.0
    """
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    leaves = [loss] if isinstance(loss, torch.Tensor) else compat.tree_flatten(output)[0]
    found = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not found:
        raise ModelError(
            "The model returned nothing that depends on a trainable parameter.",
            mend="Replace the loss in main() of the printed file by your own.",
        )
    values = [leaf if leaf.dim() == 0 and not leaf.is_complex() else leaf.abs().square().mean() for leaf in found]
    return sum(values[1:], values[0])


@lru_cache(maxsize=8)
def _script(path: Path) -> LoadedScript:
    from autopar.scripts.script import load_script  # only when a printed file runs: emit itself needs no loader

    return load_script(path)
