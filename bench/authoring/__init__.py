"""A complete plugin package, written from the templates beside this module."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench import __version__
from bench.discovery.loading import Plugins
from bench.discovery.registry import Registry
from bench.errors import UserError, quoted

Kind = Literal["dataset", "backbone", "strategy", "plugin"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PARTS = KINDS[:-1]  # a plugin package has one of each
PREFIX = "bench-"
MOST_LETTERS = 100  # of a name, which is part of a file's
_NAME = re.compile(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*")

# Template → the file it becomes. One that is named after a part is for packages with that part.
FILES = {
    "pyproject.toml.jinja": "pyproject.toml",
    "README.md.jinja": "README.md",
    "gitignore.jinja": ".gitignore",
    "workflow.yml.jinja": ".github/workflows/test.yml",
    "init.py.jinja": "src/{module}/__init__.py",
    "py.typed.jinja": "src/{module}/py.typed",
    "dataset.py.jinja": "src/{module}/dataset.py",
    "backbone.py.jinja": "src/{module}/backbone.py",
    "strategy.py.jinja": "src/{module}/strategy.py",
    "test.py.jinja": "tests/test_{module}.py",
}


@dataclass(frozen=True)
class Package:
    """A package that was written.

    Attributes:
        folder: where it lies.
        distribution: its name for pip.
        module: its name for Python.
        files: what was written, relative to `folder`.
    """

    folder: Path
    distribution: str
    module: str
    files: tuple[str, ...]


def write_package(kind: Kind, name: str, into: Path, plugins: Plugins) -> Package:
    """Write a package with one plugin, or one of each kind.

    Args:
        kind: what it registers.
        name: the name that it registers; the distribution is called `bench-NAME`.
        into: the folder that the package's folder is made in.
        plugins: what is installed, whose names are taken.

    Raises:
        UserError: the name cannot be used or is taken, or the folder cannot be written.
    """
    name = name.removeprefix(PREFIX)
    parts = PARTS if kind == "plugin" else (kind,)
    _check_name(name, parts, plugins)
    distribution = PREFIX + re.sub("[._]", "-", name)
    module = distribution.replace("-", "_")
    _check_module(module, distribution)
    folder = into / distribution
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another name, or another --into.")
    texts = dict(_render(name, distribution, module, parts))
    try:
        for file, text in texts.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}.") from None
    return Package(folder, distribution, module, tuple(texts))


def _check_name(name: str, parts: Iterable[str], plugins: Plugins) -> None:
    if len(name) > MOST_LETTERS:
        raise UserError(f"{quoted(name)} is too long to name a package: at most {MOST_LETTERS}.")
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{quoted(name)} cannot name a package: use lower case letters and digits, begin with a"
            " letter, and put single '-', '_' or '.' between words, such as my-flowers."
        )
    registries: dict[str, Registry[Any]] = {
        "dataset": plugins.datasets,
        "backbone": plugins.backbones,
        "strategy": plugins.strategies,
    }
    for part in parts:
        if name in registries[part]:
            owner = registries[part].owner(name)
            raise UserError(f"There is a {part} {name!r} already, in {owner}; choose another name.")


def _check_module(module: str, distribution: str) -> None:
    try:
        known = version(distribution)
    except PackageNotFoundError:
        known = None
    if known is not None or find_spec(module) is not None or keyword.iskeyword(module):
        raise UserError(
            f"A package {distribution} ({module}) is installed already; choose another name."
        )


def _render(
    name: str, distribution: str, module: str, parts: Iterable[str]
) -> Iterable[tuple[str, str]]:
    environment = Environment(
        loader=PackageLoader("bench.authoring"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    given = {
        "name": name,
        "distribution": distribution,
        "module": module,
        "title": "".join(word.capitalize() for word in re.split("[._-]", name)),
        "parts": tuple(parts),
        "toolkit": ".".join(__version__.split(".")[:2]),
    }
    for template, file in FILES.items():
        part = template.partition(".")[0]
        if part not in PARTS or part in given["parts"]:
            text = environment.get_template(template).render(given)
            yield file.format(module=module), text
