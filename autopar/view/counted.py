"""What the FLOPs of a document leave out: torch's counter knows no recurrent or foreign kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autopar.view.units import flops_text

__all__ = ["forward_flops_text", "uncounted"]

_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_NAMED = 2  # modules that are named before the rest is a number


def uncounted(document: Mapping[str, Any]) -> list[str]:
    """The modules with weight matrices and an own kernel, of which not one FLOP was counted.

    Their true cost is unknown, and with it every share of the whole. Modules without a matrix, such
    as a norm with hooks, are left out: they cost nearly nothing.

    Args:
        document: see ``autopar.view.graph_json``.

    Returns:
        Path and class of each, such as ``"rnn (LSTM)"``, in the order of forward.
    """
    outside = {node["inside"] for node in document["after"]["nodes"] if node.get("inside") and node["flops"]}
    owners = _owners(
        spec["name"] for spec in (document["plan"] or {"parameters": ()})["parameters"] if spec["shape"][1:]
    )
    found: dict[str, str] = {}
    for node in document["after"]["nodes"]:
        module = node["module"]
        if node["op"] == "get_attr" or node["flops"] or module not in owners or node["name"] in outside:
            continue
        if node["opaque"] or str(node["target"]).rpartition(".")[2] in _RECURRENT:
            named = f"{module} ({node['class']})" if node["class"] and module else module or document["model"]
            found.setdefault(module, named)
    return list(found.values())


def forward_flops_text(total: int, missing: Sequence[str]) -> str:
    """The FLOPs of one forward in words, with what they leave out.

    Args:
        total: what was counted.
        missing: see ``uncounted``.
    """
    listed = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    return f"{flops_text(total)} FLOPs a forward" + (f" without {listed}, which is unknown" if missing else "")


def _owners(parameters: Iterable[str]) -> set[str]:
    """All modules that have one of the parameters somewhere inside; the root has any."""
    found: set[str] = set()
    for name in parameters:
        module = name
        while module and (module := module.rpartition(".")[0]) not in found:
            found.add(module)
    return found
