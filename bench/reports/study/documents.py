"""The report of a study as a document, with notes that explain its statistics."""

from collections.abc import Sequence
from math import sqrt

from pydantic import Field

from bench.contracts.parameters import Parameters
from bench.discovery.queries import metric_specs
from bench.reports.study.methods import StudyRow
from bench.reports.study.shifts import Change, CorruptionErrors
from bench.stats.crossed import MIN_SEEDS, Over, Spread
from bench.stats.difference_tests import MethodDifference, Rank, ranking
from bench.store.fields import Count, Document, FullDocument, Positive
from bench.store.studies import StudyHead
from bench.store.summary import WorstGroup

MANY = 5  # runs of which the best is partly luck
MAX_NAMED_PAIRS = 8  # number of equal pairs that a note names


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
    balanced_accuracy: float  # mean over the runs
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
    notes: list[str] = Field([])  # explanations for the reader


def report_notes(report: StudyReport, margin: float | None) -> list[str]:
    """Return explanations of a study's results, one or two sentences each.

    Differences below `margin` count as equal; None: equality was not tested.
    """
    texts = _progress(report)
    for board in dict.fromkeys(method.board for method in report.methods):
        methods = [method for method in report.methods if method.board == board]
        texts.append(f"{board}: {variation(methods, report.metric)}")
        if (count := report.looks.get(board)) is not None:
            texts.append(
                f"{board}: {count} run{'s' if count != 1 else ''} with different settings"
                f" {'have' if count != 1 else 'has'} finished on this test split."
                + " The best of many runs is partly luck."
                * (count >= MANY)
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
        parts.append(f"{report.failed} failed or have failed images")
    if waiting:
        parts.append(f"{waiting} are not, and are shown with the images decided so far")
    return [f"{', '.join(parts)}."] if waiting or report.failed else []


def _stopped(report: StudyReport, margin: float | None) -> list[str]:
    """Return what ended the study on each dataset, and how far the result can be trusted."""
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
    wrong = "the method named is not a best one"
    if report.stop == "ranked":
        wrong = "the order or an equality of any pair is wrong"
    elif margin:
        wrong = "the method named is neither a best one nor within the margin of it"
    if any(method.p is not None for board in report.standings for method in board.methods):
        texts.append(
            "“Worse than the best”: on each dataset, any of these is false in at most 5 % of such"
            " studies (closed test). “Left out”: no longer scored, but not shown to be worse."
        )
    return [
        *texts,
        f"On each dataset, {wrong} in at most 5 % of such studies, however often the results are"
        " checked, for these seeds and templates and for other images like these. The accuracy of a"
        " method that was stopped early covers only its own images, and is biased because its"
        " result decided when it stopped: this study therefore has no ranks and no tests for a"
        " fixed number of images.",
    ]


def variation(methods: Sequence[StudyMethod], metric: str = "accuracy") -> str:
    """Return how much images, seeds and templates move the metric on one dataset, in sentences.

    These are standard deviations, the mean over methods.
    """
    spec = metric_specs()[metric]
    unit = " points" if spec.unit == "share" else ""
    images = sum(m.shown.of_images for m in methods) / len(methods)
    numbers = {m.shown.images for m in methods}
    on, other = ("these images", "as many others")
    if len(numbers) == 1:
        on, other = f"{min(numbers):,} images", f"another {min(numbers):,}"
    text = (
        f"The {spec.words} on {on} is typically off by ±{spec.shown(images)}{unit}; that on {other}"
        f" differs from it by about ±{spec.shown(images * sqrt(2))}."
    )
    moves = []
    for what, name in (("another seed", "of_seeds"), ("another template", "of_templates")):
        values = [value for m in methods if (value := getattr(m.shown, name)) is not None]
        if values:
            moves.append(f"{what} moves it by {spec.shown(sum(values) / len(values))}{unit}")
    return f"{text} {' and '.join(moves).capitalize()}." if moves else text


def _over(report: StudyReport) -> str:
    """Return the population to which intervals, tests and ranks apply."""
    if report.tests_over == "seeds":
        few = any(m.spread.seeds < MIN_SEEDS for m in report.methods)
        alone = f" (for methods with fewer than {MIN_SEEDS} seeds, over images only)"
        return (
            "Intervals, tests and ranks are over other images and other seeds, for these"
            f" templates{alone if few else ''}."
        )
    return (
        "Intervals, tests and ranks are over other images, for these seeds and templates. To test"
        " whether differences also hold for other seeds, declare at least"
        f' {MIN_SEEDS} seeds and over = "seeds" in the study\'s file.'
    )


def _tested(count: int, report: StudyReport) -> str:
    """Return which test `count` differences had, and how its p relates to the interval."""
    methods = {pair.difference.method for board in report.differences for pair in board.differences}
    test = "McNemar's exact test for two runs, a permutation test for several"
    agree = "p is at most 0.05 exactly if the 95 % interval excludes 0"
    if report.tests_over == "seeds":
        test = "a t test with crossed images and seeds"
    elif methods & {"influence", "approximate"}:
        test = "a z test of the images' influence values"
        if "approximate" in methods:
            test += ", approximate: fewer than 10 images, or of a class, and no p below 5"
    elif not metric_specs()[report.metric].mean_over_images:
        test, agree = "a permutation test", "the 95 % interval contains 0 if p is above 0.05"
    ranked = f" {ranking('methods', count)}" if metric_specs()[report.metric].sign else ""
    return f"For a single difference ({test}), {agree}.{ranked}"


def _equal(report: StudyReport, margin: float | None) -> str:
    """Return which methods are shown to be equal within the margin."""
    if margin is None:
        return "--margin 0.02 tests which methods are equal within 2 points."
    within = f"within ± {100 * margin:g} points (two one-sided tests, 5 %, Holm)"
    equal = [
        f"{pair.a} and {pair.b} on {board.board}"
        for board in report.differences
        for pair in board.differences
        if pair.equal
    ]
    if not equal:
        return f"No two methods are shown to be equal {within}; not significant is not equal."
    more = f"; and {len(equal) - MAX_NAMED_PAIRS} more" if len(equal) > MAX_NAMED_PAIRS else ""
    return f"Shown to be equal {within}: {'; '.join(equal[:MAX_NAMED_PAIRS])}{more}."
