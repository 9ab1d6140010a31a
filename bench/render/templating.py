"""The templates of pages: every name that they write is made visible and escaped."""

from __future__ import annotations

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.boards.text import visible


@cache
def environment(*packages: str) -> Environment:
    """Return the templates of some packages, and below them the report's."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, "bench.render")]),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source(name: str, *packages: str) -> str:
    """Return a template's text as it is, such as a style sheet."""
    templates = environment(*packages)
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _shown(value: object) -> object:
    """Make what a template writes visible; Jinja escapes it for HTML afterwards."""
    return value if isinstance(value, Markup) else visible(value)
