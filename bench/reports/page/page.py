"""Write the self-contained HTML page of `bench report`."""

import base64
import gzip
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from markupsafe import Markup

from bench import __version__
from bench.errors import UserError
from bench.machine.files import write_atomically, writing
from bench.reports.classes import class_table, confusion_matrix
from bench.reports.facts import Mark
from bench.reports.figures import plots
from bench.reports.figures.gallery import ON_PAPER, PICTURES_AT_ONCE, load_pictures
from bench.reports.figures.images import Images
from bench.reports.html import read_template, render_template
from bench.reports.leaderboard.board import Board, legend, make_boards, row_labels
from bench.reports.leaderboard.ranking import rank_boards
from bench.reports.leaderboard.rows import REPORTED, all_reported, board_row
from bench.reports.page.sections import (
    MOST_INTERVALS,
    MOST_RUNS,
    BoardPart,
    blind_table,
    page_question,
)
from bench.reports.run_facts import averages, cost_fact, description, errata, images_fact, scores
from bench.reports.run_metric import read_requested_run
from bench.reports.run_view import RunView
from bench.reports.sentences import make_opening, probability_sentence, risk_sentence, risk_warning
from bench.reports.study.figures import StudyPart, find_studies
from bench.reports.text import with_subject
from bench.running.command import recording_command
from bench.stats.calibration.probability import known_probabilities, probability_skill
from bench.stats.metrics.summarise import confusions_of, per_class, worst_confusions
from bench.store.calibrations import Calibrated, find_calibrations
from bench.store.runs import read_runs

MAX_PICTURES = 240  # on a page, shared among its runs
MIN_PICTURES = 12  # per run
MAX_PROMPTS = 200  # shown per run
MAX_OPEN = 100  # runs in the page's HTML; the others are unpacked on demand
# What reading or rendering the files of a damaged run may raise.
DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, UndefinedError)


@dataclass(frozen=True)
class Section:
    """A run's section of the page, with its id in the page."""

    anchor: str
    run: RunView
    html: Markup


@dataclass(frozen=True)
class WrittenReport:
    """The size of a written page, its runs, and the runs and files that it lacks."""

    size: int  # bytes
    runs: list[str]  # ids of the runs on the page
    notes: list[tuple[str, str]]  # (run or file that was left out, reason)


def write_report(
    paths: Sequence[Path],
    out: Path,
    results: Path | None = None,
    data_dirs: Mapping[str, str] | None = None,
    most_images: int = MAX_PICTURES,
    notes: Iterable[tuple[str, str]] = (),
    metric: tuple[str, Mapping[str, Any]] | None = None,
    label: tuple[str, str] | None = None,
) -> WrittenReport:
    """Write the page of the runs in the folders `paths` to the file `out`.

    Unreadable runs are left out and listed on the page, together with `notes`, (name, reason).
    `metric`, (name, parameters), is shown for runs that have the data it needs. With `label`,
    (column, value), the page covers only images that have this further label. Reported results and
    studies are read from the folder `results`; `data_dirs` maps a dataset to the folder of its
    images. UserError if no run can be read or the file cannot be written.
    """
    reasons = list(notes)
    images = Images(data_dirs or {})
    images_per_run = max(MIN_PICTURES, most_images // max(1, len(paths))) if most_images else 0
    sections: list[Section] = []
    calibrated = list(find_calibrations(results)) if results else []

    def left_out(path: Path, error: UserError) -> None:
        reasons.append((str(path), str(error)))

    for stored in read_runs(paths, left_out):
        anchor = f"run-{len(sections) + 1}"
        try:
            run = read_requested_run(stored, metric, label, left_out)
            section = make_section(run, anchor, images, images_per_run, len(paths) == 1, calibrated)
        except UserError as error:
            left_out(stored.path, error)
        except DAMAGE as error:
            left_out(stored.path, UserError(f"It is damaged: {type(error).__name__}: {error}"))
        else:
            sections.append(section)
            if len(paths) > MOST_RUNS and run.stored.complete:
                # Free the memory of the decisions: those of the best runs are read again.
                vars(run).pop("decided", None)
    if not sections:
        raise UserError("\n".join(["There is no run to report.", *starmap(with_subject, reasons)]))
    reported = list(all_reported([results], left_out)) if results else []
    rows = rank_boards([*(board_row(section.run) for section in sections), *reported])
    boards = make_boards(rows, metric[0] if metric else None)
    boards = [b for b in boards if any(line.row.kind != REPORTED for line in b.lines)]
    ids = [section.run.manifest.run_id for section in sections]
    studies = find_studies(results, set(ids), left_out) if results else []
    page = render(boards, sections, reasons, studies)
    with writing(f"--out {out}"):
        write_atomically(Path(os.path.realpath(out)), page)  # a link stays, its file is replaced
    return WrittenReport(len(page.encode()), ids, reasons)


def make_section(
    run: RunView,
    anchor: str,
    images: Images,
    most_images: int,
    alone: bool = False,
    calibrated: Sequence[Calibrated] = (),
) -> Section:
    """Return a run's section of the page, with at most `most_images` pictures.

    If the run is `alone` on the page, the section has no opening sentences, since the page begins
    with them.
    """
    decided, row, risk = run.decided, board_row(run), run.manifest.identity.calibrated
    classes = [] if run.manifest.items else per_class(decided, run.classes)
    # The lowest recall first, and classes without images last.
    classes.sort(key=lambda c: (c.recall is None, c.recall))
    probability = probability_skill(decided, run.manifest, calibrated)
    curves, course = plots.errors_by_timestep(run), plots.find_course(run)
    notes: list[str] = []  # why pictures are missing
    probable = known_probabilities(decided, run.manifest, calibrated)
    pictures = load_pictures(run, images, most_images, notes.append, probable)
    html = render_template(
        "run.html",
        run=run,
        figures=[*scores(run), cost_fact(run), images_fact(run), *averages(run)[:1]],
        facts=[*errata(run), *description(run)],
        summary=run.summary,
        anchor=anchor,
        opening=None if alone else make_opening(run),
        marks={kind: Mark(mark.full) for kind, mark in row_labels(row).items()},
        again=row.command,
        recording=recording_command(run.manifest),
        most_prompts=MAX_PROMPTS,
        classes=class_table(classes, bars=True),
        prompts=_prompts(run),
        matrix=confusion_matrix(decided, run.classes),
        worst=worst_confusions(confusions_of(decided), run.classes, most=10),
        risk=risk_sentence(risk, run.manifest.sweep, run.summary),
        risk_warning=risk_warning(run.audit, risk),
        probability=probability and probability_sentence(probability),
        worth=probability and plots.draw_reliability(probability).inline(f"{anchor}-worth"),
        curves=curves and plots.draw_errors(curves).inline(f"{anchor}-curves"),
        course=course,
        course_figure=course and plots.draw_course(course).inline(f"{anchor}-course"),
        curve_images=curves.n_images if curves else 0,
        pictures=pictures,
        at_once=PICTURES_AT_ONCE,
        on_paper=ON_PAPER,
        mistakes=int((~decided.correct).sum()),
        notes=notes,
    )
    return Section(anchor, run, Markup(html))


def _prompts(run: RunView) -> list[tuple[str, str]]:
    """Return (class, text) of each of the first `MAX_PROMPTS` prompts."""
    names = dict(enumerate(run.classes))
    shown = run.manifest.prompts[:MAX_PROMPTS]
    # Nodes of a hierarchy above the classes have prompts too.
    return [(names.get(index, "an inner node"), text) for text, index in shown]


def render(
    boards: Sequence[Board],
    sections: Sequence[Section],
    notes: Sequence[tuple[str, str]],
    studies: Sequence[StudyPart] = (),
) -> str:
    """Return the HTML of the page; sections after the first `MAX_OPEN` are packed into a script."""
    anchors = {str(section.run.path): section.anchor for section in sections}
    further = Markup("\n").join(section.html for section in sections[MAX_OPEN:])
    packed = base64.b64encode(gzip.compress(further.encode(), mtime=0)).decode() if further else ""
    script, style = read_template("report.js"), read_template("report.css")
    return render_template(
        "page.html",
        ranked=legend(),
        parts=[BoardPart(board, anchors) for board in boards],
        anchors=anchors,
        sections=sections,
        open_sections=sections[:MAX_OPEN],
        packed=packed,
        question=page_question([section.run for section in sections]),
        most_intervals=MOST_INTERVALS,
        most_runs=MOST_RUNS,
        studies=studies,
        blind=blind_table(section.run for section in sections),
        notes=notes,
        datasets=", ".join(dict.fromkeys(s.run.summary.dataset.name for s in sections)),
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        script=Markup(script),
        # With this hash, the browser blocks all other scripts and the network.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),
    )
