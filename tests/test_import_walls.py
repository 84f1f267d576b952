"""The walls between the parts: who may import whom, and where private names of torch may stand."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import autopar

ROOT = Path(autopar.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What each part may import of autopar (besides itself), and whether it may import torch at all.
MAY_IMPORT = {
    "errors": set(),
    "codes": {"errors"},
    "collector": set(),
    "compat": set(),
    "ops": set(),
    "plugins": {"errors"},
    "partitioner": {"errors"},
    "guards": set(),
    "lost_ranks": {"errors"},
    "structure": {"compat"},
    "tracebacks": {"errors"},
    "progress": set(),
    "program": {"compat", "guards", "partitioner", "structure", "view"},  # view: for notebooks, when they ask
    "regions": {"compat", "program"},
    "calls": {"compat", "program"},
    "islands": {"calls", "compat", "program"},
    "capture": {
        "calls", "collector", "compat", "errors", "guards", "islands", "ops", "program", "progress", "regions",
        "structure",
    },
    "replica_modules": {"compat", "errors"},
    "replica_ops": {"compat", "errors", "partitioner", "replica_modules"},
    "passes": {
        "capture", "collector", "compat", "errors", "islands", "ops", "partitioner", "plugins", "program", "regions",
        "replica_modules", "replica_ops",
    },
    "shm": {"compat", "errors", "lost_ranks"},
    "view": {"errors", "islands", "partitioner", "program"},
}  # fmt: skip
MAY_NOT_IMPORT = {
    "strategies": {"api", "cli", "emit", "verification", "view", "capture", "passes"},
    "compilation": {"api", "cli", "emit", "verification", "view", "runtime"},
    "runtime": {"api", "attach", "cli", "emit", "verification", "view"},
    "attach": {"api", "cli", "emit", "verification", "view"},
    "optimizers": {"api", "cli", "emit", "verification", "view"},
    "emit": {"api", "cli", "verification", "view"},
    "nn": {"cli", "emit", "verification", "view"},
    "checkpoint": {"api", "cli", "emit", "verification", "view", "capture", "passes"},
    "api": {"cli", "emit", "verification", "view"},
    "verification": {"benchmarking", "cli", "view"},
    "benchmarking": {"cli"},
}
WITHOUT_TORCH = {"codes", "errors", "plugins", "partitioner", "view"}
WITHOUT_NETWORK = {*MAY_IMPORT, "compilation", "emit"} - {"shm"}
# Private names of torch outside of compat, with the reason why each may stand there.
JUSTIFIED = {
    "_BatchNorm": "the public base of torch's batch norms, whose name has not changed since torch 1.0",
    "_foreach_zero_": "documented beside the optimizers that take foreach=True; one call for many tensors",
    "_foreach_copy_": "the same",
    "_foreach_mul_": "the same",
}


def part_of(file: Path) -> str:
    """The part of autopar that a file belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, but what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from running(child)


def imports(file: Path) -> Iterator[str]:
    """Full names of everything that a file imports, also within functions."""
    for node in running(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(part: str) -> dict[str, str]:
    """The parts of autopar that a part imports, with a file that does."""
    found = {}
    for file in FILES:
        if part_of(file) == part:
            for name in imports(file):
                if name.startswith("autopar."):
                    found[name.split(".")[1]] = str(file.relative_to(ROOT))
    found.pop(part, None)
    found.pop("__version__", None)
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_part_imports_only_what_is_below_it(part: str) -> None:
    """cli -> api -> capture, partitioner, passes, runtime; one direction, no way back."""
    strays = {name: file for name, file in parts_imported(part).items() if name not in MAY_IMPORT[part]}
    assert not strays


@pytest.mark.parametrize("part", MAY_NOT_IMPORT)
def test_part_does_not_import_what_is_above_it(part: str) -> None:
    """The upper parts: nothing of the user interfaces."""
    strays = {name: file for name, file in parts_imported(part).items() if name in MAY_NOT_IMPORT[part]}
    assert not strays


@pytest.mark.parametrize("part", sorted(WITHOUT_TORCH))
def test_part_does_not_import_torch(part: str) -> None:
    """Sizes, orders and texts only."""
    strays = [(file.name, name) for file in FILES if part_of(file) == part for name in imports(file) if "torch" in name]
    assert not strays


@pytest.mark.parametrize("part", sorted(WITHOUT_NETWORK))
def test_part_does_not_talk_to_the_network(part: str) -> None:
    """``torch.distributed`` belongs to the runtime."""
    strays = [
        (file.name, name)
        for file in FILES
        if part_of(file) == part
        for name in imports(file)
        if name.startswith("torch.distributed")
    ]
    assert not strays


@pytest.mark.parametrize(
    "module", ["autopar", "autopar.errors", "autopar.partitioner.order", "autopar.partitioner.buckets"]
)
def test_import_leaves_torch_alone(module: str) -> None:
    """Really, in a fresh interpreter."""
    script = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def private_names(file: Path) -> Iterator[str]:
    """Private names that are read off torch or its modules, or imported from them."""
    tree = ast.parse(file.read_text())
    roots = {"torch"}
    for node in running(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None)
            for alias in node.names:
                name = f"{module}.{alias.name}" if module else alias.name
                if name.split(".")[0] == "torch":
                    roots.add(alias.asname or alias.name.split(".")[0])
                    yield from (part for part in name.split(".") if is_private(part))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            if isinstance(owner, ast.Name) and owner.id in roots:
                yield node.attr


def is_private(name: str) -> bool:
    """One leading underscore."""
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize(
    "file", [file for file in FILES if part_of(file) != "compat"], ids=lambda file: str(file.relative_to(ROOT))
)
def test_private_names_of_torch_stand_in_compat(file: Path) -> None:
    """Where one of them moves in another version, one file is mended."""
    assert set(private_names(file)) <= set(JUSTIFIED)


def test_justified_names_are_used() -> None:
    """A name that nobody uses needs no justification."""
    used = {name for file in FILES if part_of(file) != "compat" for name in private_names(file)}
    assert used == set(JUSTIFIED)


def test_the_check_sees_private_names(tmp_path: Path) -> None:
    """In imports, in attributes, and behind another name for the module."""
    file = tmp_path / "sample.py"
    file.write_text(
        "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
        "from torch.utils import _pytree\nfrom torch._ops import ops\n"
        "torch._C.x; F._canonical_mask; nn.modules.module._global; self._mine; torch.nn.__name__\n"
    )
    assert set(private_names(file)) == {"_pytree", "_ops", "_C", "_canonical_mask", "_global"}


def test_every_part_is_behind_a_wall() -> None:
    """A new part has to say what it may import."""
    above = {"api", "cli", "scripts", "__main__", "__init__"}
    assert {part_of(file) for file in FILES} == {*MAY_IMPORT, *MAY_NOT_IMPORT, *above}
