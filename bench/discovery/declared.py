"""Registrations that are read from files: datasets in TOML, and classes with a literal `spec`.

A plugin package may hold TOML files and nothing else but the line that registers them,
`register_toml(register, __name__)`. The `spec` of a class holds the fields of its registration; the
parameters, their defaults and types are those of `__init__`, and their help is the docstring's. The
modules are not imported, so that `bench --help` and listings do without numpy.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from bench.contracts.parameters import LATER, Parameter
from bench.contracts.specs import DatasetSpec
from bench.discovery.places import (
    LISTS,
    UNKNOWN_COUNT,
    check_keys,
    check_places,
    check_texts,
    is_path,
    refuse_unknown,
)
from bench.errors import UserError, quoted
from bench.machine.files import read_text, read_toml

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


MOST_LETTERS = 100  # of a name, which is part of a folder's
PROTOCOL_KEYS = ("name", "summary", "version", "source", "metric", "published", "images")
PROTOCOL_TABLES = ("differs", "settings")
COLLECTION_KEYS = ("summary", "datasets")


def register_toml(register: Callable[..., None], package: str, folder: str = "") -> None:
    """Register every dataset that a `.toml` file of a package's `folder` declares (UserError).

    `register` is the callback of the hook `register_datasets`, `package` usually `__name__`.
    """
    place = files(package).joinpath(folder) if folder else files(package)
    for file in _toml_files(place):
        register(**declared_fields(read_toml(file), str(file), place))


def register_protocols(register: Callable[..., None], package: str, folder: str) -> None:
    """Register the protocols that `.toml` files of a package's folder declare (UserError)."""
    for file in _toml_files(files(package).joinpath(folder)):
        fields = read_toml(file)
        refuse_unknown(fields, (*PROTOCOL_KEYS, *PROTOCOL_TABLES), str(file))
        if "name" not in fields:
            raise UserError(f"{file}: the key 'name' is missing.")
        fields["differs"] = tuple(fields.get("differs", ()))
        register(**fields)


def register_collections(register: Callable[..., None], package: str, name: str) -> None:
    """Register the collections that a package's TOML file declares, one per table (UserError)."""
    file = files(package).joinpath(name)
    for collection, fields in read_toml(file).items():
        if not isinstance(fields, Mapping):
            raise UserError(f"{file}: {collection} is not a table.")
        refuse_unknown(fields, COLLECTION_KEYS, f"{file}, [{collection}]")
        register(collection, **{**fields, "datasets": tuple(fields.get("datasets", ()))})


def _toml_files(folder: Traversable) -> list[Traversable]:
    toml = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return sorted(toml, key=lambda file: file.name)


def load_spec(path: Path, in_data: bool = False) -> DatasetSpec:
    """Return the dataset that a file declares (UserError).

    A declaration that the user names may name files and weights anywhere, which a warning lists.
    One that was found `in_data` may name only what lies in that folder, and neither a source with a
    network nor a backbone.
    """
    if path.is_dir():
        raise UserError(f"{quoted(str(path))} is a folder, and no TOML file.")
    if not path.is_file():
        raise UserError(f"There is no file {quoted(str(path))}.")
    try:
        folder = path.absolute().parent
        fields = declared_fields(read_toml(path), str(path), folder, in_data)
        return DatasetSpec(**fields, owner=str(path))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}.") from None


def declared_fields(
    table: dict[str, Any], where: str, folder: Traversable, in_data: bool | None = None
) -> dict[str, Any]:
    """Return the fields of `DatasetSpec` that a TOML file declares (UserError).

    Args:
        table: the file's keys and values; changed.
        where: the file, for messages.
        folder: the folder from which its names lead.
        in_data: see `load_spec`; None: the file belongs to an installed package.
    """
    check_keys(table, where)
    if len(table["name"]) > MOST_LETTERS:
        raise UserError(f"{where}: a name has at most {MOST_LETTERS} characters.")
    if in_data is not None and isinstance(folder, Path):
        check_places(table, where, folder, in_data)
    table |= {key: _lines(table[key], key, where, folder) for key in LISTS if key in table}
    for key in ("templates", "labels"):
        sets = table.get(key, {}).items()
        table[key] = {name: _lines(v, f"{key}.{name}", where, folder) for name, v in sets}
    counts = table.get("splits", {}).items()
    table["splits"] = splits = {name: None if n == UNKNOWN_COUNT else n for name, n in counts}
    if splits:
        evaluated = [name for name in ("test", "validation", "train") if name in splits]
        table.setdefault("split", [*evaluated, *splits][0])
    if isinstance(folder, Path) and is_path(table["source"]):
        table["source"] = str(Path(folder, table["source"]).absolute())
    check_texts(table, where)
    return table


def _lines(value: Any, key: str, where: str, folder: Traversable) -> tuple[str, ...]:
    """Return a list of texts: as written, or the lines of the text file that is named."""
    if isinstance(value, str):
        try:
            text = read_text(folder.joinpath(value))
        except (OSError, ValueError) as error:
            raise UserError(f"{where}: {key} = {quoted(value)} cannot be read: {error}.") from None
        value = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UserError(f"{where}: {key} must be a list of texts, or the name of a text file.")
    return tuple(value)
