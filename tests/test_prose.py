"""The words of the code: names say what a value is, docstrings begin with a subject."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from helpers.places import ROOT
from helpers.sources import Nodes, modules, parsed

# A verb or a number word says how a value came about, and not what it is.
VAGUE = {"said", "found", "given", "asked", "known", "told", "each", "one", "took"}
OPENINGS = ("Of ", "That ", "Those ", "Whatever ", "Likewise", "Tell whether ")

PROMISED = {
    ("bench/api.py", "one"): "the parameter of the public `bench.compare`",
    ("bench/contracts/specs.py", "found"): "a key of dataset.toml and of plugins' registrations",
    ("bench/inputs/checking.py", "said"): "a key of `bench check-data --json`",
    ("bench/cli/doctor.py", "said"): "a key of `bench doctor --json`",
    ("bench/store/documents.py", "asked"): "a key of manifest.json",
    ("bench/testing/strategies.py", "asked"): "a field that the tests of plugins read",
}


def names(nodes: Nodes) -> Iterator[str]:
    """Yield the names that a module defines: of variables, fields, parameters and functions."""
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name


def docstrings(nodes: Nodes) -> Iterator[str]:
    """Yield the docstrings of a module, those of fields included."""
    for node in nodes:
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def vague(nodes: Nodes) -> list[str]:
    """Return the vague names of a module."""
    return sorted(set(names(nodes)) & VAGUE)


def without_subject(nodes: Nodes) -> list[str]:
    """Return the docstrings of a module that open without a subject."""
    return [text for text in docstrings(nodes) if text.startswith(OPENINGS)]


def test_the_linter_sees_every_way_to_name_a_value() -> None:
    nodes = parsed(
        "for one, given in rows: pass\n"
        "known: int = 1\n"
        "def told(found, *, asked=1): self.said = [each for each in found]\n"
        "took = rows.one"
    )
    assert vague(nodes) == sorted(VAGUE)
    assert without_subject(parsed('n: int\n"""Of the run."""\n"""Number of runs."""')) == [
        "Of the run."
    ]


def test_names_say_what_a_value_is() -> None:
    places = {(file, name) for file, nodes in modules().items() for name in vague(nodes)}
    assert places == set(PROMISED)


def test_docstrings_begin_with_a_subject() -> None:
    opened = {file: without_subject(nodes) for file, nodes in modules().items()}
    assert {file: texts for file, texts in opened.items() if texts} == {}


def test_the_changelog_is_one_page() -> None:
    """A merge of an older branch restores lines that left: keep what it adds, and drop these."""
    assert len((ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()) <= 60
