"""What a study's statistics mean, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from bench.boards.study.report import StudyMethod, StudyReport
from bench.contracts.metrics import METRICS
from bench.stats.crossed import LEAST_SEEDS
from bench.stats.many import Difference, ranking


def notes(report: StudyReport, margin: float | None) -> list[str]:
    """Return what a reader must know of a study, a sentence or two each."""
    said = _progress(report)
    for board in dict.fromkeys(method.board for method in report.methods):
        methods = [method for method in report.methods if method.board == board]
        said.append(f"{board}: {moved(methods, METRICS[report.metric].words)}")
        if (count := report.looks.get(board)) is not None:
            said.append(
                f"{board} was looked at {count} time{'s' if count != 1 else ''}: so many runs with"
                " settings of their own are finished on it. The best of many looks is partly luck."
            )
    if report.methods:
        said.append(_over(report))
    found = [one for board in report.differences for one in board.differences]
    if found:
        said.append(_tested(found, report))
        said.append(_equal(report, margin))
    return said


def _progress(report: StudyReport) -> list[str]:
    waiting = report.cells - report.done - sum(row.status == "failed" for row in report.rows)
    parts = [f"{report.done} of {report.cells} runs are complete"]
    if report.failed:
        parts.append(f"{report.failed} failed or have images that did")
    if waiting:
        parts.append(f"{waiting} are not: what is shown of them is of the images decided so far")
    return [f"{', '.join(parts)}."] if waiting or report.failed else []


def moved(methods: Sequence[StudyMethod], metric: str = "accuracy") -> str:
    """Return what moves the metric of the methods of one dataset, on average over them."""
    parts = []
    for what, name in (("another seed", "of_seeds"), ("another template", "of_templates")):
        found = [by for m in methods if (by := getattr(m.shown, name)) is not None]
        if found:
            parts.append((what, sum(found) / len(found)))
    images = sum(m.shown.of_images for m in methods) / len(methods)
    parts.append(("other images", images))
    first, by = parts[0]
    verb = "moves" if first != "other images" else "move"
    words = [f"{first} {verb} {metric} by {100 * by:.1f} points"]
    words += [f"{what} by {100 * by:.1f}" for what, by in parts[1:]]
    return f"{'; '.join(words)} (one standard deviation, the mean over methods)."


def _over(report: StudyReport) -> str:
    """Return what intervals, tests and ranks are over, and what they are not."""
    if report.tests_over == "seeds":
        few = any(m.spread.seeds < LEAST_SEEDS for m in report.methods)
        alone = f" (of methods with fewer than {LEAST_SEEDS} seeds, over images alone)"
        return (
            "Intervals, tests and ranks are over other images and other seeds, for these"
            f" templates{alone if few else ''}."
        )
    return (
        "Intervals, tests and ranks are over other images, for these seeds and templates. Whether a"
        ' difference holds for other seeds is another question: over = "seeds" in the study\'s file'
        f" asks it, of {LEAST_SEEDS} seeds or more."
    )


def _tested(found: Sequence[Difference], report: StudyReport) -> str:
    how = "McNemar's exact test of two runs, a permutation test of several"
    agree = "p is at most 0.05 exactly where the 95 % interval excludes 0"
    if report.tests_over == "seeds":
        how = "a t test of images and seeds that are crossed"
    elif report.metric != "accuracy":
        how, agree = "a permutation test", "the 95 % interval contains 0 wherever p is above 0.05"
    return f"Of one difference alone ({how}), {agree}. {ranking('methods', len(found))}"


def _equal(report: StudyReport, margin: float | None, most: int = 8) -> str:
    """Return which methods are shown to be equal."""
    if margin is None:
        return "--margin 0.02 tests which methods are equal, within 2 points."
    within = f"within ± {100 * margin:g} points (two one-sided tests, 5 %, Holm)"
    equal = [
        f"{one.a} and {one.b} on {board.board}"
        for board in report.differences
        for one in board.differences
        if one.equal
    ]
    if not equal:
        return f"No two methods are shown to be equal {within}; not significant is not equal."
    more = f"; and {len(equal) - most} more" if len(equal) > most else ""
    return f"Shown to be equal {within}: {'; '.join(equal[:most])}{more}."
