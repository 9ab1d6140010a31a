"""The pages of `bench view`: map a path and a query to HTML or a picture."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from markupsafe import Markup

from bench.contracts.strategy import Floats
from bench.errors import UserError
from bench.reports.facts import Column, Fact
from bench.reports.figures.gallery import Picture, make_pictures
from bench.reports.formats import assignments
from bench.reports.html import environment, read_template
from bench.reports.inventory import InventoryRow
from bench.reports.page.page import make_section
from bench.reports.rows import accuracy_fact
from bench.reports.run_view import RunView
from bench.reports.terminal.leaderboard import age
from bench.reports.text import Table, make_table
from bench.stats.paired import changed_samples
from bench.stats.probability import known_probabilities
from bench.store.columns import read_columns
from bench.view.queries import (
    PICTURES,
    RUN_COLUMNS,
    RUNS,
    Query,
    address,
    next_order,
    paginate,
    select_runs,
    select_samples,
)
from bench.view.stored import LOADED, ListedStudy, Stamp, Stored, read_stamp

HTML = "text/html; charset=utf-8"
STATUSES = ("complete", "incomplete", "failed_samples", "unreadable")
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


class Pages:
    """Answers requests, all but pictures one at a time: matplotlib and loaded runs are shared."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._turn = Lock()
        self._templates = environment("bench.view")
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
        page = paginate(select_runs(lines, query), query.get("page"), RUNS)
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
        now = datetime.now(UTC)
        columns: list[Column[InventoryRow]] = [
            Column("run", self._run_fact),
            Column("accuracy", accuracy_fact, "share"),
            Column("images", lambda row: row.images),
            Column("status", lambda row: Fact("", "", marks={str(row.status): row.state})),
            Column("dataset", lambda row: f"{row.dataset}/{row.split}" if row.dataset else None),
            Column("cost", lambda row: row.cost, "cost"),
            Column("started", lambda row: age(row, now)),
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
        live = {"row": row, "accuracy": accuracy_fact(row).text, "images": row.images}
        if query.get("live"):
            return self._live("run", query, **live)
        if not row.n_samples:
            return self._live("run", query, title=row.run_id, section="", rest="", **live)
        run, path = self.stored.run(key), self.stored.path(key)
        calibrations = self.stored.calibrations()
        files = (path, *(calibration.path for calibration in calibrations))
        section = self._section(key, *map(read_stamp, files))
        rest = self._images(run, key, query)
        return self._live("run", query, title=row.run_id, section=section, rest=rest, **live)

    def _describe(self, key: str, *stamps: Stamp) -> Markup:
        run, calibrated = self.stored.run(key), self.stored.calibrations()
        return make_section(run, "run", self.stored.images, 0, calibrated=calibrated).html

    def _images(self, run: RunView, key: str, query: Query) -> Markup:
        columns: dict[str, dict[str, str]] = {}
        warning = ""
        try:
            columns = read_columns(run.path, run.manifest)
        except UserError as error:  # the run itself is readable
            warning = str(error)
        rows = select_samples(run.decided, run.classes, query, columns)
        page = paginate(rows.tolist(), query.get("page"), PICTURES)
        probable = known_probabilities(run.decided, run.manifest, self.stored.calibrations())
        pictures = _link_pictures(run, page.rows, key, probable)
        template = self._templates.get_template("images.html")
        return Markup(
            template.render(
                run=run,
                query=query,
                address=address,
                part=page,
                pictures=pictures,
                columns=columns,
                warning=warning,
            )
        )

    def compare(self, query: Query) -> Response:
        """Return the page of two runs: their comparison, and the images on which they differ."""
        a, b = query.get("a", ""), query.get("b", "")
        comparison = self.stored.comparison(a, b)
        run_a, run_b = self.stored.run(a), self.stored.run(b)
        rows = changed_samples(run_a.decided, run_b.decided, query.get("show", "changed"))
        page = paginate(
            list(zip(*(side.tolist() for side in rows), strict=True)), query.get("page"), 30
        )
        of_a = _link_pictures(run_a, [row for row, _ in page.rows], a)
        of_b = _link_pictures(run_b, [row for _, row in page.rows], b)
        return self._page(
            "compare.html",
            title="Run against run",
            query=query,
            address=address,
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
        return Response(
            image.content, image.kind, headers={"Cache-Control": "private, max-age=600"}
        )

    def _live(self, name: str, query: Query, **values: Any) -> Response:
        """Return a page, or only the part of it that keeps itself up to date (`live=1`)."""
        live = query.pop("live", "")
        values = {"query": query, "address": address, **values}
        part = Response(self._templates.get_template(f"{name}-live.html").render(**values).encode())
        if live:
            return part
        values |= {"live": Markup(part.content.decode()), "tag": part.tag}
        return self._page(f"{name}-page.html", **values)

    def _page(self, template: str, *, code: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(template).render(**values)
        return Response(html.encode(), code=code)


def _link_pictures(
    run: RunView, rows: Sequence[int], key: str, probable: Floats | None = None
) -> list[Picture]:
    def source(name: str) -> tuple[str, bool]:
        return address("/picture", {"run": key, "sample": name}), False

    return make_pictures(run, np.array(rows, np.int64), source, probable)


def _read_files(*names: str, kind: str) -> Response:
    text = "\n".join(read_template(name, "bench.view") for name in names)
    return Response(text.encode(), f"{kind}; charset=utf-8")
