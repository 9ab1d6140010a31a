"""The shape of the code: no import circles, and one place that asks for the kind of a backbone."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules() -> dict[str, ast.Module]:
    """Return name → syntax tree of every module of bench/ and plugins/."""
    files = [file for room in ("bench", "plugins") for file in (ROOT / room).rglob("*.py")]
    trees = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        trees[name.replace("plugins", "bench_plugins", 1)] = ast.parse(file.read_text("utf-8"))
    return trees


def imports(tree: ast.Module, known: set[str]) -> set[str]:
    """Return the modules that a module names in imports, also those for annotations alone."""
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= (whole & known) or {node.module}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    return named & known


def test_no_modules_import_each_other_in_a_circle() -> None:
    trees = modules()
    graph = {name: imports(tree, set(trees)) - {name} for name, tree in trees.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_the_kind_of_a_backbone_is_asked_in_one_place() -> None:
    asked = [
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "bench").rglob("*.py")
        if "scorer ==" in file.read_text("utf-8")
    ]
    assert asked == []
