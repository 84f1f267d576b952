"""Folds long lists of module rows to what fits on a screen: repeated blocks are shown once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from autopar.view.rows import ModuleRow

__all__ = ["Block", "Line", "fold", "lines_of", "range_label"]

_LONGEST_PERIOD = 128  # rows of one repeated block
_LEAST_REPEATS = 3
_NUMBER = re.compile(r"(\d+)")


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
    if len(rows) <= most:
        return [Line(((index,),)) for index in range(len(rows))]
    kinds = _numbered([_signature(row) for row in rows])
    paths = [row.path.split(".") for row in rows]
    for depth in range(max(map(len, paths)), 0, -1):
        lines = _together([path[:depth] for path in paths])
        folded = _fold(lines, _numbered([tuple(kinds[index] for index in line.members) for line in lines]))
        if len(lines_of(folded)) <= most:
            return folded
    size = -(-len(rows) // most)
    return list(_together([index // size for index in range(len(rows))]))


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
    split = [_NUMBER.split(label) for label in labels]
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
    path = _NUMBER.sub("#", row.path)
    return (path, row.kinds, row.count, row.flops, row.param_bytes, row.output_bytes, row.opaque, row.recomputed)


def _numbered(values: Sequence[Hashable]) -> list[int]:
    """Numbers that are the same where the values are: quick to compare.

    >>> _numbered(["a", "b", "a"])
    [0, 1, 0]
    """
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def _fold(lines: Sequence[Line], kinds: Sequence[int]) -> list[Line | Block]:
    """Replaces the longest repeats, outermost first; a block is folded inside as well."""
    following = _following(kinds)
    folded: list[Line | Block] = []
    start = 0
    while start < len(lines):
        period, count = _repeats(kinds, following, start)
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


def _following(kinds: Sequence[int]) -> list[int]:
    """For each place the next one of the same kind, or the end."""
    following, seen = [len(kinds)] * len(kinds), dict[int, int]()
    for place in reversed(range(len(kinds))):
        following[place] = seen.get(kinds[place], len(kinds))
        seen[kinds[place]] = place
    return following


def _repeats(kinds: Sequence[int], following: Sequence[int], start: int) -> tuple[int, int]:
    """Period and count of the repetition that begins at ``start`` and saves the most lines."""
    best, saved = (1, 1), 0
    longest = min(_LONGEST_PERIOD, (len(kinds) - start) // _LEAST_REPEATS)
    again = following[start]
    while again - start <= longest:
        period, count = again - start, 1
        block = kinds[start:again]
        while kinds[start + count * period : start + (count + 1) * period] == block:
            count += 1
        if count >= _LEAST_REPEATS and period * (count - 1) > saved:
            best, saved = (period, count), period * (count - 1)
        again = following[again]
    return best


def _together(keys: Sequence[object]) -> list[Line]:
    """A line for each run of neighbours with the same key."""
    runs = itertools.groupby(range(len(keys)), key=keys.__getitem__)
    return [Line((tuple(run),)) for _, run in runs]
