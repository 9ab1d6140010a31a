"""The pages of `bench view`: map a path and a query to HTML or a picture.

A query filters, sorts and paginates runs and images.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import numpy as np
from markupsafe import Markup

from bench.contracts.strategy import Floats, Ints
from bench.errors import UserError
from bench.reports.facts import Column, Fact, Mark, assignments
from bench.reports.figures.gallery import Picture, make_pictures
from bench.reports.html import environment, read_template
from bench.reports.inventory import InventoryRow
from bench.reports.page.page import make_section
from bench.reports.rows import accuracy_fact
from bench.reports.run_view import RunView
from bench.reports.text import Table, make_table
from bench.stats.calibration.probability import known_probabilities
from bench.stats.inference.paired import changed_samples
from bench.store.columns import read_columns
from bench.store.formats.decisions import Decisions
from bench.view.stored import LOADED, ListedStudy, Stamp, Stored, read_stamp

RUNS_PER_PAGE, PICTURES_PER_PAGE, PAIRS_PER_PAGE = 100, 60, 30
ODD_BYTES = "surrogateescape"  # folder names need not be UTF-8

Row = TypeVar("Row")
Query = dict[str, str]


@dataclass(frozen=True)
class RowsPage(Generic[Row]):
    """One page of many rows."""

    rows: Sequence[Row]
    total: int  # number of rows on all pages
    page: int  # number of this page, from 1 on
    pages: int  # at least 1


def paginate(rows: Sequence[Row], number: str | None, size: int) -> RowsPage[Row]:
    """Return page `number`, clamped to the existing pages."""
    pages = max(1, -(-len(rows) // size))
    wanted = int(number) if number and number.isdecimal() and len(number) < 10 else 1
    page = min(max(1, wanted), pages)
    return RowsPage(rows[(page - 1) * size : page * size], len(rows), page, pages)


def address(path: str, query: Query, **changes: str | int | None) -> str:
    """Return an address with changed query values; None or "" removes one."""
    values = {**query, **{k: "" if v is None else str(v) for k, v in changes.items()}}
    kept = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(kept, errors=ODD_BYTES)}" if kept else path


# Column → sort key; rows whose key is None come last.
RUN_COLUMNS: dict[str, Callable[[InventoryRow], Any]] = {
    "run": lambda row: row.run_id,
    "accuracy": lambda row: row.accuracy,  # a phone shows the first columns alone
    "images": lambda row: row.n_samples,
    "status": lambda row: row.state,
    "dataset": lambda row: f"{row.dataset}/{row.split}",
    "cost": lambda row: row.cost,
    "started": lambda row: row.created,
}
_FIRST_DOWN = ("accuracy", "images", "started")  # sorted from the largest at first


def next_order(column: str, query: Query) -> str:
    """Return the sort order, `up` or `down`, that a click on the column's heading selects."""
    first = "down" if column in _FIRST_DOWN else "up"
    if query.get("sort") != column:
        return first
    return {"up": "down", "down": "up"}.get(query.get("order", first), first)


def select_runs(lines: Sequence[InventoryRow], query: Query) -> list[InventoryRow]:
    """Return the runs that match the query's words, status and tag, sorted as it says."""
    words = query.get("find", "").lower().split()
    status, tag = query.get("status", ""), query.get("tag", "")
    matching = [
        line
        for line in lines
        if status in ("", line.status, line.state)
        and (not tag or tag in line.tags)
        and all(word in _searchable_text(line) for word in words)
    ]
    column = query.get("sort", "started")
    value = RUN_COLUMNS.get(column, RUN_COLUMNS["started"])
    down = query.get("order", "down" if column in _FIRST_DOWN else "up") == "down"
    valued = [line for line in matching if value(line) is not None]
    others = [line for line in matching if value(line) is None]
    return [*sorted(valued, key=value, reverse=down), *others]


def _searchable_text(row: InventoryRow) -> str:
    facts = (row.run_id, row.dataset, row.split, row.backbone, row.strategy, row.labels)
    return " ".join(filter(None, (*facts, assignments(row.differs)))).lower()


def select_samples(
    decided: Decisions,
    classes: Sequence[str],
    query: Query,
    columns: Mapping[str, Mapping[str, str]],
) -> Ints:
    """Return the rows of the images that match the query, int64, in its order.

    By default these are the mistakes with the widest margins first. `columns` are further labels,
    name → sample id → label, to which the query's `column` and `value` apply.
    """
    show = query.get("show", "wrong")
    choices = {"wrong": ~decided.correct, "right": decided.correct, "failed": decided.failed}
    kept = choices.get(show, np.ones(len(decided), bool))
    for name, column in (("true", decided.labels), ("predicted", decided.predictions)):
        if query.get(name):
            wanted = classes.index(query[name]) if query[name] in classes else -9  # no image's
            kept = kept & (column == wanted)
    if (labels := columns.get(query.get("column", ""))) is not None and query.get("value"):
        value = query["value"]
        kept = kept & [labels.get(s) == value for s in decided.sample_ids.to_pylist()]
    rows = np.flatnonzero(kept)
    order = query.get("sort", "widest")
    if order == "order":
        return rows
    if order == "cost":
        return rows[np.argsort(-decided.equivalents[rows], kind="stable")]
    margins = np.nan_to_num(decided.margins[rows])
    return rows[np.argsort(margins if order == "closest" else -margins, kind="stable")]


HTML = "text/html; charset=utf-8"
STATUSES = ("complete", "running", "incomplete", "failed_samples", "unreadable")
STUDIES: list[Column[ListedStudy]] = [
    Column(
        "study", lambda s: Fact("", s.folder.name, link=address("/study", {}, study=s.folder.name))
    ),
    Column("runs complete", lambda s: s.progress),
    Column("failed", lambda s: s.study and s.study.failed, "count"),
    Column("changed", lambda s: s.study and s.study.updated[:16].replace("T", " ")),
]


@dataclass(frozen=True)
class Response:
    """An HTTP response: a page, a part of one, or a file."""

    content: bytes
    kind: str = HTML
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """ETag, a hash of the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def _status(row: InventoryRow) -> Fact:
    errata = {"errata": Mark(row.errata_marks)} if row.errata_marks else {}
    return Fact("", "", marks={str(row.status): Mark(row.state), **errata})


class Pages:
    """Answers requests; all but pictures one at a time, since matplotlib and runs are shared."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._turn = Lock()
        self._templates = environment("bench.view")
        self._templates.globals["address"] = address
        self._section = lru_cache(LOADED)(self._describe)
        self._routes: dict[str, Callable[[Query], Response]] = {
            "/": self.runs,
            "/run": self.run,
            "/compare": self.compare,
            "/study": self.study,
            "/picture": self.picture,
            "/favicon.ico": lambda _: Response(b"", "image/x-icon"),  # browsers ask on their own
            "/view.css": lambda _: _read_files("report.css", "view.css", kind="text/css"),
            "/view.js": lambda _: _read_files("view.js", kind="text/javascript"),
        }

    def answer(self, path: str, query: Query) -> Response:
        """Return the page at a path, or an error page."""
        route = self._routes.get(path)
        if route is None:
            return self.problem(404, "There is no such page.")
        try:
            if route == self.picture:
                return route(query)
            with self._turn:
                return route(defaultdict(str, query))  # templates read missing keys
        except UserError as error:
            return self.problem(404, str(error))

    def problem(self, code: int, text: str) -> Response:
        """Return the page of an error."""
        return self._page("problem.html", title="Not found", text=text, code=code)

    def runs(self, query: Query) -> Response:
        """Return the page of all runs."""
        lines = self.stored.lines()
        page = paginate(select_runs(lines, query), query.get("page"), RUNS_PER_PAGE)
        return self._live(
            "runs",
            query,
            title="Runs",
            results=self.stored.results,
            all=len(lines),
            studies=make_table("Studies", STUDIES, self.stored.studies().values()),
            part=page,
            table=self._table_of_runs(page.rows, query),
            orders={name: next_order(name, query) for name in RUN_COLUMNS},
            statuses=STATUSES,
            tags=sorted({tag for line in lines for tag in line.tags}),
        )

    def _table_of_runs(self, rows: Sequence[InventoryRow], query: Query) -> Table:
        """Return the table of some runs; a phone shows its first columns alone."""
        columns: list[Column[InventoryRow]] = [
            Column("run", self._run_fact),
            Column("accuracy", accuracy_fact, "share"),
            Column("images", lambda row: row.images),
            Column("status", _status),
            Column("dataset", lambda row: f"{row.dataset}/{row.split}" if row.dataset else None),
            Column("cost", lambda row: row.spent("evaluations"), "cost"),
            Column("started", lambda row: row.age),
            Column("against", lambda row: self._against(row, query)),
        ]
        return make_table("Runs", columns, rows)

    def _run_fact(self, row: InventoryRow) -> Fact:
        name = str(row.run_id) + (f" shard {row.shard}" if row.shard else "")
        differs = row.error or assignments(row.differs)
        note = " · ".join(filter(None, [differs, row.stopped, row.labels]))
        link = address("/run", {}, run=self.stored.key(row))
        return Fact("run", name, note=note, link=link, command=row.command or "")

    def _against(self, row: InventoryRow, query: Query) -> Fact | None:
        """Return the link that compares a run with the baseline, or makes it the baseline."""
        key, base = self.stored.key(row), query.get("base")
        if not row.n_samples:
            return None
        if base == key:
            return Fact("", "the baseline")
        if base:
            return Fact("", "compare", link=address("/compare", {}, a=base, b=key))
        return Fact("", "compare with…", link=address("/", query, base=key))

    def run(self, query: Query) -> Response:
        """Return the page of a run: its results and its images."""
        key = query.get("run", "")
        row = self.stored.line(key)
        if query.get("live") or not row.n_samples:
            return self._live("run", query, title=row.run_id, **_line(row))
        run, row = self.stored.page_of(key)
        folders = (run.path, *(calibration.path for calibration in self.stored.calibrations()))
        section = self._section(key, *map(read_stamp, folders))
        images = self._images(run, key, query)
        return self._live("run", query, title=row.run_id, section=section, **images, **_line(row))

    def _describe(self, key: str, *stamps: Stamp) -> Markup:
        """Return the section of a run; it is cached until one of the stamps changes."""
        run, calibrated = self.stored.run(key), self.stored.calibrations()
        return make_section(run, "run", self.stored.images, 0, calibrated=calibrated).html

    def _images(self, run: RunView, key: str, query: Query) -> dict[str, object]:
        """Return the values of the template of a run's images."""
        columns: dict[str, dict[str, str]] = {}
        warning = ""
        try:
            columns = read_columns(run.path, run.manifest)
        except UserError as error:  # the run itself is readable
            warning = str(error)
        rows = select_samples(run.decided, run.classes, query, columns)
        page = paginate(rows.tolist(), query.get("page"), PICTURES_PER_PAGE)
        probable = known_probabilities(run.decided, run.manifest, self.stored.calibrations())
        pictures = _link_pictures(run, page.rows, key, probable)
        shown = {"part": page, "pictures": pictures}
        return {"run": run, "columns": columns, "warning": warning, **shown}

    def compare(self, query: Query) -> Response:
        """Return the page of two runs: their comparison, and the images on which they differ."""
        a, b = query.get("a", ""), query.get("b", "")
        comparison = self.stored.comparison(a, b)
        run_a, run_b = self.stored.run(a), self.stored.run(b)
        rows = changed_samples(run_a.decided, run_b.decided, query.get("show", "changed"))
        pairs = list(zip(*(side.tolist() for side in rows), strict=True))  # (row in A, row in B)
        page = paginate(pairs, query.get("page"), PAIRS_PER_PAGE)
        of_a = _link_pictures(run_a, [row for row, _ in page.rows], a)
        of_b = _link_pictures(run_b, [row for _, row in page.rows], b)
        return self._page(
            "compare.html",
            title="Run against run",
            query=query,
            comparison=comparison,
            part=page,
            shown=list(zip(of_a, of_b, strict=True)),
        )

    def study(self, query: Query) -> Response:
        """Return the page of a study: its tables, and the forest plot."""
        name = query.get("study", "")
        shown = self.stored.study(name)
        return self._live("study", query, title=f"Study {name}", study=shown, anchor="study")

    def picture(self, query: Query) -> Response:
        """Return the picture of an image of a run."""
        name = query.get("sample", "")
        with self._turn:
            manifest = self.stored.run(query.get("run", "")).manifest
        image = self.stored.images.of(manifest, [name]).get(name)
        if image is None or image.kind is None:
            raise UserError(f"{name!r} is not in the data, or cannot be decoded.")
        kept = {"Cache-Control": "private, max-age=600"}
        return Response(image.content, image.kind, headers=kept)

    def _live(self, name: str, query: Query, **values: Any) -> Response:
        """Return a page, or if the query has `live`, only its part that is updated regularly."""
        live = query.pop("live", "")
        values = {"query": query, **values}
        part = Response(self._templates.get_template(f"{name}-live.html").render(**values).encode())
        if live:
            return part
        values |= {"live": Markup(part.content.decode()), "tag": part.tag}
        return self._page(f"{name}-page.html", **values)

    def _page(self, template: str, *, code: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(template).render(**values)
        return Response(html.encode(), code=code)


def _line(row: InventoryRow) -> dict[str, object]:
    """Return the values of the template of a run's line."""
    return {"row": row, "accuracy": accuracy_fact(row).text, "images": row.images}


def _link_pictures(
    run: RunView, rows: Sequence[int], key: str, probable: Floats | None = None
) -> list[Picture]:
    def source(name: str) -> tuple[str, bool]:
        return address("/picture", {"run": key, "sample": name}), False

    return make_pictures(run, np.array(rows, np.int64), source, probable)


def _read_files(*names: str, kind: str) -> Response:
    text = "\n".join(read_template(name, "bench.view") for name in names)
    return Response(text.encode(), f"{kind}; charset=utf-8")
