"""What the FLOPs of a document leave out: torch's counter knows no recurrent or foreign kernels."""

from __future__ import annotations

from collections.abc import Mapping
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
    matrices = [
        spec["name"] for spec in (document["plan"] or {"parameters": []})["parameters"] if len(spec["shape"]) > 1
    ]
    found: dict[str, str] = {}
    outside = {node.get("inside") for node in document["after"]["nodes"] if node["flops"]}
    for node in document["after"]["nodes"]:
        if (
            node["flops"]
            or node["name"] in outside
            or not (node["opaque"] or str(node["target"]).rpartition(".")[2] in _RECURRENT)
        ):
            continue
        module = node["module"]
        if any(not module or name.startswith(f"{module}.") for name in matrices):
            named = f"{module} ({node['class']})" if node["class"] and module else module or document["model"]
            found.setdefault(module, named)
    return list(found.values())


def forward_flops_text(document: Mapping[str, Any], total: int) -> str:
    """The FLOPs of one forward in words, with what they leave out."""
    missing = uncounted(document)
    listed = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    return f"{flops_text(total)} FLOPs a forward" + (f" without {listed}, which is unknown" if missing else "")
