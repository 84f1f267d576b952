"""The command `python -m benchmarks.pictures`."""

from __future__ import annotations

from click.testing import CliRunner

from benchmarks.pictures import main


def test_a_row_for_each_model() -> None:
    """Small models, without a browser: every figure that needs none is there."""
    result = CliRunner().invoke(main, ["--nodes", "60", "--no-browser"])
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.output.splitlines()]
    assert rows[0] == ["model", "nodes", "`plan.svg`, CPU", "`graph.html`, CPU", "size", "first draw", "all opened"]
    assert [row[0] for row in rows[2:]] == ["GPT, 1 block", "12 linear layers, all different"]
    for _, nodes, plan, page, size, *browser in rows[2:]:
        assert 40 < int(nodes) < 90
        assert plan.endswith(" ms")
        assert page.endswith(" ms")
        assert 0.05 < float(size.removesuffix(" MB")) < 0.2
        assert browser == ["-", "-"]
