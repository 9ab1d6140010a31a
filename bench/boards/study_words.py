"""What a study's statistics mean, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from bench.boards.study_report import StudyMethod, StudyReport
from bench.stats.crossed import FEW
from bench.stats.many import Difference


def notes(report: StudyReport, margin: float | None) -> list[str]:
    """Return what a reader must know of a study, a sentence or two each."""
    said = _progress(report)
    for board in dict.fromkeys(method.board for method in report.methods):
        methods = [method for method in report.methods if method.board == board]
        said.append(f"{board}: {moved(methods)}")
        if (count := report.looks.get(board)) is not None:
            said.append(
                f"{board} was looked at {count} time{'s' if count != 1 else ''}: so many runs with"
                " settings of their own are finished on it. The best of many looks is partly luck."
            )
    found = [one for board in report.differences for one in board.differences]
    if found:
        said.append(_tested(found, margin))
        said += equal_pairs(report)
    return said


def _progress(report: StudyReport) -> list[str]:
    waiting = report.cells - report.done - sum(row.status == "failed" for row in report.rows)
    parts = [f"{report.done} of {report.cells} runs are complete"]
    if report.failed:
        parts.append(f"{report.failed} failed or have images that did")
    if waiting:
        parts.append(f"{waiting} are not: what is shown of them is of the images decided so far")
    return [f"{', '.join(parts)}."] if waiting or report.failed else []


def moved(methods: Sequence[StudyMethod]) -> str:
    """Return what moves the accuracy of the methods of one dataset, on average over them."""
    parts = []
    for what, name in (("another seed", "of_seeds"), ("another template", "of_templates")):
        found = [by for m in methods if (by := getattr(m.spread, name)) is not None]
        if found:
            parts.append((what, sum(found) / len(found)))
    images = sum(m.spread.of_images for m in methods) / len(methods)
    parts.append(("other images", images))
    first, by = parts[0]
    verb = "moves" if first != "other images" else "move"
    words = [f"{first} {verb} accuracy by {100 * by:.1f} points"]
    words += [f"{what} by {100 * by:.1f}" for what, by in parts[1:]]
    said = f"{'; '.join(words)} (one standard deviation, the mean over methods)."
    counts = {m.spread.seeds for m in methods}
    if counts == {1}:
        said += " Every interval is over images alone, for the noise of its one seed."
    elif few := sorted(count for count in counts if 1 < count < FEW):
        said += f" Over {few[0]} seeds, intervals are rough."
    elif 1 in counts:
        said += " Of methods with one seed, the interval is over images alone."
    return said


def _tested(found: Sequence[Difference], margin: float | None) -> str:
    many = f"all {len(found)} differences" if len(found) > 1 else "the one difference"
    how = "McNemar's exact test of two runs, a paired permutation test of several"
    said = (
        "Methods that do not differ significantly share a rank"
        f" ({how}; 5 %, corrected for {many} by Holm)."
    )
    if margin is None:
        return f"{said} That is not to say that they are equal."
    return f"{said} Equal, by two one-sided tests, is within ± {100 * margin:g} points:"


def equal_pairs(report: StudyReport, most: int = 8) -> list[str]:
    """Return the pairs that are shown to be equal; the empty list where no margin is set."""
    tested = [
        (board.board, one)
        for board in report.differences
        for one in board.differences
        if one.p_equal is not None
    ]
    if not tested:
        return []
    equal = [f"{board}: {one.a} and {one.b}" for board, one in tested if one.equal]
    if not equal:
        return ["no pair is shown to be equal."]
    more = f", and {len(equal) - most} more" if len(equal) > most else ""
    return [f"{'; '.join(equal[:most])}{more}."]
