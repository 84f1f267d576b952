"""Random modules do the same with autopar as without: outputs, gradients, buffers, counters, random numbers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.fuzz.check import check
from tests.fuzz.models import draw

DRAWS = int(os.environ.get("AUTOPAR_FUZZ_DRAWS", "300"))
FIRST = int(os.environ.get("AUTOPAR_FUZZ_FIRST", "0"))
GROUP = 50


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(FIRST, FIRST + DRAWS, GROUP))
def test_drawn_models_are_equal(first: int) -> None:
    """A model that differs is written to a file that can be run."""
    for seed in range(first, min(first + GROUP, FIRST + DRAWS)):
        source = draw(seed)
        try:
            difference = check(source)
        except Exception as error:
            difference = f"{type(error).__name__}: {error}"
        if difference is not None:
            file = Path(tempfile.gettempdir()) / f"autopar_drawn_{seed}.py"
            file.write_text(source)
            pytest.fail(f"{difference}\nRun it: python {file}\n\n{source}")


def test_a_planted_difference_is_found() -> None:
    """A model whose result depends on how often it was called anywhere."""
    counting = draw(1).replace(
        "import dataclasses", "import dataclasses\nimport itertools\n\nNUMBERS = itertools.count()"
    )
    assert check(counting) is None
    head, model = counting.split("class Model")
    assert check(f"{head}class Model{model.replace('        return ', '        return next(NUMBERS), ')}") is not None
