"""HTML: the templates of all pages, and tables as pages or as parts of a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.reports.comparisons import comparison_facts, comparison_tables
from bench.reports.text import Table, escape_hidden, escape_html, to_csv, to_latex, to_markdown


@cache
def environment(*packages: str) -> Environment:
    """Return a Jinja environment: templates of these packages, then those of the report."""
    templates = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, "bench.reports.page")]),
        autoescape=True,
        finalize=_escape_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"prose": prose_html, "whole": keep_interval}
    templates.globals |= {
        "comparison_facts": comparison_facts,
        "comparison_tables": comparison_tables,
        "make_table": make_plain_table,
        "zip": zip,
    }
    return templates


def read_template(name: str, *packages: str) -> str:
    """Return the source of a template, such as a style sheet."""
    templates = environment(*packages)
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _escape_controls(value: object) -> object:
    """Escape control characters of a template's values; Jinja escapes HTML afterwards."""
    return value if isinstance(value, Markup) else escape_hidden(value)


def prose_html(text: object) -> Markup:
    """Return a sentence as HTML, with what stands in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escape_html(text)))


def keep_interval(text: str) -> Markup:
    """Return a value as HTML whose interval, in parentheses, is not broken into lines."""
    value, space, interval = escape_html(text).partition(" (")
    return Markup(f'{value} <span class="whole">({interval}</span>' if space else value)


def make_plain_table(head: list[str], rows: Sequence[Sequence[str | int]], *right: str) -> Table:
    """Return a table without a title, for templates; the columns `right` are numbers."""
    return Table("", head, rows, frozenset(right))


def html_part(*tables: Table) -> str:
    """Return tables with their headings and paragraphs as an HTML fragment, without a page."""
    return environment().get_template("tables.html").render(tables=tables, title=None)


def to_html(tables: Iterable[Table], title: str) -> str:
    """Return tables as a self-contained HTML page."""
    return environment().get_template("tables.html").render(tables=list(tables), title=title)


def format_tables(tables: Sequence[Table], form: str, title: str = "") -> str:
    """Return tables as `markdown`, `csv` or `latex`, or as an `html` page with a title."""
    if form == "html":
        return to_html(tables, title)
    return {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}[form](tables)
