"""How ``autopar run`` ends on real ranks: the user's own error, then one sentence, never torchrun's traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from autopar.scripts.error_file import ErrorFile, place_of
from autopar.scripts.run import run_script

Write = Callable[[str], str]
NOISE = ("torch/distributed", "autopar/", "autopar.scripts", "GLHF", "https://", "SIGTERM")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes train.py into an empty folder, which becomes the current one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("LOGLEVEL", raising=False)
    monkeypatch.chdir(tmp_path)

    def write_text(text: str) -> str:
        (tmp_path / "train.py").write_text(textwrap.dedent(text))
        return "train.py"

    return write_text


KILLED = """
    import os, signal
    import torch, autopar
    model = autopar.parallelize(torch.nn.Linear(2, 1))
    for step in range(3):
        if step == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        model(torch.ones(1, 2)).sum().backward()
"""


def test_a_killed_rank(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """The end names script, rank and signal; the survivor says what it lost, unless it was stopped before."""
    assert run_script(write(KILLED), nproc=2, device="cpu") == 1
    err = capfd.readouterr().err
    *_, lost, last = err.splitlines()
    assert last.startswith("autopar: error: train.py failed on rank 1: it was killed by SIGKILL. Rank 0 ")
    if "lost it and ended" in last:
        assert lost.startswith("autopar: Rank 0 of 2 lost the others at step 2, bucket 0 of 1 (bias and 1 more)")
        assert lost.endswith("(train.py:8)")
        assert " Last heartbeats: rank 0 " in last
    else:
        assert "was stopped" in last
    assert not [noise for noise in (*NOISE, "Traceback") if noise in err]


RAISED = """
    import os, signal
    def load(sample):
        raise ValueError(f"bad sample {sample}")
    if os.environ["RANK"] == "1":
        load(17)
    signal.pause()
"""


def test_a_rank_that_raises(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """Its traceback, with the script's frames only, and the sentence: nothing else."""
    assert run_script(write(RAISED), nproc=2, device="cpu") == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip(" ^~")]
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        "ValueError: bad sample 17",
        "autopar: error: train.py failed on rank 1: ValueError: bad sample 17 (train.py:4). Rank 0 was stopped.",
    ]
    assert len(lines) == 7


def test_debug_shows_torchruns_traceback(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """And the sentence still comes last."""
    assert run_script(write(RAISED), nproc=2, device="cpu", debug=True) == 1
    err = capfd.readouterr().err
    assert "ChildFailedError" in err
    assert "To enable traceback" not in err
    assert err.splitlines()[-1].endswith("Rank 0 was stopped.")


def test_a_restart_is_still_torchruns(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """A rank that fails at the first attempt and not at the second ends well."""
    script = write("""
        import os
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            raise RuntimeError("the first attempt")
        print("second", os.environ["RANK"])
    """)
    assert run_script(script, nproc=1, device="cpu", torchrun_args=["--max-restarts", "1"]) == 0
    out, err = capfd.readouterr()
    assert out == "second 0\n"
    assert "the first attempt" in err
    assert "autopar: error" not in err


def test_ctrl_c(write: Write) -> None:
    """One line and exit code 130, as a terminal sends it: to the whole process group."""
    script = write("""
        import signal
        print("here", flush=True)
        signal.pause()
    """)
    command = [sys.executable, "-m", "autopar", "run", "--nproc", "2", "--device", "cpu", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["here\n"] * 2
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "autopar: interrupted; train.py was stopped (--debug shows where)\n"


def test_a_signal_in_one_process_is_named(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """Without torchrun nobody else would say it."""
    assert run_script(write("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), device="cpu") == 137
    assert capfd.readouterr().err == "autopar: error: train.py was ended by SIGKILL.\n"


def test_the_error_file_is_torchs_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler above reads torch's fields of it."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    try:
        raise ValueError("bad sample")
    except ValueError as error:
        ErrorFile().record_exception(error)
        line = error.__traceback__.tb_lineno
    message = json.loads(path.read_text())["message"]
    assert message["message"] == "ValueError: bad sample"
    assert "Traceback" in message["extraInfo"]["py_callstack"]
    assert int(message["extraInfo"]["timestamp"]) == int(message["autopar"]["time"])
    assert (message["autopar"]["place"], message["autopar"]["lost"]) == (f"{Path(__file__).name}:{line}", False)


def test_the_place_of_an_error_is_the_users() -> None:
    """Not torch's, not the standard library's; and a syntax error has its own."""
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert place_of(caught.value).startswith(f"{Path(__file__).name}:")
    with pytest.raises(SyntaxError) as broken:
        compile("x = = 1", "/tmp/train.py", "exec")
    assert place_of(broken.value) == "train.py:1"
