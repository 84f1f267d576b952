"""Remarks as records: ``remarks.jsonl``, one JSON object a line, and the lines that people read."""

from __future__ import annotations

import json
import linecache
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autopar.errors import ModelError, OptionError
from autopar.view.nodes import source_text
from autopar.view.units import bytes_text

if TYPE_CHECKING:
    from autopar.program import Remark

__all__ = ["REMARKS_VERSION", "matching", "read_remarks", "remark_lines", "remark_records", "write_remarks"]

REMARKS_VERSION = 1
_FIELDS = ("version", "code", "kind", "stage", "message", "module", "source", "text", "mend", "bytes")


def remark_records(remarks: Iterable[Remark]) -> list[dict[str, Any]]:
    """A record for each remark.

    Returns:
        ``version``, ``code`` (``""`` for a remark of a pass that has none), ``kind``, ``stage``, ``message``,
        ``module`` (dotted path; ``""`` is the root), ``source`` (``file:line`` or null), ``text`` (that line of
        source, or ``""``), ``mend``, ``bytes`` (of parameters concerned).
    """
    return [
        {
            "version": REMARKS_VERSION,
            "code": remark.code,
            "kind": remark.kind,
            "stage": remark.stage,
            "message": remark.message,
            "module": remark.module_path,
            "source": source_text(remark.source),
            "text": linecache.getline(remark.source.file, remark.source.line).strip() if remark.source else "",
            "mend": remark.mend,
            "bytes": remark.nbytes,
        }
        for remark in remarks
    ]


def write_remarks(records: Iterable[Mapping[str, Any]]) -> str:
    """The text of ``remarks.jsonl``."""
    return "".join(f"{json.dumps(record)}\n" for record in records)


def read_remarks(text: str, *, name: str = "The file") -> list[dict[str, Any]]:
    """Reads what ``write_remarks`` wrote.

    Args:
        text: the JSON lines.
        name: where they came from, for messages.

    Raises:
        ModelError: a line is no record, or one of another version.
    """
    mend = "Run `autopar transform` again to make a new one."
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ModelError(f"{name}:{number} is not JSON ({error.msg}).", mend=mend) from None
        if not isinstance(record, dict) or record.get("version") != REMARKS_VERSION:
            raise ModelError(f"{name}:{number} is no remark of version {REMARKS_VERSION}.", mend=mend)
        if missing := [field for field in _FIELDS if field not in record]:
            raise ModelError(f"{name}:{number} is damaged: it has no {', '.join(missing)}.", mend=mend)
        records.append(record)
    return records


def matching(records: Sequence[Mapping[str, Any]], patterns: Mapping[str, str | None]) -> list[Mapping[str, Any]]:
    """The records of some kinds whose code, stage, module or message match.

    Args:
        records: see ``remark_records``.
        patterns: kind to a regular expression, found anywhere; None leaves the kind out.

    Raises:
        OptionError: a pattern is no regular expression.
    """
    compiled = {}
    for kind, pattern in patterns.items():
        if pattern is not None:
            try:
                compiled[kind] = re.compile(pattern)
            except re.error as error:
                raise OptionError(
                    f"--{kind} {pattern!r} is no regular expression: {error}.", mend="Write . for all remarks."
                ) from None
    return [
        record
        for record in records
        if (wanted := compiled.get(record["kind"])) is not None
        and any(wanted.search(record[field]) for field in ("code", "stage", "module", "message"))
    ]


def remark_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What and where, with the line of source, and the mend."""
    title = f"[{record['code']}]" if record["code"] else ""
    size = f" {bytes_text(record['bytes'])} of parameters." if record["bytes"] else ""
    yield f"{record['kind']}{title} {record['stage']}: {record['message']}{size}"
    if record["source"]:
        shown = f": {record['text']}" if record["text"] else ""
        yield f"  {record['source']}{shown}"
    if record["mend"]:
        yield f"  {record['mend']}"
