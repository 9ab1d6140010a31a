"""A tree of classes from a file: words for its inner nodes, and the parent of every node."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.contracts.strategy import NO_PARENT
from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.class_names import normalise_text
from bench.inputs.parsing import read_cell, read_csv_file
from bench.machine.files import read_toml

TREE_COLUMNS = ("node", "parent", "words")


@dataclass(frozen=True)
class Hierarchy:
    """A tree whose leaves are the C classes."""

    words: tuple[str, ...]  # [J], words of each inner node, for the templates
    parents: tuple[int, ...]
    """Parent of each class and of each inner node, [C + J]; inner nodes are numbered from C, and -1
    means no parent."""


def read_hierarchy(path: Path, classes: Sequence[str]) -> Hierarchy:
    """Read a tree of classes: CSV with the columns node, parent, words, or TOML tables [[node]].

    A node without a parent is a root. Words are read for inner nodes only; the default is the
    node's name. An inner node with a single child is replaced by the child. Raises UserError if the
    file is invalid, a class or a parent is missing, or a node occurs twice, is its own ancestor or
    has no class below it.
    """
    parent_of, words = _read_nodes(path, classes)
    _check_complete(path, classes, parent_of)
    ancestors = {name: list(_iterate_ancestors(name, parent_of, path)) for name in parent_of}
    # Pairs (node, parent) on the way from each class to its root.
    edges = {edge for name in classes for edge in pairwise([name, *ancestors[name]])}
    n_children = Counter(parent for _, parent in edges)
    if idle := [node for node in parent_of if not n_children[node] and node not in classes]:
        raise UserError(f"{path}: the node {quoted(idle[0])} has no class below it.")
    inner = [node for node in parent_of if n_children[node] > 1]
    number = {name: place for place, name in enumerate([*classes, *inner])}

    def parent_number(name: str) -> int:  # a parent with a single child has no number
        return next((number[node] for node in ancestors[name] if node in number), NO_PARENT)

    return Hierarchy(tuple(words[node] for node in inner), tuple(map(parent_number, number)))


def _read_nodes(path: Path, classes: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return each node's parent ("": none) and words; a class is spelt as in `classes`."""
    parent_of: dict[str, str] = {}
    words: dict[str, str] = {}
    spelling = {normalise_text(name): name for name in classes}
    for where, row in _read_rows(path):
        node, parent, text = (" ".join(read_cell(row, key, where).split()) for key in TREE_COLUMNS)
        if not node:
            raise UserError(f"{where}: the node has no name.")
        node, parent = (spelling.get(normalise_text(name), name) for name in (node, parent))
        if node in parent_of:
            both = f"{quoted(parent_of[node])} and {quoted(parent)}"
            problem = "twice" if parent_of[node] == parent else f"with two parents, {both}"
            raise UserError(f"{where}: {quoted(node)} occurs {problem}.")
        if parent in classes:
            raise UserError(f"{where}: the class {quoted(parent)} cannot be a parent.")
        parent_of[node], words[node] = parent, text or node
    return parent_of, words


def _check_complete(path: Path, classes: Sequence[str], parent_of: Mapping[str, str]) -> None:
    """Raise UserError if a class or a parent is not a node."""
    if missing := [name for name in classes if name not in parent_of]:
        others = f", nor are {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UserError(
            f"{path}: the class {quoted(missing[0])} is not a node{others}."
            f"{did_you_mean(missing[0], parent_of)}"
        )
    for node, parent in parent_of.items():
        if parent and parent not in parent_of:
            raise UserError(
                f"{path}: {quoted(node)} has the parent {quoted(parent)}, which is not a node."
                f"{did_you_mean(parent, parent_of)}"
            )


def _iterate_ancestors(node: str, parent_of: dict[str, str], path: Path) -> Iterator[str]:
    seen = {node}
    while node := parent_of[node]:
        if node in seen:
            raise UserError(f"{path}: {quoted(node)} is below itself.")
        seen.add(node)
        yield node


def _read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row with its place in the file, for messages."""
    if path.suffix == ".toml":
        tables = read_toml(path).get("node")
        if not isinstance(tables, list) or not all(
            isinstance(table, dict) and set(table) <= set(TREE_COLUMNS) for table in tables
        ):
            raise UserError(f"{path}: write tables [[node]] with {', '.join(TREE_COLUMNS)}.")
        yield from ((f"{path}: node {number}", table) for number, table in enumerate(tables, 1))
        return
    _, lines = read_csv_file(path, TREE_COLUMNS[:2], others=TREE_COLUMNS[2:])
    yield from ((f"{path}:{line}", row) for line, row in lines)
