"""Classes that declare themselves: a module of a package is all that a strategy needs.

A literal `spec` holds the fields of the registration. The parameters, their defaults and types are
those of `__init__`, and their help is the docstring's. The modules are read and not imported:
`bench --help` and listings do without numpy.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from bench.contracts.parameters import LATER, Parameter

_MARK = re.compile(r"^    spec\b", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_NAMES = {
    **{kind.__name__: kind for kind in (bool, float, int, str, tuple)},
    **{"Annotated": Annotated, "LATER": LATER, "Literal": Literal},
}


def register_modules(register: Callable[..., None], package: str) -> None:
    """Register every class with a literal `spec` in a package such as `__name__` (ValueError)."""
    for file in sorted(files(package).iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".py") or not _MARK.search(source := file.read_text("utf-8")):
            continue
        classes = {c.name: c for c in ast.parse(source).body if isinstance(c, ast.ClassDef)}
        for kind, declared in classes.items():
            if (stated := _assigned(declared)) is None:
                continue
            target = f"{package}.{file.name.removesuffix('.py')}:{kind}"
            try:
                fields = {"parameters": _parameters(declared, classes), **ast.literal_eval(stated)}
                name = fields.pop("name")
            except (ValueError, NameError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{target}: its spec needs a name, and each parameter a type and a default, all"
                    f" of them literals: {error}"
                ) from None
            register(name, target=target, **fields)


def _assigned(declared: ast.ClassDef) -> ast.expr | None:
    """Return the value that a class assigns to `spec`."""
    for line in declared.body:
        if isinstance(line, ast.Assign | ast.AnnAssign):
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if ast.unparse(target) == "spec":
                return line.value
    return None


def _parameters(declared: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, Parameter]:
    """Return the parameters of a class's `__init__`, or of that of its base in the module."""
    for line in declared.body:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            help_of = dict(_described(ast.get_docstring(declared) or ""))
            positional = zip(line.args.args[1:], line.args.defaults, strict=True)
            by_name = zip(line.args.kwonlyargs, line.args.kw_defaults, strict=True)
            return {
                argument.arg: _parameter(argument, default, help_of.get(argument.arg, ""))
                for argument, default in (*positional, *by_name)
            }
    names = map(ast.unparse, declared.bases)
    bases = [classes[name] for name in names if name in classes]
    return _parameters(bases[0], classes) if bases else {}


def _parameter(argument: ast.arg, default: ast.expr | None, text: str) -> Parameter:
    if argument.annotation is None or default is None:
        raise ValueError(f"{argument.arg} lacks one")
    code = compile(ast.Expression(argument.annotation), argument.arg, "eval")
    kind = eval(code, {"__builtins__": {}}, dict(_NAMES))
    later = get_origin(kind) is Annotated and LATER in get_args(kind)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        kind = Union[tuple(part for part in get_args(kind) if part is not NoneType)]  # noqa: UP007
    return Parameter(ast.literal_eval(default), text, type=kind, later=later)


def _described(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield each argument of a docstring with its description, on one line."""
    _, _, arguments = docstring.partition("\nArgs:\n")
    for name, text in _ENTRY.findall(arguments.partition("\n\n")[0]):
        yield name, " ".join(text.split()).removesuffix(".")
