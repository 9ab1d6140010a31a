"""The modules of the toolkit as syntax trees, read once for all tests about the code."""

from __future__ import annotations

import ast
from functools import cache
from itertools import chain

from helpers.places import ROOT


class Nodes(tuple[ast.AST, ...]):
    """All nodes of a module, the module itself first."""

    @property
    def body(self) -> list[ast.stmt]:
        """The statements of the module."""
        module = self[0]
        assert isinstance(module, ast.Module)
        return module.body


def parsed(text: str) -> Nodes:
    """Return the nodes of a source text."""
    return Nodes(ast.walk(ast.parse(text)))


@cache
def modules() -> dict[str, Nodes]:
    """Return path → nodes of every module of bench/ and plugins/."""
    files = chain.from_iterable((ROOT / room).rglob("*.py") for room in ("bench", "plugins"))
    return {f.relative_to(ROOT).as_posix(): parsed(f.read_text("utf-8")) for f in files}
