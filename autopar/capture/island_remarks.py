"""What is said of the graphs inside of an opaque call, and of what is none there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from torch import nn

from autopar.capture.falls import Fall
from autopar.capture.island_search import Search
from autopar.islands import eager_parameters
from autopar.program import Program, Remark, info

__all__ = ["given_up", "opaque_paths", "told"]


def opaque_paths(program: Program) -> list[str]:
    """Paths of the modules that a captured program calls whole although others are inside; the root's is empty."""
    calls = (info(node).module_path for node in program.find("call_module") if info(node).opaque)
    return [path for path in dict.fromkeys(calls) if _is_looked_into(program.model.get_submodule(path), path)]


def told(program: Program, paths: Sequence[str], search: Search) -> list[Remark]:
    """The program's remarks, with those on its islands and on what is none.

    Args:
        program: with its islands.
        paths: of its opaque calls.
        search: what found the islands.
    """
    remarks = [_with_share(program, one) if _is_call(one, paths) else one for one in program.remarks]
    for path, fall in search.falls.items():
        remarks.append(_stays_eager(program, path, fall))
    for path, island in search.islands.items():
        remarks += beneath(path, island.program.remarks)
    for left, reason in ((search.untried, "looking for islands took too long"), (search.uncalled(), "no run calls it")):
        if left:
            more = f", and so are {len(left) - 1} more modules" if len(left) > 1 else ""
            message = f"{left[0]} is not tried as an island, because {reason}{more}."
            remarks.append(Remark(code="AP108", kind="analysis", stage="capture", message=message, module_path=left[0]))
    return remarks


def given_up(difference: str) -> Remark:
    """That a program runs without its islands."""
    message = f"The graphs inside of what stays opaque are not used, because {difference}."
    return Remark(code="AP109", kind="analysis", stage="capture", message=message)


def beneath(path: str, remarks: Sequence[Remark]) -> Iterator[Remark]:
    """What is missed inside an island, with paths as seen from the program that holds it."""
    for one in remarks:
        if one.kind == "missed" and one.module_path:
            yield dataclasses.replace(one, message=f"{path}.{one.message}", module_path=f"{path}.{one.module_path}")


def _is_looked_into(module: nn.Module, path: str) -> bool:
    return not path or any(True for _ in module.children()) or bool(module._forward_pre_hooks or module._forward_hooks)


def _is_call(remark: Remark, paths: Sequence[str]) -> bool:
    return remark.kind == "missed" and remark.stage == "capture" and remark.module_path in paths


def _with_share(program: Program, remark: Remark) -> Remark:
    prefix = f"{remark.module_path}." if remark.module_path else ""
    inside = [path for path in program.islands if path.startswith(prefix) or path == remark.module_path]
    if not inside or not remark.nbytes:
        return remark
    module = program.model.get_submodule(remark.module_path)
    left = _bytes(eager_parameters(program) & set(module.parameters()))
    count = f"{len(inside)} islands inside hold" if len(inside) > 1 else "1 island inside holds"
    share = 1 - left / remark.nbytes
    message = f"{remark.message.removesuffix('.')}; {count} {share:.1%} of its bytes."
    return dataclasses.replace(remark, message=message)


def _stays_eager(program: Program, path: str, fall: Fall) -> Remark:
    module = program.model.get_submodule(path)
    own = {parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad}
    return Remark(
        code="AP107",
        kind="analysis",
        stage="capture",
        message=f"{path} ({type(module).__name__}) is no island: {fall.reason}.",
        module_path=path,
        source=fall.source,
        nbytes=_bytes(own),
    )


def _bytes(parameters: set[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
