"""`bench show`. Show a stored run: accuracy, classes, cost.

Group: Look at results, 1.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import click

from bench.cli.options import results_and_json
from bench.cli.output import (
    end_with_json,
    next_steps,
    results_argument,
    run_name,
    say,
    steps_after_run,
    wants_json,
)
from bench.cli.settings import metric_options
from bench.errors import UserError
from bench.machine.offline import offline
from bench.reports.figures.pictures import write_pictures
from bench.reports.measured import measure_run
from bench.reports.sentences import estimate_repeatability, noise_details
from bench.reports.terminal.run import print_measured, print_run, print_statistics
from bench.running.command import removed_from, reproducing_command
from bench.stats.agreement import audit_of
from bench.stats.metrics import INCOMPLETE, Statistics, statistics, summary_so_far
from bench.stats.probability import probability_skill
from bench.store.calibrations import find_calibrations
from bench.store.decisions import Decisions
from bench.store.fields import without_none
from bench.store.folder import find_run
from bench.store.questions import ending_answer, read_questions
from bench.store.runs import StoredRun, read_run
from bench.store.summary import read_again, read_swept

SECOND_RESULTS = "again"  # results folder that is suggested for making a run again


@click.command()
@click.argument("run")
@click.option("--pictures", is_flag=True, help="Draw confusion matrix and example images again.")
@click.option(
    "--statistics",
    "more",
    is_flag=True,
    help="Also show each class, the probability that answers are right, and other noise.",
)
@metric_options("Show only this metric, with its interval: see `bench list metrics`.")
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="RUN",
    help="Another run to compare with, or a CSV of answers: subject, sample_id, answer.",
)
@click.option("--by", help="Show the metric [accuracy] of each value of this column, or of each `group`.")
@results_and_json
@offline()
def show_command(
    run: str,
    pictures: bool,
    more: bool,
    metric: str | None,
    params: dict[str, str],
    others: tuple[str, ...],
    by: str | None,
    results: str,
) -> None:
    """Show RUN: a run id or a unique part of one, a run's folder, or `latest`.

    The metrics of an incomplete run are those of the images decided so far.
    """
    path = find_run(run, results)
    if metric is None and (params or others):
        raise UserError("--set and --with need --metric.")
    metric = metric or ("accuracy" if by else None)
    if metric is not None:
        rest = [Path(name) if Path(name).is_file() else find_run(name, results) for name in others]
        rows = measure_run(path, metric, params, rest, by)
        plain = {name: row if isinstance(row, str) else row.plain() for name, row in rows}
        end_with_json(plain if by else plain[""])
        print_measured(rows, by)
        return
    if pictures:
        write_pictures(path)
    stored = read_run(path)
    if wants_json():
        end_with_json({**_summary_json(stored, more, results), "results_dir": str(path.resolve())})
    manifest = stored.manifest
    decided = stored.require_decisions() if more else None
    print_run(path)
    if decided is not None:
        details = noise_details(manifest, decided)
        print_statistics(_statistics(stored, decided, results), details)
    if (removed := removed_from(manifest)) is not None:
        say(removed)
    name = run_name(path, results)
    if decided is None and not len(stored.decided()):
        if removed is None:
            resume = f"{reproducing_command(manifest)}{results_argument(results)}"
            next_steps(("resume it", resume))
        return
    steps = steps_after_run(name)[: 1 if more else 2]
    stated = manifest.identity.calibrated
    if removed is None and not manifest.replayed_from and (stated is None or stated.of is not None):
        again = f"{reproducing_command(manifest)} --results {SECOND_RESULTS}"
        steps.append(("repeat it in another folder", again))
        steps.append(
            ("compare the two", f"bench compare {name} {SECOND_RESULTS}/{manifest.run_id}")
        )
    next_steps(*steps)


def _summary_json(stored: StoredRun, more: bool, results: str) -> dict[str, object]:
    decided = stored.require_decisions() if more else stored.decided(top=True)
    if not len(decided):
        return {"run_id": stored.manifest.run_id, "status": INCOMPLETE}
    documents = without_none(
        statistics=_statistics(stored, decided, results) if more else None,
        again=read_again(stored.path, stored.manifest, decided),
        audit=audit_of(read_swept(stored.path, stored.manifest), stored.manifest, decided),
    )
    extra = {name: document.plain() for name, document in documents.items()}
    questions = read_questions(stored.path, stored.manifest)
    if questions:
        extra["questions"] = [question.plain() for question in questions]
    summary = summary_so_far(stored.manifest, stored.summary, decided)
    return {**summary.ended_by(ending_answer(questions, len(decided))).plain(), **extra}


def _statistics(stored: StoredRun, decided: Decisions, results: str) -> Statistics:
    manifest = stored.manifest
    folders = {Path(results), stored.path.parent}
    probable = probability_skill(
        decided, manifest, chain.from_iterable(map(find_calibrations, folders))
    )
    repeatable = estimate_repeatability(manifest, decided)
    return statistics(decided, manifest.classes, manifest.items, probable, repeatable)
