"""Plan files and graph files that somebody edited: what can be used is used, all else is a sentence."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autopar.cli.formats import FORMATS, rendered
from autopar.errors import ModelError, PlanError
from autopar.partitioner.plan import Plan
from autopar.view.diff import diff_documents
from autopar.view.graph_json import read_document, write_document
from autopar.view.table import print_table
from tests.fuzz.limits import damaged, fuzzed, in_time
from tests.partitioner.test_plan import BIAS, PLAN, SPEC
from tests.view.documents import chain, node

_PLAN = PLAN.to_json()
_GRAPH = json.dumps(chain(["a", "b"]))
_TARGETS = ("F.linear", "torch.relu", "operator.add", "autopar.sync_gradients", "", "a<b>&\"'\n", "\u00e9\ud800")


@st.composite
def _edited(draw: st.DrawFn, text: str) -> str:
    """A file after an edit; at times its end is missing."""
    changed = json.dumps(damaged(draw, json.loads(text)))
    return changed[: draw(st.integers(0, len(changed)))] if draw(st.integers(0, 9)) == 0 else changed


@st.composite
def _graphs(draw: st.DrawFn) -> str:
    """A graph file with any acyclic graph of up to twelve nodes."""
    document = chain(["a", "b"])
    count = draw(st.integers(0, 12))
    nodes = [
        node(
            f"n{index}",
            draw(st.sampled_from(["placeholder", "call_function", "call_module", "get_attr", "output"])),
            draw(st.sampled_from(_TARGETS) | st.text(max_size=4)),
            module=draw(st.sampled_from(["", "a", "a.b", "a.b.c", "0", "a..b"])),
            shape=draw(st.none() | st.lists(st.integers(0, 2**40), max_size=4)),
            flops=draw(st.integers(0, 2**60)),
            bytes=draw(st.integers(0, 2**60)),
            opaque=draw(st.booleans()),
            code=draw(st.none() | st.text(max_size=8)),
            source=draw(st.none() | st.sampled_from(["model.py:7", "model.py", ":"])),
        )
        for index in range(count)
    ]
    pairs = [(one, other) for other in range(count) for one in range(other)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []
    graph = {"nodes": nodes, "edges": [[f"n{one}", f"n{other}"] for one, other in chosen]}
    return json.dumps({**document, "before": graph, "after": graph, "plan": None})


@pytest.mark.timeout(3600)
@fuzzed
@given(text=_edited(_PLAN) | st.text(max_size=20))
def test_plan_files(text: str) -> None:
    """A plan that can be used, or a PlanError."""
    with in_time():
        try:
            plan = Plan.from_json(text)
            plan.check_parameters([SPEC, BIAS])
        except PlanError:
            return
        assert Plan.from_json(plan.to_json()).digest() == plan.digest()


@pytest.mark.timeout(3600)
@fuzzed
@given(text=_edited(_GRAPH), form=st.sampled_from(["table", *FORMATS]), graph=st.sampled_from(["before", "after"]))
def test_edited_graph_files(text: str, form: str, graph: str) -> None:
    """Whatever is read can be drawn."""
    with in_time():
        try:
            document = read_document(text)
        except ModelError:
            return
        if form == "table":
            print_table(document, Console(file=io.StringIO()), graph=graph)
        else:
            assert rendered(document, form, graph)


@pytest.mark.timeout(3600)
@fuzzed
@given(text=_graphs(), form=st.sampled_from(["table", *FORMATS]))
def test_generated_graphs(text: str, form: str) -> None:
    """Any graph is read, drawn, written again and equal to itself."""
    with in_time():
        document = read_document(text)
        if form == "table":
            print_table(document, Console(file=io.StringIO()), graph="after")
        else:
            assert rendered(document, form, "after")
        assert read_document(write_document(document)) == document
        assert diff_documents(document, document)["equal"]
