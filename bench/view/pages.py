"""The pages of `bench view`: an address in, HTML or a picture out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import numpy as np
from markupsafe import Markup

from bench.boards.formats import assignments
from bench.errors import UserError
from bench.render.gallery import picture
from bench.render.inventory import age
from bench.render.page import describe
from bench.render.runs import RunData
from bench.render.templating import environment, source
from bench.stats.probability import known_probabilities
from bench.store.arrow import indices
from bench.store.folder import read_records
from bench.view.queries import (
    PICTURES,
    RUN_COLUMNS,
    RUNS,
    Query,
    address,
    changed_samples,
    chosen_runs,
    chosen_samples,
    opposite,
    part,
)
from bench.view.stored import Stored

HTML = "text/html; charset=utf-8"
STATUSES = ("complete", "incomplete", "failed_samples", "unreadable")


@dataclass(frozen=True)
class Answer:
    """What goes back: a page, a part of one, or a file."""

    content: bytes
    kind: str = HTML
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """What tells whether the content is another one."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


class Pages:
    """Answers addresses. One at a time, since matplotlib and the loaded runs are shared.

    A picture is waited for by whoever asked for it, and by nobody else.

    Args:
        stored: the runs.
    """

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._turn = Lock()
        self._templates = environment("bench.view")
        self._routes: dict[str, Callable[[Query], Answer]] = {
            "/": self.runs,
            "/run": self.run,
            "/compare": self.compare,
            "/study": self.study,
            "/picture": self.picture,
            "/view.css": lambda _: _file("report.css", "view.css", kind="text/css"),
            "/view.js": lambda _: _file("view.js", kind="text/javascript"),
        }

    def answer(self, path: str, query: Query) -> Answer:
        """Return what stands at an address; what is wrong with it is a page, too."""
        route = self._routes.get(path)
        if route is None:
            return self.problem(404, "There is no such page.")
        try:
            if route == self.picture:
                return route(query)
            with self._turn:
                return route(defaultdict(str, query))  # a template asks for what is not there, too
        except UserError as error:
            return self.problem(404, str(error))

    def problem(self, code: int, text: str) -> Answer:
        """Return the page that says what is wrong."""
        return self._page("problem.html", title="Not found", text=text, code=code)

    def runs(self, query: Query) -> Answer:
        """All runs."""
        lines = self.stored.lines()
        found = part(chosen_runs(lines, query), query.get("page"), RUNS)
        now = datetime.now(UTC)
        return self._live(
            "runs",
            query,
            title="Runs",
            results=self.stored.results,
            all=len(lines),
            studies=self.stored.studies(),
            part=found,
            columns={name: opposite(name, query) for name in RUN_COLUMNS},
            statuses=STATUSES,
            ages={line.key: age(line.row, now) for line in found.rows},
            differs={line.key: assignments(line.row.differs) for line in found.rows},
        )

    def run(self, query: Query) -> Answer:
        """One run: what came of it, and its images."""
        key = query.get("run", "")
        line = self.stored.line(key)
        if query.get("live"):
            return self._live("run", query, line=line)
        if not line.row.done:
            return self._live("run", query, title=line.row.run_id, line=line, section="", rest="")
        run, path = self.stored.run(key), self.stored.path(key)
        known = self.stored.calibrations()
        section = self.stored.keep(
            ("section", path),
            (path, *(one.path for one in known)),
            lambda: describe(run, "run", self.stored.images, 0, calibrated=known).html,
        )
        return self._live(
            "run",
            query,
            title=line.row.run_id,
            line=line,
            section=section,
            rest=self._images(run, key, query),
        )

    def _images(self, run: RunData, key: str, query: Query) -> Markup:
        """Return a page of a run's images."""
        rows = chosen_samples(run.decided, run.classes, query)
        found = part(rows.tolist(), query.get("page"), PICTURES)
        ids = _ids(run, found.rows)
        failed = any(run.decided.failed[row] for row in found.rows)
        records = read_records(run.path) if failed else {}
        known = self.stored.calibrations()
        probable = known_probabilities(run.decided, run.manifest, known)
        pictures = [
            picture(
                run,
                row,
                name,
                records.get(name, {}).get("error") or "",
                _uri(key, name),
                probable=probable,
            )
            for row, name in zip(found.rows, ids, strict=True)
        ]
        html = self._templates.get_template("images.html").render(
            run=run,
            query=query,
            address=address,
            part=found,
            pictures=pictures,
        )
        return Markup(html)

    def compare(self, query: Query) -> Answer:
        """One run against another, and the images on which they differ."""
        a, b = query.get("a", ""), query.get("b", "")
        found = self.stored.comparison(a, b)
        one, other = self.stored.run(a), self.stored.run(b)
        rows_a, rows_b = changed_samples(one.decided, other.decided, query.get("show", "changed"))
        pairs = part(
            list(zip(rows_a.tolist(), rows_b.tolist(), strict=True)), query.get("page"), 30
        )
        ids = _ids(one, [row for row, _ in pairs.rows])
        shown = [
            (picture(one, of_a, name, uri=_uri(a, name)), picture(other, of_b, name))
            for (of_a, of_b), name in zip(pairs.rows, ids, strict=True)
        ]
        return self._page(
            "compare.html",
            title="Run against run",
            query=query,
            address=address,
            found=found,
            part=pairs,
            shown=shown,
        )

    def study(self, query: Query) -> Answer:
        """One study: its tables, and the forest plot."""
        name = query.get("study", "")
        shown = self.stored.study(name)
        return self._live("study", query, title=f"Study {name}", study=shown, anchor="study")

    def picture(self, query: Query) -> Answer:
        """The picture of an image of a run."""
        name = query.get("sample", "")
        with self._turn:
            manifest = self.stored.run(query.get("run", "")).manifest
        found = self.stored.images.of(manifest, [name]).get(name)
        if found is None or found.kind is None:
            raise UserError(f"{name!r} is not in the data, or is no picture.")
        return Answer(found.content, found.kind, headers={"Cache-Control": "private, max-age=600"})

    def _live(self, name: str, query: Query, **values: Any) -> Answer:
        """Return a page, or where the address says so only its part that changes by itself."""
        live = query.pop("live", "")
        values = {"query": query, "address": address, **values}
        part = Answer(self._templates.get_template(f"{name}-live.html").render(**values).encode())
        if live:
            return part
        values |= {"live": Markup(part.content.decode()), "tag": part.tag}
        return self._page(f"{name}-page.html", **values)

    def _page(self, template: str, *, code: int = 200, **values: Any) -> Answer:
        html = self._templates.get_template(template).render(**values)
        return Answer(html.encode(), code=code)


def _ids(run: RunData, rows: Sequence[int]) -> list[str]:
    found: list[str] = run.decided.sample_ids.take(indices(np.array(rows, np.int64))).to_pylist()
    return found


def _uri(key: str, sample_id: str) -> str:
    return address("/picture", {"run": key, "sample": sample_id})


def _file(*names: str, kind: str) -> Answer:
    text = "\n".join(source(name, "bench.view") for name in names)
    return Answer(text.encode(), f"{kind}; charset=utf-8")
