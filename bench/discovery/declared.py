"""Registrations that are read from files: datasets in TOML, and classes with a literal `spec`.

A plugin package may consist of TOML files and the line `register_toml(register, __name__)`. The
`spec` of a class holds the fields of its registration; parameters are those of `__init__`, with
help texts from the docstring. Modules are parsed but not imported, so that `bench --help` and
listings do not import numpy.
"""

import ast
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from bench.contracts.parameters import LATER, Parameter
from bench.contracts.specs import DatasetSpec
from bench.contracts.typed import checks_types
from bench.discovery.declaration_checks import (
    LISTS,
    SETS,
    UNKNOWN_COUNT,
    check_keys,
    check_references,
    check_texts,
    is_path,
    refuse_unknown,
)
from bench.errors import UserError, quoted, refusing
from bench.machine.files import read_text, read_toml

_SPEC_LINE = re.compile(r"^    spec\b", re.MULTILINE)
_ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)  # in a docstring
# Names that annotations of parameters may use.
_TYPES = {
    **{kind.__name__: kind for kind in (bool, float, int, str, tuple)},
    **{"Annotated": Annotated, "LATER": LATER, "Literal": Literal},
}
MAX_NAME = 100  # characters, because names of folders contain it
COLLECTION_KEYS = ("summary", "datasets")
Origin = Literal["package", "user", "data"]  # a file of a package, named by the user, beside data


@checks_types
def register_modules(register: Callable[..., None], package: str) -> None:
    """Register every class with a literal `spec` in a package, usually `__name__`.

    The first paragraph of a class's docstring is its summary. Raises ValueError if a spec has no
    name, or is not a literal; if a parameter has no type or no default.
    """
    for file in sorted(files(package).iterdir(), key=lambda file: file.name):
        source = file.read_text("utf-8") if file.name.endswith(".py") else ""
        if not _SPEC_LINE.search(source):
            continue
        classes = {c.name: c for c in ast.parse(source).body if isinstance(c, ast.ClassDef)}
        for class_name, node in classes.items():
            if (spec := _spec_value(node)) is None:
                continue
            target = f"{package}.{file.name.removesuffix('.py')}:{class_name}"
            try:
                own = {"parameters": _parameters(node, classes), "summary": _summary(node)}
                fields = {**own, **ast.literal_eval(spec)}
                name = fields.pop("name")
            except (ValueError, NameError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{target}: spec must be a literal with a name, and each parameter must have a"
                    f" type and a literal default: {error}"
                ) from None
            register(name, target=target, **fields)


def _summary(node: ast.ClassDef) -> str:
    return " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())


def _spec_value(node: ast.ClassDef) -> ast.expr | None:
    for member in node.body:
        if isinstance(member, ast.Assign | ast.AnnAssign):
            target = member.target if isinstance(member, ast.AnnAssign) else member.targets[0]
            if ast.unparse(target) == "spec":
                return member.value
    return None


def _parameters(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, Parameter]:
    """Return the parameters of `__init__`, which may be inherited from a base in the module."""
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            help_texts = _argument_texts(ast.get_docstring(node) or "")
            positional = zip(member.args.args[1:], member.args.defaults, strict=True)
            by_name = zip(member.args.kwonlyargs, member.args.kw_defaults, strict=True)
            return {
                argument.arg: _parameter(argument, default, help_texts.get(argument.arg, ""))
                for argument, default in (*positional, *by_name)
            }
    names = map(ast.unparse, node.bases)
    bases = [classes[name] for name in names if name in classes]
    return _parameters(bases[0], classes) if bases else {}


def _parameter(argument: ast.arg, default: ast.expr | None, text: str) -> Parameter:
    if argument.annotation is None or default is None:
        raise ValueError(f"{argument.arg} has no type or no default")
    code = compile(ast.Expression(argument.annotation), argument.arg, "eval")
    annotation = eval(code, {"__builtins__": {}}, dict(_TYPES))
    later = LATER in get_args(annotation)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        members = tuple(part for part in get_args(annotation) if part is not NoneType)
        annotation = Union[members]  # noqa: UP007
    return Parameter(ast.literal_eval(default), text, type=annotation, later=later)


def _argument_texts(docstring: str) -> dict[str, str]:
    _, _, arguments = docstring.partition("\nArgs:\n")
    entries = _ARGUMENT.findall(arguments.partition("\n\n")[0])
    return {name: " ".join(text.split()).removesuffix(".") for name, text in entries}


@checks_types
def register_toml(register: Callable[..., None], package: str, folder: str = "") -> None:
    """Register every dataset that a `.toml` file of a package, usually `__name__`, declares.

    The files are in the package or in a `folder` of it; an invalid one raises a UserError.
    """
    place = files(package).joinpath(folder) if folder else files(package)
    for file in _toml_files(place):
        register(**declared_fields(read_toml(file), str(file), place))


def register_studies(register: Callable[..., None], package: str, folder: str) -> None:
    """Register the study in each `.toml` file in a folder of a package, under the file's name."""
    for file in _toml_files(files(package).joinpath(folder)):
        register(file.name.removesuffix(".toml"), file=file)


def register_collections(register: Callable[..., None], package: str, name: str) -> None:
    """Register the collections that a TOML file of a package declares, one per table."""
    file = files(package).joinpath(name)
    for collection, fields in read_toml(file).items():
        if not isinstance(fields, Mapping):
            raise UserError(f"{file}: {collection} must be a table, got {quoted(fields)}.")
        refuse_unknown(fields, COLLECTION_KEYS, f"{file}, [{collection}]")
        register(collection, **{**fields, "datasets": tuple(fields.get("datasets", ()))})


def _toml_files(folder: Traversable) -> list[Traversable]:
    toml = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    if not toml:  # a wheel leaves them out unless they are package data
        raise UserError(f"There is no TOML file in {folder}. Is it listed as package data?")
    return sorted(toml, key=lambda file: file.name)


def load_spec(path: Path, in_data: bool = False) -> DatasetSpec:
    """Return the dataset that a TOML file declares, with its references resolved.

    A file that came with the data (`in_data`) may refer only to files in its folder, and neither to
    an online source nor to a backbone. A file that the user named may refer to files and weights
    anywhere; a warning lists those outside its folder. Raises UserError if it is unreadable or
    invalid.
    """
    if path.is_dir():
        raise UserError(f"{quoted(str(path))} is a folder; expected a TOML file.")
    if not path.is_file():
        raise UserError(f"There is no file {quoted(str(path))}.")
    with refusing(f"{path}: ", ValueError, TypeError):
        folder = path.absolute().parent
        origin: Origin = "data" if in_data else "user"
        fields = declared_fields(read_toml(path), str(path), folder, origin)
        return DatasetSpec(**fields, owner=str(path))


def declared_fields(
    table: dict[str, Any], where: str, folder: Traversable, origin: Origin = "package"
) -> dict[str, Any]:
    """Return the fields of `DatasetSpec` that a TOML file declares; raise UserError if invalid.

    Names of text files are replaced by their lines, and a relative source by an absolute path; both
    are relative to `folder`. The number of images of a split is None if it is unknown. The default
    split is `test`, `validation`, `train` or the first, whichever exists.

    `table` is changed in place. The references of a file that the user named, or that came with
    data, are checked as `load_spec` says; those of an installed package are not.
    """
    check_keys(table, where)
    if len(table["name"]) > MAX_NAME:
        raise UserError(
            f"{where}: name must have at most {MAX_NAME} characters, got {len(table['name'])}."
        )
    if origin != "package" and isinstance(folder, Path):
        check_references(table, where, folder, in_data=origin == "data")
    table |= {key: _read_lines(table[key], key, where, folder) for key in LISTS if key in table}
    for key in SETS:
        sets = table.get(key, {}).items()
        table[key] = {name: _read_lines(v, f"{key}.{name}", where, folder) for name, v in sets}
    splits = dict(table.get("splits", {}))
    splits |= {name: None for name, count in splits.items() if count == UNKNOWN_COUNT}
    table["splits"] = splits
    if splits:
        preferred = [name for name in ("test", "validation", "train") if name in splits]
        table.setdefault("split", [*preferred, *splits][0])
    if isinstance(folder, Path) and is_path(table["source"]):
        table["source"] = str(Path(folder, table["source"]).absolute())
    check_texts(table, where)
    return table


def _read_lines(value: Any, key: str, where: str, folder: Traversable) -> tuple[str, ...]:
    """Return a list of texts, or the non-empty lines of the text file that `value` names."""
    if isinstance(value, str):
        with refusing(f"{where}: {key} = {quoted(value)} cannot be read: ", OSError, ValueError):
            text = read_text(folder.joinpath(value))
        value = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UserError(f"{where}: {key} must be a list of texts or the name of a text file.")
    return tuple(value)
