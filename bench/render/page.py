"""`bench report`: runs on one page that needs no network."""

from __future__ import annotations

import base64
import gc
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from bench import __version__
from bench.boards.formats import assignments
from bench.boards.text import visible
from bench.errors import UserError
from bench.machine.cache import write_atomically
from bench.render import figures
from bench.render.board import Board, Row, boards, reported_files, reported_rows, row_of
from bench.render.breakdown import by_class, by_confidence, by_timestep
from bench.render.gallery import Images, pictures
from bench.render.runs import RunData, read_run
from bench.stats.calibration import calibration_error
from bench.stats.metrics import confusion, worst_confusions

IMAGES = 240  # pictures on a page, shared among its runs
FEWEST = 12  # of one run
TABLE_CLASSES = 40  # of more classes, the confusion matrix is an image
DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, UndefinedError)


@dataclass(frozen=True)
class Section:
    """A run's part of the page: its `html` has the id `anchor`."""

    anchor: str
    run: RunData
    html: Markup


@dataclass
class Report:
    """A written page.

    Attributes:
        path: the file.
        size: bytes.
        runs: the ids of the runs on it.
        notes: (run or file, what is wrong with it), also said on the page.
    """

    path: Path
    size: int = 0
    runs: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def write_report(
    paths: Sequence[Path],
    out: Path,
    results: Path | None = None,
    data_dirs: Mapping[str, str] | None = None,
    most_images: int = IMAGES,
    notes: Iterable[tuple[str, str]] = (),
) -> Report:
    """Write the page of some runs.

    Args:
        paths: the runs' folders. One that cannot be read is named on the page, and left out.
        out: the page's file.
        results: the folder whose reported results stand beside the runs.
        data_dirs: where the images of a dataset lie; under "" those of all others.
        most_images: pictures on the page; 0: none.
        notes: what else was left out, as (name, reason).

    Raises:
        UserError: no run can be read, or the file cannot be written.
    """
    report = Report(out, notes=list(notes))
    images = Images(data_dirs or {})
    share = max(FEWEST, most_images // max(1, len(paths))) if most_images else 0
    sections: list[Section] = []
    rows: list[Row] = []
    for path in paths:
        anchor = f"run-{len(sections) + 1}"
        try:
            with _no_collection():
                run = read_run(path)
                row, section = row_of(run, anchor), describe(run, anchor, images, share)
        except UserError as error:
            report.notes.append((str(path), str(error)))
        except DAMAGE as error:
            report.notes.append((str(path), f"It is damaged: {type(error).__name__}: {error}"))
        else:
            rows.append(row)
            sections.append(section)
    if not sections:
        reasons = "".join(f"\n{name}: {reason}" for name, reason in report.notes)
        raise UserError(f"There is no run to report.{reasons}")
    for file in reported_files(results) if results else ():
        try:
            rows += reported_rows(file)
        except UserError as error:
            report.notes.append((str(file), str(error)))
    page = render(boards(rows), sections, report.notes)
    try:
        write_atomically(Path(os.path.realpath(out)), page)  # a link stays, its file is replaced
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error}.") from None
    report.size = len(page.encode())
    report.runs = [section.run.run_id for section in sections]
    return report


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from going over millions of new, living objects again and again.

    A report of 200,000 images with 1,000 classes takes 5.9 s of CPU without it and 9.9 s with it,
    start-up aside (the run of benchmarks/report.py).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def describe(run: RunData, anchor: str, images: Images, most_images: int) -> Section:
    """Return what the page says of a run: numbers, figures and pictures.

    Raises:
        DAMAGE: the run lacks something, or holds something else than runs do.
    """
    notes: list[str] = []
    matrix = confusion(run.records, len(run.classes))
    classes = by_class(matrix, run)
    confidence = np.array([r["confidence"] or 0.0 for r in run.records])
    correct = run.true == run.predicted
    bins = by_confidence(confidence, correct)
    curves = by_timestep(run)
    many = len(run.classes) > TABLE_CLASSES
    html = (
        _environment()
        .get_template("run.html")
        .render(
            run=run,
            summary=run.summary,
            anchor=anchor,
            marks=run.marks,
            params=assignments(run.summary.strategy.params),
            classes=classes,
            most_bars=figures.BARS,
            matrix=None if many else matrix,
            confusion_image=figures.confusion_image(matrix, f"{anchor}-confusion")
            if many
            else None,
            worst=worst_confusions(run.records, run.classes, most=10),
            bars=figures.class_bars(classes, f"{anchor}-classes"),
            bins=bins,
            calibration_error=calibration_error(confidence, correct),
            reliability=figures.reliability(bins, f"{anchor}-reliability"),
            curves=figures.error_curves(curves, f"{anchor}-curves") if curves else None,
            curve_images=curves.n_images if curves else 0,
            pictures=pictures(run, images, most_images, notes.append),
            mistakes=int((~correct).sum()),
            notes=notes,  # said by `pictures`, above
        )
    )
    return Section(anchor, run, Markup(html))


def render(
    board: Sequence[Board], sections: Sequence[Section], notes: Sequence[tuple[str, str]]
) -> str:
    """Return the page."""
    environment = _environment()
    script, style = (_source(environment, name) for name in ("report.js", "report.css"))
    page: str = environment.get_template("page.html").render(
        boards=[
            (b, figures.tradeoff(b.rows, f"board-{number}"))
            for number, b in enumerate(board, start=1)
        ],
        sections=sections,
        notes=notes,
        datasets=", ".join(dict.fromkeys(s.run.summary.dataset.name for s in sections)),
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        script=Markup(script),
        # The browser itself refuses any other script, and all network.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),
    )
    return page


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("bench.render"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    """Make what a template writes visible; Jinja escapes it for HTML afterwards."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
