"""`bench show`. Show a stored run: accuracy, classes, cost.

Group: Look at results, 1.
"""

from itertools import chain
from pathlib import Path
from typing import Annotated

from pydantic import JsonValue

from bench.cli.command import METRIC, Params, Results, command, end_with_json, wants_json
from bench.cli.output import named_run, next_steps, results_argument, run_name, say, steps_after_run
from bench.reports.run_metric import measure_run
from bench.reports.run_view import RunView, read_view
from bench.reports.sentences import estimate_repeatability, noise_details
from bench.reports.terminal.run import print_measured, print_run, print_statistics
from bench.running.command import removed_from, reproducing_command
from bench.stats.calibration.probability import probability_skill
from bench.stats.metrics.summarise import INCOMPLETE, Statistics, statistics
from bench.store.calibrations import find_calibrations
from bench.store.formats.fields import without_none
from bench.store.shipped import is_published

SECOND_RESULTS = "again"  # results folder that is suggested for making a run again


@command(local=True, needs={"--set": "--metric", "--with": "--metric"})
def show_command(
    run: str,
    *,
    pictures: Annotated[bool, "Draw confusion matrix and example images again."],
    with_statistics: Annotated[
        bool,
        "Also show each class, the probability that answers are right, and other noise.",
        "--statistics",
    ],
    metric: Annotated[
        str | None, "Show only this metric, with its interval: see `bench list metrics`.", METRIC
    ],
    params: Params,
    others: Annotated[
        tuple[str, ...],
        "Another run to compare with, or a CSV of answers: subject, sample_id, answer.",
        "--with",
        {"metavar": "RUN"},
    ],
    by: Annotated[
        str | None,
        "Show the metric [accuracy] of each value of this column, or of each `group`.",
    ],
    results: Results,
) -> None:
    """Show RUN: a run id or a unique part of one, a run's folder, or `latest`.

    The metrics of an incomplete run are those of the images decided so far.
    """
    path = named_run(run, results)
    view = read_view(path)
    if metric is not None or by is not None:
        raters = [Path(n) if Path(n).is_file() else named_run(n, results) for n in others]
        rows = measure_run(view, metric or "accuracy", params, raters, by)
        plain = {name: row if isinstance(row, str) else row.plain() for name, row in rows}
        end_with_json(plain if by else plain[""])
        print_measured(rows, by)
        return
    if pictures:
        from bench.reports.figures.run_pictures import write_pictures

        write_pictures(path)
    if with_statistics:
        view.stored.require_decisions()
    if wants_json():
        place = {"results_dir": str(path.resolve()), "published": is_published(path)}
        end_with_json({**_summary_json(view, with_statistics, results), **place})
    print_run(view)
    if with_statistics:
        details = noise_details(view.manifest, view.decided)
        print_statistics(_statistics(view, results), view.summary.decided_by, details)
    if (removed := removed_from(view.manifest)) is not None:
        say(removed)
    if steps := _steps(view, with_statistics, removed is None, results):
        next_steps(*steps)


def _steps(
    run: RunView, statistics_shown: bool, repeatable: bool, results: str
) -> list[tuple[str, str]]:
    """Return next steps; `repeatable` is whether a command can make the run again."""
    manifest, name = run.manifest, run_name(run.path, results)
    if not run.n:
        resume = f"{reproducing_command(manifest)}{results_argument(results)}"
        return [("resume it", resume)] if repeatable else []
    see_pictures, see_statistics = steps_after_run(name)
    steps = [see_pictures] if statistics_shown else [see_pictures, see_statistics]
    identity, risk = manifest.identity, manifest.identity.calibrated
    # In another folder, no other run would be found that this one was calibrated or chosen by.
    apart = identity.candidates is None and (risk is None or risk.of is not None)
    if repeatable and apart and not manifest.replayed_from:
        again = f"{reproducing_command(manifest)} --results {SECOND_RESULTS}"
        other = f"{SECOND_RESULTS}/{manifest.run_id}"
        steps.append(("repeat it in another folder", again))
        steps.append(("compare the two", f"bench compare {name} {other}"))
    return steps


def _summary_json(run: RunView, with_statistics: bool, results: str) -> dict[str, JsonValue]:
    """Return the summary of the decided images, with further documents that the run has."""
    if run.so_far is None:
        return {"run_id": run.manifest.run_id, "status": INCOMPLETE}
    shown = _statistics(run, results) if with_statistics else None
    documents = without_none(statistics=shown, again=run.again, audit=run.audit)
    extra: dict[str, JsonValue] = {name: part.plain() for name, part in documents.items()}
    if run.errata:
        extra["errata"] = [touch.plain() for touch in run.errata]
    if run.questions:
        extra["questions"] = [question.plain() for question in run.questions]
    return {**run.so_far.ended_by(run.stop).plain(), **extra}


def _statistics(run: RunView, results: str) -> Statistics:
    manifest, decided = run.manifest, run.decided
    calibrations = chain.from_iterable(map(find_calibrations, {Path(results), run.path.parent}))
    probability = probability_skill(decided, manifest, calibrations)
    repeatability = estimate_repeatability(manifest, decided)
    return statistics(decided, manifest.classes, manifest.items, probability, repeatability)
