"""plan.svg as PNG, with the extra that draws it and without."""

from __future__ import annotations

import sys

import pytest

from autopar.errors import UsageError
from autopar.view.png import plan_png
from tests.view.documents import chain


def test_png_has_the_size_of_the_picture() -> None:
    """Twice 1,280 pixels wide, as the header says."""
    pytest.importorskip("resvg_py", reason="the extra png is not installed")
    image = plan_png(chain(["a", "b"]))
    assert image.startswith(b"\x89PNG")
    assert int.from_bytes(image[16:20], "big") == 2560


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way to install it, and another format."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UsageError, match="resvg-py") as error:
        plan_png(chain(["a"]))
    assert "autopar[png]" in str(error.value.mend)
