"""Write plugin packages from templates, for `bench new`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from bench import __version__
from bench.discovery.loading import Plugins
from bench.discovery.registry import Registry
from bench.errors import UserError, quoted
from bench.machine.files import writing

Kind = Literal["dataset", "backbone", "strategy", "metric", "plugin"]
PACKAGE_KINDS: tuple[Kind, ...] = get_args(Kind)
PLUGIN_KINDS = PACKAGE_KINDS[:-1]  # a package of kind `plugin` has one of each
PREFIX = "bench-"
MAX_NAME_LENGTH = 100  # the name becomes part of file names
_NAME = re.compile(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*")


@dataclass(frozen=True)
class Package:
    """A written package: its names for pip and Python, and its files relative to `folder`."""

    folder: Path
    distribution: str
    module: str
    files: tuple[str, ...]


def write_package(kind: Kind, name: str, into: Path, plugins: Plugins) -> Package:
    """Write the package `bench-NAME` into a folder, with one plugin or one of each kind.

    `plugins` are the installed ones, whose names cannot be used again. UserError if the name is
    invalid or taken, or the folder cannot be written.
    """
    name = name.removeprefix(PREFIX)
    kinds = PLUGIN_KINDS if kind == "plugin" else (kind,)
    _check_name(name, kinds, plugins)
    distribution = PREFIX + re.sub("[._]", "-", name)
    module = distribution.replace("-", "_")
    installed = any(distributions(name=distribution))
    if installed or find_spec(module) is not None:
        raise UserError(
            f"A package {distribution} ({module}) is installed already; choose another name."
        )
    folder = into / distribution
    if folder.exists():
        raise UserError(f"{folder} already exists; choose another name, or another --into.")
    texts = dict(_render(name, distribution, module, kinds))
    with writing(folder):
        for file, text in texts.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8", newline="\n")
    return Package(folder, distribution, module, tuple(texts))


def _check_name(name: str, kinds: Iterable[str], plugins: Plugins) -> None:
    if len(name) > MAX_NAME_LENGTH:
        raise UserError(f"{quoted(name)} is too long to name a package: at most {MAX_NAME_LENGTH}.")
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{quoted(name)} cannot name a package: use lower case letters and digits, begin with a"
            " letter, and put single '-', '_' or '.' between words, such as my-flowers."
        )
    for kind in kinds:
        plural = "strategies" if kind == "strategy" else f"{kind}s"
        registry: Registry[Any] = getattr(plugins, plural)
        if name in registry:
            owner = registry.owner(name)
            raise UserError(f"There is a {kind} {name!r} already, in {owner}; choose another name.")


def _render(
    name: str, distribution: str, module: str, kinds: tuple[str, ...]
) -> Iterable[tuple[str, str]]:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench.authoring"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    variables = {
        "name": name,
        "distribution": distribution,
        "module": module,
        "title": "".join(word.capitalize() for word in re.split("[._-]", name)),
        "parts": kinds,
        "toolkit": ".".join(__version__.split(".")[:2]),
    }
    for template in environment.list_templates(["jinja"]):
        file = template.removesuffix(".jinja").replace("dot_", ".").format(module=module)
        stem = Path(file).stem  # the kind of plugin, of a file that only this kind has
        if stem not in PLUGIN_KINDS or stem in kinds:
            yield file, environment.get_template(template).render(variables)
