"""The codes of all errors and remarks, each with a title and a page that ``autopar explain CODE`` prints.

1xx is capture, 2xx partitioning and passes, 3xx ranks and devices at run time, 4xx the command line,
9xx autopar itself. A code that was once given to somebody keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Literal, TypeAlias

from autopar.errors import UnknownNameError

__all__ = ["CODES", "Kind", "page"]

Kind: TypeAlias = Literal["error", "passed", "missed", "analysis"]

CODES: Mapping[str, tuple[Kind, str]] = {
    "AP101": ("passed", "the model was captured, and the graph equals eager"),
    "AP102": ("analysis", "a front end was not taken"),
    "AP103": ("missed", "a module stays one opaque call"),
    "AP104": ("missed", "the whole model stays one opaque call"),
    "AP105": ("analysis", "the graph rests on sizes or values of its inputs"),
    "AP106": ("analysis", "effects of forward were left out of the capture"),
    "AP107": ("analysis", "a module inside an opaque call is no island"),
    "AP108": ("analysis", "modules inside an opaque call were not tried as islands"),
    "AP109": ("analysis", "islands were found and are not used"),
    "AP120": ("error", "the model cannot be transformed"),
    "AP121": ("error", "the model does not run on the sample input"),
    "AP122": ("error", "the model has no trainable parameter"),
    "AP123": ("error", "the model has lazy parameters without a shape"),
    "AP124": ("error", "the front end that was asked for cannot capture the model"),
    "AP125": ("error", "a line of the model's file failed"),
    "AP126": ("error", "the model needs arguments to be built"),
    "AP201": ("analysis", "passes were left out by AUTOPAR_BISECT_LIMIT"),
    "AP202": ("passed", "modules were opened into operations"),
    "AP203": ("missed", "a module is not known to be a pure function"),
    "AP204": ("analysis", "FLOPs of one forward"),
    "AP205": ("missed", "shapes and FLOPs are unknown"),
    "AP206": ("analysis", "where the order of gradients comes from"),
    "AP207": ("analysis", "a parameter gets no gradient"),
    "AP208": ("passed", "parameters were put into buckets"),
    "AP209": ("analysis", "why there are so many buckets"),
    "AP210": ("passed", "a given plan is followed"),
    "AP211": ("passed", "gradients are synchronised by nodes of the graph"),
    "AP212": ("passed", "parameters became inputs of the graph"),
    "AP213": ("passed", "buckets travel compressed"),
    "AP214": ("analysis", "a bucket is not compressed"),
    "AP215": ("passed", "batch norms take statistics over all ranks"),
    "AP220": ("passed", "the batch is split over replicas"),
    "AP221": ("passed", "there is one replica, so nothing is split"),
    "AP222": ("missed", "there is no batch to split"),
    "AP223": ("missed", "the rule that puts parts together could not be proved"),
    "AP224": ("analysis", "each replica takes statistics of its own part"),
    "AP225": ("analysis", "replicas run without islands"),
    "AP240": ("error", "a pass failed"),
    "AP241": ("error", "a pass left a broken program"),
    "AP242": ("error", "the pipeline cannot be built"),
    "AP243": ("error", "the plan does not fit"),
    "AP244": ("error", "the model cannot run on a part of its batch"),
    "AP245": ("error", "an output mixes the samples of its batch"),
    "AP301": ("error", "the launch environment is not as it must be"),
    "AP302": ("error", "another rank was lost"),
    "AP303": ("error", "the ranks do not hold the same"),
    "AP304": ("error", "the model was used in a way that would give wrong gradients"),
    "AP305": ("error", "a checkpoint cannot be written or read"),
    "AP401": ("error", "the call is off"),
    "AP402": ("error", "there is nothing of that name"),
    "AP403": ("error", "an option has a value that it cannot have"),
    "AP404": ("error", "a check found a difference"),
    "AP405": ("error", "the file holds several models"),
    "AP406": ("error", "no inputs are known for the model"),
    "AP901": ("error", "a defect of autopar's"),
}


def page(code: str) -> str:
    """The page of a code, as Markdown under its title.

    Raises:
        UnknownNameError: there is no such code.
    """
    if code not in CODES:
        raise UnknownNameError("code", code, CODES, listing="`autopar explain --list` prints all codes.")
    text = files("autopar").joinpath("pages", f"{code}.md").read_text(encoding="utf-8")
    return f"# {code}: {CODES[code][1]}\n\n{text}"
