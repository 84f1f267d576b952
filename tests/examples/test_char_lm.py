"""The character language model: its text, its windows, its first loss."""

import math
import subprocess
import sys

import char_lm
import pytest
import torch
from torch.utils.data import DataLoader


def test_text_ships_with_python() -> None:
    """The language reference is there, long enough to train on, and about Python."""
    text = char_lm.language_reference()
    assert len(text) > 300_000
    assert "docstring" in text


def test_encode_can_be_undone() -> None:
    """Numbers stand for characters of the sorted alphabet."""
    numbers, alphabet = char_lm.encode("banana")
    assert alphabet == "abn"
    assert "".join(alphabet[number] for number in numbers) == "banana"


def test_windows_pair_each_character_with_the_next() -> None:
    """Windows follow each other without overlap, and targets are the inputs one later."""
    windows = char_lm.Windows(torch.arange(2 * char_lm.CONTEXT + 1))
    assert len(windows) == 2
    inputs, targets = windows[1]
    assert inputs[0] == char_lm.CONTEXT
    assert torch.equal(targets, inputs + 1)


def test_batches_go_on_for_ever() -> None:
    """After the last batch of the loader comes its first again."""
    batches = char_lm.batches_for_ever(DataLoader([1, 2], batch_size=1))
    assert [next(batches).item() for _ in range(5)] == [1, 2, 1, 2, 1]


def test_untrained_model_guesses_blindly() -> None:
    """The first loss is near log(vocabulary), as of a uniform guess."""
    torch.manual_seed(0)
    tokens = torch.randint(50, (4, char_lm.CONTEXT))
    loss = char_lm.loss_of(char_lm.CharLM(50), tokens, tokens.roll(1))
    assert loss.item() == pytest.approx(math.log(50), abs=0.5)


def test_attention_is_causal() -> None:
    """A later character does not change the logits of an earlier position."""
    torch.manual_seed(0)
    model = char_lm.CharLM(50)
    tokens = torch.randint(50, (1, 8))
    changed = tokens.clone()
    changed[0, -1] = (tokens[0, -1] + 1) % 50
    assert torch.equal(model(tokens)[:, :-1], model(changed)[:, :-1])


def test_sample_continues_its_start() -> None:
    """A sample has the asked length after its start and knows only the alphabet."""
    text = char_lm.sample(char_lm.CharLM(3), "abn", start="ban", length=70)
    assert text.startswith("ban")
    assert len(text) == 73
    assert set(text) <= set("abn")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("launcher", [(), ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")])
def test_script_runs(launcher: tuple[str, ...]) -> None:
    """The script trains as it is, alone and under torchrun, and prints its result once."""
    run = subprocess.run(
        [sys.executable, *launcher, char_lm.__file__, "--steps", "4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("held-out loss") == 1
    assert "step 4/4" in run.stderr
