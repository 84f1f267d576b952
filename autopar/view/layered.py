"""Places the boxes of an acyclic graph in layers: a small Sugiyama, enough for some sixty boxes.

Layers are longest paths from the inputs; within a layer boxes are sorted by the mean place of their
neighbours, down and up a few times (the barycentre heuristic); edges that skip layers are led
through places of their own. K. Sugiyama et al., Methods for visual understanding of hierarchical
system structures, IEEE Transactions on Systems, Man, and Cybernetics 11 (1981).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Layout", "layered"]

_LayerT = TypeVar("_LayerT", bound=Sequence[int])
_SWEEPS = 6
_GAP, _LEVEL = 22, 34  # pixels between boxes of a layer, and between layers
_BEND = 8  # width that an edge takes where it passes a layer


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands.

    Attributes:
        centres: one point for each box.
        paths: the points of each edge, from the lower side of its source to the upper side of its target.
        width, height: of the whole.
    """

    centres: tuple[tuple[float, float], ...]
    paths: Mapping[tuple[int, int], tuple[tuple[float, float], ...]]
    width: float
    height: float


def layered(widths: Sequence[float], height: float, edges: Sequence[tuple[int, int]]) -> Layout:
    """Lays out boxes of the given widths and one height.

    Args:
        widths: of each box.
        height: of every box.
        edges: pairs of positions, the source always before the target.
    """
    rank = [0] * len(widths)
    for source, target in sorted(edges):
        assert source < target, "a source comes before its target"
        rank[target] = max(rank[target], rank[source] + 1)
    size = list(widths)
    chains: dict[tuple[int, int], list[int]] = {}
    for source, target in dict.fromkeys(edges):
        chain = [source]
        for level in range(rank[source] + 1, rank[target]):
            chain.append(len(size))
            size.append(_BEND)
            rank.append(level)
        chains[source, target] = [*chain, target]
    layers: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
    for item, level in enumerate(rank):
        layers[level].append(item)
    above: list[list[int]] = [[] for _ in size]
    below: list[list[int]] = [[] for _ in size]
    for chain in chains.values():
        for one, other in itertools.pairwise(chain):
            below[one].append(other)
            above[other].append(one)
    _order(layers, above, below)
    x = _across(layers, size, above, below)
    y = [level * (height + _LEVEL) + height / 2 for level in rank]
    paths = {
        ends: tuple(
            [(x[chain[0]], y[chain[0]] + height / 2)]
            + [(x[item], y[item]) for item in chain[1:-1]]
            + [(x[chain[-1]], y[chain[-1]] - height / 2)]
        )
        for ends, chain in chains.items()
    }
    centres = tuple((x[item], y[item]) for item in range(len(widths)))
    right = max((x[item] + size[item] / 2 for item in range(len(size))), default=0.0)
    return Layout(centres, paths, right, len(layers) * (height + _LEVEL) - _LEVEL)


def _order(layers: list[list[int]], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> None:
    place = {item: float(index) for layer in layers for index, item in enumerate(layer)}
    for layer, wanted in _sweeps(layers, place, above, below):
        layer.sort(key=wanted.__getitem__)
        place.update((item, float(index)) for index, item in enumerate(layer))


def _sweeps(
    layers: Sequence[_LayerT],
    place: Mapping[int, float] | Sequence[float],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
) -> Iterator[tuple[_LayerT, dict[int, float]]]:
    """Layers from the top and from the bottom in turn, with the mean place of each item's neighbours just then."""
    for sweep in range(_SWEEPS):
        neighbours = below if sweep % 2 else above
        for layer in reversed(layers) if sweep % 2 else layers:
            wanted = {}
            for item in layer:
                near = neighbours[item]
                wanted[item] = sum(place[one] for one in near) / len(near) if near else place[item]
            yield layer, wanted


def _across(
    layers: Sequence[Sequence[int]],
    size: Sequence[float],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
) -> list[float]:
    """Centres: each box as near to the mean of its neighbours as those beside it allow."""
    x = [0.0] * len(size)
    for layer in layers:
        _apart(layer, dict.fromkeys(layer, 0.0), size, x)
    for layer, wanted in _sweeps(layers, x, above, below):
        _apart(layer, wanted, size, x)
    left = min((x[item] - size[item] / 2 for item in range(len(size))), default=0.0)
    return [one - left for one in x]


def _apart(layer: Sequence[int], wanted: Mapping[int, float], size: Sequence[float], x: list[float]) -> None:
    """Puts a layer's boxes where they want to be, then pushes them apart evenly to both sides."""
    edge, shifted = float("-inf"), 0.0
    for item in layer:
        x[item] = max(wanted[item], edge + _GAP + size[item] / 2)
        shifted += x[item] - wanted[item]
        edge = x[item] + size[item] / 2
    for item in layer:
        x[item] -= shifted / len(layer)
