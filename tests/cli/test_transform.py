"""``autopar transform``: what it writes and says, and that bad input leaves nothing behind."""

from __future__ import annotations

import ast
import json
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

import autopar
from autopar.cli import output
from autopar.errors import UsageError
from autopar.partitioner.plan import Plan
from autopar.view.graph_json import read_document
from tests.cli.conftest import MODEL, Command

PICTURES = {"graph_before.dot", "graph_after.dot", "graph.svg", "graph.html", "plan.svg", "trace.json"}
FILES = {"transformed.py", "plan.json", "graph.json", "remarks.jsonl", *PICTURES}
USUAL = ("--input", "4x2x10")
EXAMPLE = Path(__file__).parents[2] / "examples" / "mymodel.py"


def test_writes_everything(command: Command, model_file: Path) -> None:
    """Program, plan, graph document and pictures, each readable as what it is."""
    ended = command("transform", str(model_file), "--strategy", "ddp", "--world-size", "4", *USUAL, "-o", "result")
    assert ended.code == 0, ended.err
    folder = Path("result")
    assert {path.name for path in folder.iterdir()} == FILES
    ast.parse((folder / "transformed.py").read_text())
    plan = Plan.from_json((folder / "plan.json").read_text())
    document = read_document((folder / "graph.json").read_text())
    assert document["plan"] == json.loads(plan.to_json())
    assert document["world_size"] == 4
    assert (folder / "graph_before.dot").read_text() != (folder / "graph_after.dot").read_text()
    ElementTree.parse(folder / "plan.svg")
    assert {path.name for path in Path().iterdir()} == {"model.py", "result"}


def test_summary_says_what_was_done(command: Command, model_file: Path) -> None:
    """Buckets, bytes, what stayed opaque and where, and the files."""
    ended = command("transform", str(model_file), *USUAL)
    assert "Net: ddp" in ended.out
    assert "all-reduced a step" in ended.out
    assert "fc2.bias" in ended.out
    assert "rnn (LSTM) stays one opaque call" in ended.out
    assert "model.py:19" in ended.out
    assert "out/transformed.py" in ended.out
    assert "\x1b" not in ended.out


def test_json_is_all_of_standard_output(command: Command, tmp_path: Path) -> None:
    """Also when the script prints while it is loaded."""
    chatty = tmp_path / "chatty.py"
    chatty.write_text(MODEL.replace("super().__init__()", "super().__init__(); print('hello')"))
    ended = command("transform", str(chatty), *USUAL, "--json")
    assert ended.code == 0, ended.err
    figures = ended.json
    assert figures["version"] == 1
    assert figures["bytes_per_step"] == sum(bucket["bytes"] for bucket in figures["buckets"])
    assert figures["operation_level"] == 1  # the LSTM is an island in its hooks
    assert {Path(path).name for path in figures["files"]} == FILES
    assert "hello" in ended.err


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the example is not there")
def test_script_of_the_guide_as_it_stands(command: Command) -> None:
    """A DataParallel script written for CUDA transforms without a GPU, and without arguments."""
    ended = command("transform", str(EXAMPLE))
    assert ended.code == 0, ended.err
    assert "MyModel" in ended.out


def test_data_parallel(command: Command, model_file: Path) -> None:
    """The other strategy, with an option, writes the same files."""
    model_file.write_text(MODEL.replace("nn.LSTM(16, 8)", "nn.Linear(16, 8)").replace("[0])", ")"))
    ended = command(
        "transform", str(model_file), *USUAL, "--strategy", "data_parallel", "--option", "replicas=2", "--json"
    )
    assert ended.code == 0, ended.err
    assert (ended.json["strategy"], ended.json["replicas"], ended.json["buckets"]) == ("data_parallel", 2, [])
    assert {path.name for path in Path("out").iterdir()} == FILES


def test_bucket_cap(command: Command, model_file: Path) -> None:
    """A cap of 0 gives every parameter its bucket."""
    ended = command("transform", str(model_file), *USUAL, "--bucket-cap-mb", "0", "--json")
    assert [bucket["parameters"] for bucket in ended.json["buckets"]] == [1] * 8


def test_weight_is_in_all_that_is_written(command: Command, model_file: Path) -> None:
    """Summary, plan, picture, and the printed file, whose model counts by it."""
    ended = command("transform", str(model_file), *USUAL, "--weight", "samples")
    assert "all-reduced a step, weighed by samples" in ended.out
    assert json.loads(Path("out/plan.json").read_text())["options"]["weight"] == "samples"
    assert "weighed by samples" in Path("out/plan.svg").read_text()
    built = runpy.run_path("out/transformed.py")["build"]()
    with autopar.no_sync(built):
        built(torch.ones(3, 2, 10)).sum().backward()
    built(torch.ones(5, 2, 10)).sum().backward()
    assert built.fc2.bias.grad.item() == pytest.approx((3 * 6 + 5 * 10) / 8)


def test_pipeline_text(command: Command, model_file: Path) -> None:
    """--passes replaces the strategy's pipeline and is kept in the plan."""
    text = "inline-modules,shapes,backward-order,bucket{cap_mb=0},ddp-sync,lift-parameters"
    assert command("transform", str(model_file), *USUAL, "--passes", text).code == 0
    assert json.loads(Path("out/plan.json").read_text())["pipeline"] == text


def test_print_after_and_timing(command: Command, model_file: Path) -> None:
    """Programs and times go to standard error."""
    ended = command("transform", str(model_file), *USUAL, "--print-after", "ddp-sync", "--timing", "--json")
    assert "# after ddp-sync" in ended.err
    assert "# after shapes" not in ended.err
    assert "sync_gradients" in ended.err
    assert " ms  shapes" in ended.err
    assert ended.json


def test_passes_left_out_dumped_and_counted(command: Command, model_file: Path) -> None:
    """A pass that nobody needs can be left out; programs that changed are written as files, counters printed."""
    text = "inline-modules,shapes,shapes,shapes,backward-order,bucket,ddp-sync,lift-parameters"
    ended = command(
        "transform", str(model_file), *USUAL, "--passes", text, "--dump-after", "changed", "--counters", "--json"
    )
    assert ended.code == 0, ended.err
    dumped = sorted(path.name for path in Path("out/passes").iterdir())
    assert [name[3:-3] for name in dumped] == ["captured", "inline-modules", "bucket", "ddp-sync", "lift-parameters"]
    assert "def forward(self, x):" in Path("out/passes/07-ddp-sync.py").read_text()
    assert {Path(path).name for path in ended.json["files"]} == FILES | set(dumped)
    assert "ddp-sync  nodes that synchronise" in ended.err


def test_failed_pass_leaves_a_repro(command: Command, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says where it is; nothing else is written."""
    monkeypatch.setattr("autopar.passes.preserving.bucket.assign_buckets", None)
    ended = command("transform", str(model_file), *USUAL)
    assert ended.code == 3
    assert "Pass 'bucket' failed on Net: TypeError" in ended.err
    assert "`python out/repro.py` shows it again." in ended.err
    assert [path.name for path in Path("out").iterdir()] == ["repro.py"]
    assert "pipeline=" in Path("out/repro.py").read_text()


def test_stop_after(command: Command, model_file: Path) -> None:
    """The program as it was after the pass is printed; no plan and no Python file are written."""
    ended = command("transform", str(model_file), *USUAL, "--stop-after", "inline-modules")
    assert ended.code == 0, ended.err
    ast.parse(ended.out)
    assert "linear" in ended.out
    assert {path.name for path in Path("out").iterdir()} == FILES - {"transformed.py", "plan.json"}


def test_plan_is_followed(command: Command, model_file: Path) -> None:
    """A plan that was written before decides the buckets."""
    command("transform", str(model_file), *USUAL, "--bucket-cap-mb", "0", "-o", "first")
    ended = command("transform", str(model_file), *USUAL, "--plan", "first/plan.json", "-o", "second", "--json")
    assert ended.code == 0, ended.err
    assert len(ended.json["buckets"]) == 8


def test_second_run_replaces_its_files_and_no_others(command: Command, model_file: Path) -> None:
    """What else lies in the folder stays."""
    command("transform", str(model_file), *USUAL)
    Path("out/notes.txt").write_text("mine")
    Path("out/plan.json").write_text("old")
    assert command("transform", str(model_file), *USUAL).code == 0
    assert Path("out/notes.txt").read_text() == "mine"
    assert Path("out/plan.json").read_text() != "old"


OTHER_PLAN = Plan(strategy="ddp", pipeline="shapes", model="Other", parameters=()).to_json()

BAD = {
    "missing file": (None, ["nowhere.py"], 2, "nowhere.py does not exist"),
    "no model": ("x = 1", [], 3, "No model"),
    "several models": (MODEL + MODEL.replace("Net", "Second"), [], 2, "--model"),
    "unknown model": (MODEL, ["--model", "Nett"], 2, "'Nett'"),
    "constructor with arguments": (MODEL.replace("(self):", "(self, width):", 1), [], 3, "width"),
    "syntax error": ("def broken(:", [], 3, "model.py:1"),
    "constructor that fails": (MODEL.replace("super().__init__()", "raise OSError('no weights')"), [], 3, "no weights"),
    "refused shape": (MODEL, ["--input", "4x2x11"], 3, "mat1 and mat2 shapes cannot be multiplied"),
    "unreadable shape": (MODEL, ["--input", "4by10"], 2, "4by10"),
    "no inputs": (MODEL, ["--input="], 2, "--input"),
    "unknown strategy": (MODEL, ["--strategy", "dpp"], 2, "Did you mean 'ddp'?"),
    "unknown strategy option": (MODEL, ["--option", "cap=3"], 2, "no option 'cap'"),
    "option without a value": (MODEL, ["--option", "replicas"], 2, "KEY=VALUE"),
    "option of another type": (MODEL, ["--bucket-cap-mb", "-1"], 2, "bucket_cap_mb"),
    "option that is no number": (MODEL, ["--option", "bucket_cap_mb=much"], 2, "'much'"),
    "unknown pass": (MODEL, ["--passes", "shapes,bukcet"], 2, "Did you mean 'bucket'?"),
    "unknown pass option": (MODEL, ["--passes", "bucket{cap=1}"], 2, "no option 'cap'"),
    "unreadable pipeline": (MODEL, ["--passes", "shapes,,bucket"], 2, "character 8"),
    "pass that is needed": (MODEL, ["--disable-pass", "ddp-sync"], 2, "cannot be left out"),
    "unknown pass to leave out": (MODEL, ["--disable-pass", "shapse"], 2, "Did you mean 'shapes'?"),
    "unknown pass to dump after": (MODEL, ["--dump-after", "chnaged"], 2, "Did you mean 'changed'?"),
    "contract": (MODEL, ["--passes", "ddp-sync,shapes"], 2, "'ddp-sync' requires"),
    "unknown stop": (MODEL, ["--stop-after", "shape"], 2, "Did you mean 'shapes'?"),
    "plan of another model": (MODEL, ["--plan", "other.json"], 3, "made for another model"),
    "plan of another version": (MODEL, ["--plan", "future.json"], 3, "version 99"),
    "plan that is none": (MODEL, ["--plan", "model.py"], 3, "not JSON"),
    "missing plan": (MODEL, ["--plan", "nowhere.json"], 2, "nowhere.json cannot be read"),
    "plan of another strategy": (MODEL, ["--plan", "other.json", "--strategy", "data_parallel"], 2, "one of ddp"),
    "world size": (MODEL, ["--world-size", "0"], 2, "World size 0"),
    "nothing to train": (MODEL + "model = Net().requires_grad_(False)", [], 3, "no trainable parameter"),
    "lazy module": (MODEL.replace("nn.Linear(10, 16)", "nn.LazyLinear(16)"), [], 3, "lazy"),
    "output is a file": (MODEL, ["-o", "model.py"], 2, "is a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(command: Command, tmp_path: Path, case: str) -> None:
    """One line with the fact and the exit code, no traceback, and not a file more than before."""
    text, arguments, code, fact = BAD[case]
    if text is not None:
        (tmp_path / "model.py").write_text(text)
        arguments = ["model.py", *arguments]
    (tmp_path / "other.json").write_text(OTHER_PLAN)
    (tmp_path / "future.json").write_text(OTHER_PLAN.replace('"version": 1', '"version": 99'))
    before = {path for path in tmp_path.iterdir() if path.name != "__pycache__"}
    usual = () if "--input" in arguments or "--input=" in arguments else USUAL
    ended = command("transform", *arguments, *usual)
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert fact in ended.err
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("autopar: error[")
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before


def test_debug_shows_where_the_model_failed(command: Command, model_file: Path) -> None:
    """The model's own traceback is there for who asks."""
    ended = command("transform", str(model_file), "--input", "4x2x11", "--debug")
    assert ended.code == 3
    assert "in forward" in ended.err


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle leaves neither the folder nor a part of it."""
    written = []

    def write(self: Path, text: str, **kwargs: object) -> int:
        written.append(self)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return len(text)

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(UsageError, match="No space left on device"):
        output.write_folder(tmp_path / "a" / "out", {"one": "1", "two": "2", "three": "3"})
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_files_have_usual_permissions(tmp_path: Path) -> None:
    """A folder that came by a rename can be read by whoever could read one made in place."""
    (tmp_path / "usual").mkdir()
    output.write_folder(tmp_path / "out", {"one": "1"})
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_front_end_can_be_chosen(command: Command, tmp_path: Path) -> None:
    """With --capture export the graph is one of ATen operators, in the same files."""
    file = tmp_path / "plain.py"
    file.write_text(MODEL.replace("self.rnn.register_forward_hook(look)", "pass"))
    ended = command("transform", str(file), *USUAL, "--capture", "export", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["front_end"] == "export"
    assert ended.json["operation_level"] == 1
    assert "torch.ops.aten.lstm.input(" in Path("out/transformed.py").read_text()


def test_front_end_that_cannot_or_is_none(command: Command, model_file: Path) -> None:
    """One sentence with the reason; an unknown one is a mistake in the call."""
    ended = command("transform", str(model_file), *USUAL, "--capture", "export")
    assert ended.code == 3
    assert "The export front end cannot capture Net: of its submodule rnn (it has hooks)." in ended.err
    ended = command("explain", str(model_file), *USUAL, "--capture", "exprot")
    assert ended.code == 2
    assert "Did you mean 'export'?" in ended.err
    assert not Path("out").exists()
