"""Rows of modules: forward order, estimated backward, and where buckets are launched."""

from __future__ import annotations

from autopar.view.rows import launch_rows, merged, module_rows
from tests.view.documents import WEIGHT_BYTES, chain, node


def test_one_row_a_module_in_forward_order() -> None:
    """Inputs, outputs and synchronisation are no rows."""
    rows = module_rows(chain(["a", "b"]))
    assert [(row.path, row.kinds, row.param_bytes, row.buckets) for row in rows] == [
        ("a", ("linear",), WEIGHT_BYTES, (1,)),
        ("b", ("linear",), WEIGHT_BYTES, (0,)),
    ]


def test_first_module_needs_no_gradient_of_its_input() -> None:
    """The first trained module costs one forward in backward, later ones two."""
    rows = module_rows(chain(["a", "b"]))
    assert [row.backward_flops for row in rows] == [256, 512]


def test_frozen_beginning_has_no_backward() -> None:
    """Nothing flows into what lies before the first trained parameter."""
    document = chain(["a", "b"])
    document["plan"]["parameters"].pop(0)
    assert [row.backward_flops for row in module_rows(document)] == [0, 256]


def test_buckets_are_launched_where_they_are_complete() -> None:
    """Bucket 0 belongs to the last row, bucket 1 to the first."""
    document = chain(["a", "b"])
    assert launch_rows(document, module_rows(document)) == {0: 1, 1: 0}


def test_parameter_of_an_uncalled_submodule_belongs_to_the_module_around_it() -> None:
    """An attention reads the weight of its projection without calling it."""
    document = chain(["attn"], opaque=["attn"])
    document["plan"]["parameters"][0]["name"] = "attn.out.weight"
    document["plan"]["buckets"][0]["parameters"] = ["attn.out.weight"]
    (row,) = module_rows(document)
    assert (row.path, row.param_bytes, row.opaque) == ("attn", WEIGHT_BYTES, True)


def test_parameter_that_nothing_uses_has_a_row() -> None:
    """A module that forward never calls is shown, without operations."""
    document = chain(["a"])
    document["after"]["nodes"] = [one for one in document["after"]["nodes"] if one["module"] != "a"]
    document["after"]["edges"] = []
    assert [(row.path, row.count) for row in module_rows(document)] == [("a", 0)]


def test_merged_rows_add_up() -> None:
    """Figures of rows that are drawn as one are summed."""
    document = chain(["a", "b"])
    document["after"]["nodes"].insert(-1, node("relu", target="F.relu", module="b"))
    row = merged(module_rows(document))
    assert (row.count, row.flops, row.buckets, row.kinds) == (3, 512, (0, 1), ("linear", "relu"))
