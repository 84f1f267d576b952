"""Fixtures that every test may use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `from tests...` under a bare `pytest`

from tests.ranks import run_ranks

torch.set_num_threads(1)  # small tensors; several threads only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts what has to stay in one worker first: the others go on with the rest beside it."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


@pytest.fixture
def ranks() -> Callable[..., list[Any]]:
    """Runs a module-level function on real ranks; see ``tests.ranks.run_ranks``."""
    return run_ranks
