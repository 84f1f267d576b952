"""Folds long lists of module rows to what fits on a screen: repeated blocks are shown once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autopar.view.rows import ModuleRow

__all__ = ["Block", "Line", "fold", "lines_of", "range_label"]

_LONGEST_PERIOD = 128  # rows of one repeated block
_LEAST_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the picture.

    Attributes:
        turns: one entry for each repeat: indices of the rows that stand in this line together.
    """

    turns: tuple[tuple[int, ...], ...]

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of all rows of the line."""
        return tuple(index for turn in self.turns for index in turn)


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that are repeated ``count`` times."""

    parts: tuple[Line | Block, ...]
    count: int


def fold(rows: Sequence[ModuleRow], *, most: int) -> list[Line | Block]:
    """Lines and blocks for the rows, at most ``most`` lines.

    Nothing is folded while everything fits. Then repeated runs of alike rows become blocks, and if
    that is not enough, neighbours are put together: first those of one module, then any.

    Args:
        rows: the modules in forward order.
        most: number of lines that fit.
    """
    single = [Line(((index,),)) for index in range(len(rows))]
    if len(single) <= most:
        return list(single)
    folded = _fold(single, [_signature(row) for row in rows])
    for depth in range(max(row.path.count(".") for row in rows), 0, -1):
        if len(lines_of(folded)) <= most:
            return folded
        lines = _together(single, [row.path.split(".")[:depth] for row in rows])
        folded = _fold(lines, [tuple(_signature(rows[index]) for index in line.members) for line in lines])
    if len(lines_of(folded)) <= most:
        return folded
    size = -(-len(rows) // most)
    return list(_together(single, [index // size for index in range(len(rows))]))


def lines_of(parts: Iterable[Line | Block]) -> list[Line]:
    """All lines of a folded list, in order."""
    found: list[Line] = []
    for part in parts:
        found += [part] if isinstance(part, Line) else lines_of(part.parts)
    return found


def range_label(labels: Sequence[str]) -> str:
    """One label for many that differ in their numbers.

    >>> range_label(["blocks.0.fc", "blocks.1.fc", "blocks.2.fc"])
    'blocks.0-2.fc'
    >>> range_label(["net.0", "net.2", "net.4"])
    'net.0,2..4'
    >>> range_label(["stem", "head"])
    'stem .. head'
    """
    split = [re.split(r"(\d+)", label) for label in labels]
    first, last = split[0], split[-1]
    if any(len(one) != len(first) or one[::2] != first[::2] for one in split):
        return f"{labels[0]} .. {labels[-1]}"
    text = ""
    for index, part in enumerate(first):
        if index % 2 == 0:
            text += part
            continue
        numbers = sorted({int(one[index]) for one in split})
        if len(numbers) == 1:
            text += part
        elif len(numbers) == 2 or numbers[1] - numbers[0] == 1:
            text += f"{part}-{last[index]}"
        else:
            text += f"{part},{numbers[1]}..{last[index]}"
    return text


def _signature(row: ModuleRow) -> tuple[object, ...]:
    path = re.sub(r"\d+", "#", row.path)
    return (path, row.kinds, row.count, row.flops, row.param_bytes, row.output_bytes, row.opaque, row.recomputed)


def _fold(lines: Sequence[Line], signatures: Sequence[object]) -> list[Line | Block]:
    """Replaces the longest repeats, outermost first; a block is folded inside as well."""
    numbers: dict[object, int] = {}
    kinds = [numbers.setdefault(signature, len(numbers)) for signature in signatures]
    folded: list[Line | Block] = []
    start = 0
    while start < len(lines):
        period, count = _repeats(kinds, start)
        if count < _LEAST_REPEATS:
            folded.append(lines[start])
            start += 1
            continue
        merged = [
            Line(tuple(rows for turn in range(count) for rows in lines[start + turn * period + place].turns))
            for place in range(period)
        ]
        inner = _fold(merged, kinds[start : start + period])
        folded.append(Block(tuple(inner), count))
        start += period * count
    return folded


def _repeats(kinds: Sequence[int], start: int) -> tuple[int, int]:
    """Period and count of the repetition that begins at ``start`` and saves the most lines."""
    best, saved = (1, 1), 0
    for period in range(1, min(_LONGEST_PERIOD, (len(kinds) - start) // _LEAST_REPEATS) + 1):
        if kinds[start + period] != kinds[start]:
            continue
        block, count = kinds[start : start + period], 1
        while kinds[start + count * period : start + (count + 1) * period] == block:
            count += 1
        if count >= _LEAST_REPEATS and period * (count - 1) > saved:
            best, saved = (period, count), period * (count - 1)
    return best


def _together(lines: Sequence[Line], keys: Sequence[object]) -> list[Line]:
    merged: list[Line] = []
    previous: object = object()
    for line, key in zip(lines, keys, strict=True):
        if merged and key == previous:
            merged[-1] = Line((merged[-1].members + line.members,))
        else:
            merged.append(line)
        previous = key
    return merged
