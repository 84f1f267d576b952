"""The speeds that predictions rest on."""

from __future__ import annotations

import dataclasses

import pytest

from autopar.errors import OptionError
from autopar.partitioner.rates import Rates
from autopar.view.units import rates_text


@pytest.mark.parametrize(
    ("pairs", "fact"),
    [
        ({"speed": "1"}, "no rate 'speed'"),
        ({"link": "fast"}, "'fast', which is no positive number"),
        ({"link": "-1"}, "'-1'"),
        ({"overlap": "1.5"}, "'1.5', which is no share from 0 to 1"),
    ],
)
def test_bad_rates(pairs: dict[str, str], fact: str) -> None:
    """What is no rate, or out of its range, is named."""
    with pytest.raises(OptionError, match=fact):
        Rates.assumed("cpu").given(pairs)


def test_origin_is_said() -> None:
    """A reader of the picture sees whose figures they are."""
    assert "given" in rates_text(Rates.assumed("cuda").given({"flops": "1e12"}))
    assert "assumed" in rates_text(Rates.assumed("cuda"))


def test_json_reads_back() -> None:
    """Also what was written before there was an overlap, which is a network card's then."""
    rates = dataclasses.replace(Rates.assumed("cpu"), overlap=0.25, origin="measured")
    written = rates.to_json()
    assert Rates.from_json(written) == rates
    del written["overlap"]
    assert Rates.from_json(written).overlap == 1.0


@pytest.mark.parametrize("ranks", [2, 4])
def test_messages_on_a_line_are_found_again(ranks: int) -> None:
    """Latency and bandwidth, such that an all-reduce of those ranks takes what it took."""
    times = {nbytes: 0.002 + 3e-9 * nbytes for nbytes in (4096, 65536, 1 << 20)}
    rates = Rates.assumed("cpu").with_messages(times, ranks=ranks)
    assert rates.message == pytest.approx(0.002)
    for nbytes, seconds in times.items():
        assert rates.all_reduce(nbytes, ranks) == pytest.approx(seconds)


def test_noise_gives_no_negative_speed() -> None:
    """A large message that happened to be the faster one."""
    rates = Rates.assumed("cpu").with_messages({4096: 0.004, 65536: 0.003}, ranks=2)
    assert rates.message > 0
    assert 0 < rates.link < float("inf")
