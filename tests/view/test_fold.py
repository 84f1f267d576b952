"""Folding: what repeats is shown once, and everything fits in the end."""

from __future__ import annotations

from autopar.view.fold import Block, Line, fold, lines_of
from autopar.view.rows import ModuleRow, module_rows
from tests.view.documents import chain


def _rows(paths: list[str], flops: list[int] | None = None) -> list[ModuleRow]:
    return [
        ModuleRow(
            path=path,
            kinds=("linear",),
            count=1,
            flops=(flops or [1] * len(paths))[index],
            backward_flops=0,
            param_bytes=4,
            output_bytes=4,
            opaque=False,
            recomputed=False,
            buckets=(),
        )
        for index, path in enumerate(paths)
    ]


def test_short_models_are_not_folded() -> None:
    """What fits is shown line by line."""
    rows = module_rows(chain([f"blocks.{index}" for index in range(10)]))
    assert fold(rows, most=10) == [Line(((index,),)) for index in range(10)]


def test_repeated_blocks_are_shown_once() -> None:
    """Stem, 24 alike blocks of two lines, head."""
    paths = ["stem", *(f"blocks.{i}.{part}" for i in range(24) for part in ("attn", "mlp")), "head"]
    stem, block, head = fold(_rows(paths), most=40)
    assert isinstance(block, Block)
    assert block.count == 24
    assert [line.members for line in lines_of([block])] == [tuple(range(1, 49, 2)), tuple(range(2, 49, 2))]
    assert (stem, head) == (Line(((0,),)), Line(((49,),)))


def test_repeats_inside_of_repeats() -> None:
    """Six experts in each of 24 layers: a block in a block."""
    paths = [f"layers.{i}.{part}" for i in range(24) for part in ("gate", *(f"experts.{e}" for e in range(6)))]
    (outer,) = fold(_rows(paths), most=40)
    assert isinstance(outer, Block)
    gate, inner = outer.parts
    assert isinstance(gate, Line)
    assert isinstance(inner, Block)
    assert (outer.count, inner.count, len(lines_of([outer]))) == (24, 6, 2)


def test_blocks_that_differ_are_not_folded_together() -> None:
    """A block with other figures stands alone."""
    paths = [f"blocks.{index}" for index in range(50)]
    folded = fold(_rows(paths, [1] * 20 + [2] + [1] * 29), most=40)
    assert [part.count if isinstance(part, Block) else 1 for part in folded] == [20, 1, 29]


def test_what_does_not_repeat_is_put_together_by_module() -> None:
    """Modules of one parent become one line when there are too many."""
    paths = [f"stage{i}.part{j}" for i in range(10) for j in range(10)]
    folded = fold(_rows(paths, list(range(100))), most=40)
    assert lines_of(folded)[0].members == tuple(range(10))
    assert len(lines_of(folded)) == 10


def test_flat_models_without_repeats_still_fit() -> None:
    """A thousand different modules in one list are cut into even pieces."""
    folded = fold(_rows([f"m{i}" for i in range(1000)], list(range(1000))), most=40)
    assert len(folded) == 40
    assert sorted(index for line in lines_of(folded) for index in line.members) == list(range(1000))
