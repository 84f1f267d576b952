"""Graph documents made by hand: a chain of linear modules, whole or with something special in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autopar.partitioner.rates import Rates

WIDTH = 8
WEIGHT_BYTES = 4 * WIDTH * WIDTH


def node(name: str, op: str = "call_function", target: str = "F.linear", **changes: Any) -> dict[str, Any]:
    """A node of the document with usual values."""
    return {
        "name": name,
        "op": op,
        "target": target,
        "class": None,
        "module": "",
        "source": "model.py:7",
        "shape": [2, WIDTH],
        "dtype": "float32",
        "device": "cpu",
        "bytes": 64,
        "param_bytes": 0,
        "flops": 0,
        "bucket": None,
        "replica": None,
        "opaque": False,
        "region": None,
        "inside": None,
        "created_by": "capture",
        "code": f"{name} = {target}()",
        **changes,
    }


def chain(modules: Sequence[str], *, opaque: Sequence[str] = (), flops: int = 256) -> dict[str, Any]:
    """Modules one after the other, each with one weight and one bucket; the last module's is bucket 0."""
    nodes = [node("x", "placeholder", "x")]
    edges: list[list[str]] = []
    previous = "x"
    for index, path in enumerate(modules):
        bucket = len(modules) - 1 - index
        if path in opaque:
            call = node(f"op{index}", "call_module", f"self.{path}", module=path, opaque=True, param_bytes=WEIGHT_BYTES)
            nodes.append({**call, "class": "LSTM", "flops": flops})
        else:
            weight = {"bytes": WEIGHT_BYTES, "module": path, "bucket": bucket}
            nodes += [
                node(f"w{index}", "get_attr", f"self.{path}.weight", **weight, param_bytes=WEIGHT_BYTES),
                node(f"s{index}", target="ops.sync_gradients", bucket=bucket, param_bytes=WEIGHT_BYTES),
                node(f"g{index}", target="operator.getitem", **weight),
                node(f"op{index}", module=path, flops=flops),
            ]
            edges += [[f"w{index}", f"s{index}"], [f"s{index}", f"g{index}"], [f"g{index}", f"op{index}"]]
        edges.append([previous, f"op{index}"])
        previous = f"op{index}"
    nodes.append(node("output", "output", "output", shape=None))
    edges.append([previous, "output"])
    before = [node("x", "placeholder", "x"), node("output", "output", "output")]
    return {
        "format": "autopar-graph",
        "version": 2,
        "autopar": "0.1.0",
        "model": "Chain",
        "strategy": "ddp",
        "front_end": "symbolic",
        "world_size": 4,
        "rates": Rates.assumed("cpu").to_json(),
        "plan": _plan(modules, opaque),
        "before": {"nodes": before, "edges": [["x", "output"]]},
        "after": {"nodes": nodes, "edges": edges},
        "remarks": [
            {
                "kind": "missed",
                "stage": "inline-modules",
                "message": f"{path} (LSTM) stays one opaque call: its forward is not pure.",
                "module": path,
                "source": "model.py:9",
                "mend": "Nothing is wrong with it.",
                "bytes": WEIGHT_BYTES,
            }
            for path in opaque
        ],
        "passes": [],
    }


def _plan(modules: Sequence[str], opaque: Sequence[str]) -> dict[str, Any]:
    specs = [
        {
            "name": f"{path}.weight",
            "shape": [WIDTH, WIDTH],
            "dtype": "float32",
            "device": "cpu",
            "layout": "strided",
            "itemsize": 4,
            "route": "hook" if path in opaque else "graph",
        }
        for path in modules
    ]
    buckets = [
        {
            "index": index,
            "parameters": [f"{path}.weight"],
            "nbytes": WEIGHT_BYTES,
            "dtype": "float32",
            "device": "cpu",
            "layout": "strided",
            "route": "graph",
        }
        for index, path in enumerate(reversed(modules))
    ]
    return {
        "parameters": specs,
        "buckets": buckets,
        "local": [],
        "options": {},
        "strategy": "ddp",
        "pipeline": "bucket",
        "model": "Net",
        "version": 1,
    }
