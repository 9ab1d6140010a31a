"""The report of a study: its documents, and what its statistics mean in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from bench.boards.study.corruption import CorruptionErrors
from bench.boards.study.rows import StudyRow
from bench.discovery.loading import metric_specs
from bench.stats.crossed import LEAST_SEEDS, Over, Spread
from bench.stats.many import Difference, MeanRanks, Robustness, ranking
from bench.store.fields import Amount, Count, Document, FullDocument, Number, Positive
from bench.store.studies import BoardStanding
from bench.store.summary import Group

MOST_PAIRS_NAMED = 8  # equal pairs that a note names


class StudyMethod(Document):
    """One method on one dataset."""

    board: str  # the dataset and its split
    method: str  # values on all axes but those of the data, and those that are taken together
    axes: dict[str, str]  # axis → value
    trained_on: str | None  # `dataset/split`; None: zero-shot
    runs: Positive  # number of complete runs
    declared: Positive  # number of runs that the study declares
    spread: Spread  # accuracy, and what moves it
    tested: Spread | None = None  # spread of the tested metric, where that is not the accuracy
    balanced_accuracy: float  # mean over the runs
    cost: float  # evaluation equivalents per image, mean over the runs
    seconds_per_image: float | None  # seconds of scoring per image, mean over the runs
    worst_group: Group | None = None  # group with the lowest accuracy, where there are groups
    rank: Positive | None = None  # one more than the significantly better methods; None: alone
    looks: Count | None = None  # finished runs on this split; None: not a test split

    @property
    def shown(self) -> Spread:
        """Spread of the metric that differences are tested in, which tables and figures show."""
        return self.tested or self.spread


class BoardDifferences(Document):
    """The differences of the methods on one dataset, or of groups of them."""

    board: str  # the dataset and its split
    metric: str  # the metric that is compared
    differences: list[Difference]  # one per pair of methods


class StudyGroup(Document):
    """The methods of a group's backbones on one dataset that are alike in everything else."""

    board: str  # the dataset and its split
    group: str  # name of the group, and values on the other axes
    axes: dict[str, str]  # axis → value, with the group for the backbone
    methods: list[str]  # methods that are taken together
    images: Positive  # number of images that all of them have
    value: Number  # mean of the metric over the methods
    interval: tuple[Number, Number]  # 95 % interval over other images, for these backbones
    of_images: Amount  # standard deviation of the metric of one method over other images
    of_backbones: Amount | None = None  # standard deviation over other backbones; None: one
    cost: float  # evaluation equivalents per image, mean over the methods


class StudyReport(FullDocument):
    """A study's table and statistics, as `bench study FILE --show --json` prints them."""

    name: str  # name of the study
    file: str  # file that declares it
    updated: str  # time of the last change, in ISO 8601
    axes: list[str]  # names of the axes
    over: list[str]  # axes whose runs are taken together
    metric: str = "accuracy"  # metric that differences are tested in
    metric_parameters: dict[str, Any] = Field({})  # parameters of the metric that were set
    tests_over: Over = "images"  # population of tests and intervals: images, or also seeds
    cells: Count  # number of declared runs
    done: Count  # number of complete runs
    failed: Count  # number of runs that failed, or have images that did
    rows: list[StudyRow]  # one row per declared run
    methods: list[StudyMethod]  # runs that differ only in seed or template, taken together
    differences: list[BoardDifferences]  # differences of the methods, per dataset
    groups: list[StudyGroup] = Field([])  # methods taken together by the group of their backbone
    group_differences: list[BoardDifferences] = Field([])  # differences of these, corrected
    ranks: MeanRanks | None = None  # mean ranks, from ten datasets on
    robustness: list[Robustness] = Field([])  # robustness of each method under each shift
    corruption: list[CorruptionErrors] = Field([])  # errors of each method on corrupted images
    looks: dict[str, Count] = Field({})  # test split → finished runs on it, in the results folder
    stop: Literal["best", "ranked"] | None = None  # what ends the study; None: all images
    standings: list[BoardStanding] = Field([])  # what its images showed, of a study that stops
    notes: list[str] = Field([])  # what a reader must know, in plain words


def notes(report: StudyReport, margin: float | None) -> list[str]:
    """Return what a reader must know about a study, one or two sentences each."""
    texts = _progress(report)
    for board in dict.fromkeys(method.board for method in report.methods):
        methods = [method for method in report.methods if method.board == board]
        texts.append(f"{board}: {moved(methods, report.metric)}")
        if (count := report.looks.get(board)) is not None:
            texts.append(
                f"{board} was looked at {count} time{'s' if count != 1 else ''}: so many runs with"
                " settings of their own are finished on it. The best of many looks is partly luck."
            )
    if report.stop is not None:
        return [*texts, *_stopped(report, margin)]
    if report.methods:
        texts.append(_over(report))
    if count := sum(len(board.differences) for board in report.differences):
        texts += [_tested(count, report), _equal(report, margin)]
    return texts


def _progress(report: StudyReport) -> list[str]:
    waiting = report.cells - report.done - sum(row.status == "failed" for row in report.rows)
    parts = [f"{report.done} of {report.cells} runs are complete"]
    if report.failed:
        parts.append(f"{report.failed} failed or have images that did")
    if waiting:
        parts.append(f"{waiting} are not: what is shown of them is of the images decided so far")
    return [f"{', '.join(parts)}."] if waiting or report.failed else []


def _stopped(report: StudyReport, margin: float | None) -> list[str]:
    """Return what ended a study, dataset by dataset, and what that means."""
    texts = []
    for board in report.standings:
        used = f"{board.images:,} of {board.total:,} images"
        best = next((m.method for m in board.methods if m.verdict == "best"), None)
        if not board.decided:
            texts.append(f"{board.board}: not decided after {used}.")
        elif report.stop == "ranked":
            equal = f", or equality within {100 * margin:g} points" if margin else ""
            texts.append(f"{board.board}: the order of all methods{equal} is shown after {used}.")
        else:
            within = f" or within {100 * margin:g} points of the best" if margin else ""
            texts.append(f"{board.board}: {best} is the best{within}, shown after {used}.")
    return [
        *texts,
        "What is shown is wrong for at most 5 % of such studies, however often somebody looks, for"
        " these seeds and templates and for other images like these. Accuracies of methods on"
        " fewer images are of those alone, and biased where their results ended them: this study"
        " has no ranks, and no tests of fixed images.",
    ]


def moved(methods: Sequence[StudyMethod], metric: str = "accuracy") -> str:
    """Return what moves the metric of the methods on one dataset, in words."""
    parts = []
    for what, name in (("another seed", "of_seeds"), ("another template", "of_templates")):
        values = [value for m in methods if (value := getattr(m.shown, name)) is not None]
        if values:
            parts.append((what, sum(values) / len(values)))
    images = sum(m.shown.of_images for m in methods) / len(methods)
    parts.append(("other images", images))
    spec = metric_specs()[metric]
    first, by = parts[0]
    verb = "moves" if first != "other images" else "move"
    points = " points" if spec.unit == "share" else ""
    words = [f"{first} {verb} {spec.words} by {spec.shown(by)}{points}"]
    words += [f"{what} by {spec.shown(by)}" for what, by in parts[1:]]
    return f"{'; '.join(words)} (one standard deviation, the mean over methods)."


def _over(report: StudyReport) -> str:
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


def _tested(count: int, report: StudyReport) -> str:
    how = "McNemar's exact test of two runs, a permutation test of several"
    agree = "p is at most 0.05 exactly where the 95 % interval excludes 0"
    if report.tests_over == "seeds":
        how = "a t test of images and seeds that are crossed"
    elif any(
        pair.test == "influence" for board in report.differences for pair in board.differences
    ):
        how = "a z test of the images' influence values"
    elif not metric_specs()[report.metric].mean_over_images:
        how, agree = "a permutation test", "the 95 % interval contains 0 wherever p is above 0.05"
    ranked = f" {ranking('methods', count)}" if metric_specs()[report.metric].sign else ""
    return f"Of one difference alone ({how}), {agree}.{ranked}"


def _equal(report: StudyReport, margin: float | None) -> str:
    if margin is None:
        return "--margin 0.02 tests which methods are equal, within 2 points."
    within = f"within ± {100 * margin:g} points (two one-sided tests, 5 %, Holm)"
    equal = [
        f"{pair.a} and {pair.b} on {board.board}"
        for board in report.differences
        for pair in board.differences
        if pair.equal
    ]
    if not equal:
        return f"No two methods are shown to be equal {within}; not significant is not equal."
    more = f"; and {len(equal) - MOST_PAIRS_NAMED} more" if len(equal) > MOST_PAIRS_NAMED else ""
    return f"Shown to be equal {within}: {'; '.join(equal[:MOST_PAIRS_NAMED])}{more}."
