"""Each model of the zoo in one process: through autopar and plain, the same step."""

from __future__ import annotations

import pytest

from benchmarks.libraries import missing
from tests.zoo.difference import LIMIT
from tests.zoo.known_failures import KNOWN_FAILURES
from tests.zoo.one_process import check
from tests.zoo.registry import ZOO
from tests.zoo.report import recorded_shares

_SHARES = recorded_shares()
_STILL = 0.5  # share of the parameters that may have no gradient: more would compare zeros with zeros


def _case(name: str) -> object:
    marks: list[pytest.MarkDecorator] = [pytest.mark.timeout(60)]
    if missing(ZOO[name].library):
        marks.append(pytest.mark.skip(reason=f"{ZOO[name].library} is not installed"))
    if name in KNOWN_FAILURES:
        marks.append(pytest.mark.xfail(reason=KNOWN_FAILURES[name], strict=True))
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [_case(name) for name in ZOO])
def test_trains_as_without(name: str) -> None:
    """Loss, gradients, buffers, random numbers and order of gradients are the plain model's; as much is captured."""
    outcome = check(ZOO[name])
    assert outcome.difference.ulps <= LIMIT, str(outcome.difference)
    assert outcome.still < _STILL
    assert outcome.exchanged == []
    share = outcome.measures.operation_level
    assert share >= _SHARES.get(name, 0.0) - 0.001, f"docs/coverage.md has {_SHARES[name]:.1%}, this is {share:.1%}"


def test_page_has_every_model() -> None:
    """docs/coverage.md has a share for each model that is not known to fail."""
    assert _SHARES.keys() == ZOO.keys() - KNOWN_FAILURES.keys()
