"""Progress of the training examples."""

import pytest
from progress import Steps


def test_plain_lines_when_piped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal there are a few plain lines on standard error, the last step among them."""
    monkeypatch.delenv("RANK", raising=False)
    steps = Steps("training", 7, lines=2)
    for step in steps:
        steps.note = f"loss {step}"
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training: step 3/7 loss 2",
        "training: step 6/7 loss 5",
        "training: step 7/7 loss 6",
    ]


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rank 0 of a launch speaks; the others still count."""
    monkeypatch.setenv("RANK", "1")
    assert list(Steps("training", 3)) == [0, 1, 2]
    assert list(Steps("training", 3, done=2)) == [2]
    assert capsys.readouterr() == ("", "")
