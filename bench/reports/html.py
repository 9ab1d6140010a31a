"""HTML: the templates of all pages, and tables as pages or as parts of a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bench.reports.text import (
    Table,
    escape_hidden,
    escape_html,
    prose_html,
    to_csv,
    to_latex,
    to_markdown,
)

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(*packages: str) -> Environment:
    """Return a Jinja environment whose templates are in these packages or else in the report's."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    from bench.reports.comparisons import comparison_facts, comparison_tables

    templates = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, "bench.reports.page")]),
        autoescape=True,
        finalize=_escape_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "prose": lambda text: Markup(prose_html(text)),
        "whole": keep_interval,
    }
    templates.globals |= {
        "comparison_facts": comparison_facts,
        "comparison_tables": comparison_tables,
        "Table": Table,
        "zip": zip,
    }
    return templates


def render_template(name: str, **values: Any) -> str:
    """Return a template of the report with these values as HTML."""
    return environment().get_template(name).render(values)


def read_template(name: str, *packages: str) -> str:
    """Return the source of a template, such as a style sheet."""
    templates = environment(*packages)
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _escape_controls(value: object) -> object:
    """Escape the control characters in a value; Jinja escapes its HTML afterwards."""
    return value if isinstance(value, Markup) else escape_hidden(value)


def keep_interval(text: str) -> Markup:
    """Return a value as HTML; a browser does not break its interval, such as `(80–91)`."""
    value, space, interval = escape_html(text).partition(" (")
    return Markup(f'{value} <span class="whole">({interval}</span>' if space else value)


def to_html(tables: Iterable[Table], title: str | None = None) -> str:
    """Return tables as a self-contained HTML page or, without a title, as a part of one."""
    return render_template("tables.html", tables=list(tables), title=title)


def format_tables(tables: Sequence[Table], form: str, title: str = "") -> str:
    """Return tables as `markdown`, `csv` or `latex`, or as an `html` page with a title."""
    if form == "html":
        return to_html(tables, title)
    return {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}[form](tables)
