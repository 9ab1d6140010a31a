"""MkDocs hooks: add pages from outside docs/, adapt links, and generate the reference pages.

The README, which is the first page, the README of the results, the design notes, CONTRIBUTING and
the changelog stay where people and other tools expect them, and are added to the site. A link to a
file that is not a page of the site is replaced by its label, because the site is read without the
repository. The reference pages with all options and documents, and the files of the schemas, are
generated from the code.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from options import options
from schemas import schemas, tables
from third_parties import plugins

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs"
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/README.md": "results.md",
    "bench/cli/glossary.md": "glossary.md",
}
SCHEMAS = "reference/schemas"
# Placeholder → its content.
MADE = {"<!-- documents -->": tables, "<!-- options -->": options, "<!-- plugins -->": plugins}
# Traces of objects that are not text and of placeholders that were not replaced.
BROKEN = (
    r"Sentinel\.|\bUNSET\b|bench command\b|<class '|<function |object at 0x|\x08|::: "
    r"|<!-- (?:documents|options|plugins) -->"
)
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
TABLE_ROW = re.compile(r"^\|.*$", re.MULTILINE)
OPTION = re.compile(r"(<pre.*?</pre>|<[^>]*>)|--[a-z][a-z-]*", re.DOTALL)  # tags are skipped
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures from outside docs/, and the schemas."""
    for path in [*MOVED, *_within("results", "*.png"), *_within("design", "*")]:
        place = place_of(path)
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for name, text in schemas():
        files.append(File.generated(config, f"{SCHEMAS}/{name}", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapt the links of a page to the site, and replace placeholders."""
    source = Path(page.file.abs_src_path or "").resolve().relative_to(ROOT).as_posix()
    known = set(files.src_uris)
    parts = FENCE.split(markdown)
    parts[::2] = [
        with_plain_pipes(relink(text, source, page.file.src_uri, known)) for text in parts[::2]
    ]
    text = "".join(parts)
    for mark, made in MADE.items():
        text = text.replace(mark, made()) if mark in text else text
    return text


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep options such as `--batch-size` on one line: browsers break a line at hyphens."""
    return OPTION.sub(lambda match: match[1] or f'<span class="option">{match[0]}</span>', html)


def relink(text: str, source: str, page: str, known: set[str]) -> str:
    """Return `text` of the repository's file `source` with links relative to its `page`."""

    def relinked(match: re.Match[str]) -> str:
        picture, label, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = place_of(path)
        if place not in known:
            # mkdocs warns of links to files that do not exist.
            return label if (ROOT / path).exists() else match.group()
        link = posixpath.relpath(place, posixpath.dirname(page) or ".")
        return f"{picture}[{label}]({link}{anchor or ''})"

    return LINK.sub(relinked, text)


def with_plain_pipes(text: str) -> str:
    """Return `text` without backslashes before pipes in code in tables.

    GitHub needs them, because a bare pipe ends the cell, but mkdocs would show them.
    """

    def row(match: re.Match[str]) -> str:
        return re.sub(r"`[^`]*`", lambda code: code[0].replace(r"\|", "|"), match[0])

    return TABLE_ROW.sub(row, text)


def place_of(path: str) -> str:
    """Return the path of a file of the repository in the site."""
    if path in MOVED:
        return MOVED[path]
    return path.removeprefix(f"{DOCS}/")


def _within(folder: str, pattern: str) -> list[str]:
    paths = sorted(path for path in (ROOT / folder).glob(pattern) if path.is_file())
    return [path.relative_to(ROOT).as_posix() for path in paths]
