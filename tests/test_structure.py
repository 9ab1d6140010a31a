"""The shape of the code: no import circles, one name for one thing, one place for each question."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from helpers.places import ROOT
from helpers.sources import Nodes, modules


def module_name(path: str) -> str:
    """Return the name by which the module of a file is imported."""
    name = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return name.removeprefix("plugins.")


def imports(nodes: Nodes, known: set[str]) -> set[str]:
    """Return the modules that a module names in imports, also those for annotations alone."""
    named = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= (whole & known) or {node.module}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    return named & known


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {module_name(path): nodes for path, nodes in modules().items()}
    graph = {name: imports(nodes, set(sources)) - {name} for name, nodes in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def public_names(nodes: Nodes) -> Iterator[str]:
    """Yield the names of a module's public classes and constants."""
    for node in nodes.body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            names = [name for name in names if name.isupper() and len(name) > 1]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_classes_and_constants_have_names_that_occur_once() -> None:
    places = defaultdict(list)
    for path, nodes in modules().items():
        for name in public_names(nodes):
            places[name].append(path)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_kind_of_a_backbone_is_asked_in_one_place() -> None:
    asked = [
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "bench").rglob("*.py")
        if "scorer ==" in file.read_text("utf-8")
    ]
    assert asked == []
