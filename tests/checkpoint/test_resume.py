"""A run that goes on from a checkpoint, on as many ranks and on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoint.runs import EPOCHS, SAMPLES, STEPS, Outcome, train
from tests.runtime.pairs import Ranks

_CUTS = (2, 6, 9)  # within the first epoch, at its end, within the second


def whole_and_saved(path: str) -> tuple[Outcome, list[Outcome]]:
    """The run without an interruption, and the runs up to each cut, which is saved."""
    return train(Path(path, "none"), STEPS), [train(Path(path, str(cut)), cut, save_at=cut) for cut in _CUTS]


def rest(path: str) -> list[Outcome]:
    """From each cut to the end."""
    return [train(Path(path, str(cut)), STEPS) for cut in _CUTS]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Outcome, list[Outcome]]]]:
    """Checkpoints of two ranks, and how these fared."""
    from tests.ranks import run_ranks

    path = tmp_path_factory.mktemp("runs")
    return path, run_ranks(whole_and_saved, 2, str(path))


def test_resumed_run_is_the_uninterrupted_one(
    saved: tuple[Path, list[tuple[Outcome, list[Outcome]]]], ranks: Ranks
) -> None:
    """Parameters, optimizer, order of the samples and three kinds of random numbers, bit for bit, on two new ranks."""
    path, before = saved
    for (whole, begun), resumed in zip(before, ranks(rest, 2, str(path)), strict=True):
        for first, second in zip(begun, resumed, strict=True):
            assert first.read + second.read == whole.read
            assert second.bits == whole.bits
            assert second.plan == whole.plan


@pytest.mark.parametrize("world_size", [1, 4])
def test_other_number_of_ranks(
    saved: tuple[Path, list[tuple[Outcome, list[Outcome]]]], ranks: Ranks, world_size: int
) -> None:
    """In every epoch each sample is read as before: once, or twice where the last batch was filled up."""
    path, before = saved
    after = ranks(rest, world_size, str(path))
    for place, cut in enumerate(_CUTS):
        parts = [begun[place].read for _, begun in before] + [resumed[place].read for resumed in after]
        assert all(len(resumed[place].read) == STEPS - cut for resumed in after)
        read = sorted(index for part in parts for indices, *_ in part for index in indices)
        assert set(read) == set(range(SAMPLES))
        assert [read.count(index) for index in range(SAMPLES)].count(EPOCHS) >= SAMPLES - 2 * EPOCHS
        assert min(read.count(index) for index in range(SAMPLES)) == EPOCHS
    draws = [resumed[0].read[0][1:] for resumed in after]
    assert len(set(draws)) == world_size  # each rank its own numbers
