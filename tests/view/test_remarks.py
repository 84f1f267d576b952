"""``remarks.jsonl``: written, read back, chosen from."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopar.errors import ModelError, OptionError
from autopar.program import Remark, SourceLine
from autopar.view.remarks import matching, read_remarks, remark_lines, remark_records, write_remarks


@pytest.fixture
def remarks(tmp_path: Path) -> list[Remark]:
    """One of each kind; the first has a line of source."""
    file = tmp_path / "model.py"
    file.write_text("x = 1\nif x > 0:\n")
    line = SourceLine(str(file), 2)
    return [
        Remark(code="AP103", kind="missed", stage="capture", message="It branches.", source=line, mend="Do not."),
        Remark(kind="passed", stage="mine", message="Done.", module_path="encoder.0", nbytes=2048),
        Remark(code="AP204", kind="analysis", stage="shapes", message="Five."),
    ]


def test_records_read_back(remarks: list[Remark]) -> None:
    """One JSON object a line, with the text of the line of source."""
    records = remark_records(remarks)
    assert read_remarks(write_remarks(records)) == records
    assert [record["text"] for record in records] == ["if x > 0:", "", ""]
    assert len(write_remarks(records).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{", "remarks:1 is not JSON"),
        ('{"version": 9}', "remarks:1 is no remark of version 1"),
        ("[]", "remarks:1 is no remark"),
        ('{"version": 1}', "remarks:1 is damaged: it has no code, kind"),
    ],
)
def test_damaged_files_are_refused(text: str, fact: str) -> None:
    """With the number of the line."""
    with pytest.raises(ModelError, match=fact):
        read_remarks(text, name="remarks")


@pytest.mark.parametrize(
    ("patterns", "stages"),
    [
        ({"passed": "."}, ["mine"]),
        ({"passed": "^encoder", "missed": "AP1"}, ["capture", "mine"]),
        ({"missed": "nothing", "analysis": "Five"}, ["shapes"]),
        ({"missed": None}, []),
    ],
)
def test_patterns_are_looked_for_everywhere(remarks: list[Remark], patterns: dict[str, str], stages: list[str]) -> None:
    """In code, stage, module and message, of their own kind only."""
    assert [record["stage"] for record in matching(remark_records(remarks), patterns)] == stages


def test_pattern_that_is_none() -> None:
    """The option is named."""
    with pytest.raises(OptionError, match=r"--missed '\(' is no regular expression"):
        matching([], {"missed": "("})


def test_lines_for_people(remarks: list[Remark]) -> None:
    """What, where with the line shown, mend; and the size, where parameters are concerned."""
    first, second, _ = map(list, map(remark_lines, remark_records(remarks)))
    assert first[0] == "missed[AP103] capture: It branches."
    assert first[1].endswith("model.py:2: if x > 0:")
    assert first[2] == "  Do not."
    assert second == ["passed mine: Done. 2.0 KiB of parameters."]
