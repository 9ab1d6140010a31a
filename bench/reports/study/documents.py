"""The report of a study as a document, with notes that explain its statistics."""

from pydantic import Field

from bench.contracts.parameters import Parameters
from bench.discovery.queries import metric_specs
from bench.reports.facts import Fact, metric_unit
from bench.reports.study.methods import StudyRow
from bench.reports.study.shifts import Change, CorruptionErrors
from bench.stats.inference.difference_tests import MethodDifference, Rank
from bench.stats.inference.shares import Estimate
from bench.stats.inference.variance import MIN_SEEDS, Over, Spread
from bench.store.formats.fields import Count, Document, FullDocument, Positive
from bench.store.studies import BoardStanding, StudyHead
from bench.store.summary import WorstGroup

MANY = 5  # runs of which the best is partly luck


class StudyMethod(Document):
    """One method on one dataset."""

    board: str  # dataset and split
    method: str  # name: its values on all axes except those of the data and those in `over`
    axes: dict[str, str]  # axis → value
    trained_on: str | None  # `dataset/split`; None: zero-shot
    runs: Positive  # number of runs used
    declared: Positive  # number of runs that the study declares
    spread: Spread  # accuracy and its sources of variation
    tested: Spread | None = None  # the same for the tested metric; None: it is the accuracy
    balanced_accuracy: float | None  # mean over the runs; None of items, which have no classes
    cost: float  # evaluation equivalents per image, mean over the runs
    tflop: float | None = None  # 10¹² floating-point operations per image, mean over the runs
    seconds_per_image: float | None  # scoring time per image in seconds, mean over the runs
    worst_group: WorstGroup | None = None  # group of images with the lowest accuracy
    rank: Rank | None = None  # range of its places by significant differences; None: not ranked
    looks: Count | None = None  # number of finished runs on this test split; None: no test split

    @property
    def shown(self) -> Spread:
        """Spread of the tested metric, which tables and figures show."""
        return self.tested or self.spread


class BoardDifferences(Document):
    """Differences between methods on one dataset."""

    board: str  # dataset and split
    metric: str  # metric that is compared
    differences: list[MethodDifference]  # one per pair of methods


class StudyReport(StudyHead, FullDocument):
    """Results and statistics of a study, as printed by `bench study FILE --show --json`."""

    over: list[str]  # axes, of `seed` and `template`, over which runs are pooled
    metric: str = "accuracy"  # metric whose differences are tested
    metric_parameters: Parameters = Field({})  # parameters of the metric that the user set
    tests_over: Over = "images"  # population of tests and intervals: images, or also seeds
    cells: Count  # number of declared runs
    done: Count  # number of complete runs
    failed: Count  # number of runs that failed or have failed images
    rows: list[StudyRow]  # one row per declared run
    methods: list[StudyMethod]  # methods, each pooled over seeds and templates
    differences: list[BoardDifferences]  # differences between the methods, by dataset
    changes: list[Change] = Field([])  # changes of methods under shifts, and their differences
    corruption: list[CorruptionErrors] = Field([])  # errors of each method on corrupted images
    looks: dict[str, Count] = Field({})  # test split → finished runs on it, in the results folder
    answers: dict[str, str] = Field({})  # dataset and split → sentence that answers the question
    reading: str = ""  # how to read intervals, tests and ranks
    notes: list[str] = Field([])  # further facts, in sentences


def explained(report: StudyReport, margin: float | None) -> StudyReport:
    """Return a report with its answers, how to read it, and notes.

    Differences below `margin` count as equal; None: equality was not tested.
    """
    if report.stop is not None:
        answers = {of.board: _standing_answer(report, of, margin) for of in report.standings}
        reading = _stop_promise(report, margin) if report.standings else ""
    else:
        texts = ((of.board, _board_answer(report, of, margin)) for of in report.differences)
        answers = {board: text for board, text in texts if text}
        reading = _tests(report) if report.methods else ""
    update = {"answers": answers, "reading": reading, "notes": _notes(report, margin)}
    return report.model_copy(update=update)


def _board_answer(report: StudyReport, board: BoardDifferences, margin: float | None) -> str:
    """Return the difference of a board's two best methods in a sentence; "" without one."""
    first, *others = [m.method for m in report.methods if m.board == board.board] or [""]
    pairs = {frozenset((pair.a, pair.b)): pair for pair in board.differences}
    if not others or (pair := pairs.get(frozenset((first, others[0])))) is None:
        return ""
    metric = metric_specs()[report.metric]
    unit = metric_unit(metric, difference=True)
    gain = Estimate(pair.difference.estimate, pair.difference.interval)  # B − A
    gain = gain if pair.b == first else -gain
    number, _, ends = Fact("", gain.value, unit, gain.interval).text.partition(" ")
    number += " points" if unit == "points" else ""
    verdict = "shown to differ" if pair.different else "not shown to differ"
    if pair.equal and margin is not None:
        within = f"within ±{100 * margin:g}"
        verdict = f"shown to differ, {within}" if pair.different else f"shown to be equal {within}"
    better = [o for o in others if (p := pairs.get(frozenset((first, o)))) and p.different]
    rest = ""
    if len(others) > 1 and metric.sign:
        rest = f"; it is shown to be better than {len(better)} of {len(others)} others"
    return f"{first} against {others[0]}: {number} {ends}, {verdict}{rest}."


def _standing_answer(report: StudyReport, board: BoardStanding, margin: float | None) -> str:
    """Return what ended a study on a dataset."""
    used = f"{board.images:,} of {board.total:,} images"
    best = next((m.method for m in board.methods if m.verdict == "best"), None)
    if not board.decided:
        return f"{board.board}: not decided after {used}."
    if report.stop == "ranked":
        equal = f", or equality within {100 * margin:g} points" if margin else ""
        return f"{board.board}: the order of all methods{equal} is shown after {used}."
    within = f" or within {100 * margin:g} points of the best" if margin else ""
    return f"{board.board}: {best} is the best{within}, shown after {used}."


def _stop_promise(report: StudyReport, margin: float | None) -> str:
    """Return how far the result of a study with a stopping rule can be trusted."""
    wrong = "the method named is not a best one"
    if report.stop == "ranked":
        wrong = "the order or an equality of any pair is wrong"
    elif margin:
        wrong = "the method named is neither a best one nor within the margin of it"
    return (
        f"On each dataset, {wrong} in at most 5 % of such studies, for these seeds and templates"
        " and other images. `bench explain stopping rule` says more."
    )


def _tests(report: StudyReport) -> str:
    """Return which tests and intervals the tables have; the glossary has the rest."""
    pairs = [pair.difference for board in report.differences for pair in board.differences]
    methods, metric = {pair.method for pair in pairs}, metric_specs()[report.metric]
    over = "other images, for these seeds and templates"
    if report.tests_over == "seeds":
        test, over = "t tests with crossed images and seeds", "other images and seeds"
        if any(m.spread.seeds < MIN_SEEDS for m in report.methods):
            over += f" (images alone for fewer than {MIN_SEEDS} seeds)"
    elif methods & {"influence", "approximate"}:
        test = "z tests of influence values" + ", approximate" * ("approximate" in methods)
    elif metric.mean_over_images:
        test = "McNemar's exact, or a permutation test of several runs"
    else:
        test = "permutation tests"
    holm = f"Tests: {test}; 5 %, Holm over {len(pairs)}. " if pairs else ""
    return f"{holm}Intervals: 95 %, over {over}. `bench explain difference` says more."


def _notes(report: StudyReport, margin: float | None) -> list[str]:
    """Return further facts: the progress, how often test images were used, and on equality."""
    waiting = report.cells - report.done - sum(row.status == "failed" for row in report.rows)
    parts = [f"{report.done} of {report.cells} runs are complete"]
    if report.failed:
        parts.append(f"{report.failed} failed or have failed images")
    if waiting:
        parts.append(f"{waiting} are not, and are shown with the images decided so far")
    texts = [f"{', '.join(parts)}."] if waiting or report.failed else []
    for board in dict.fromkeys(method.board for method in report.methods):
        if (count := report.looks.get(board)) is not None:
            runs, have = ("runs", "have") if count != 1 else ("run", "has")
            texts.append(
                f"{board}: {count} {runs} with different settings {have} finished on this test"
                f" split.{' The best of many runs is partly luck.' * (count >= MANY)}"
            )
    if report.differences and margin is None:
        texts.append("--margin 0.02 tests which methods are equal within 2 points.")
    return texts
