"""Tables of a study: its methods and their differences, or one axis against another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from bench.contracts.metrics import MetricSpec
from bench.contracts.specs import provenance
from bench.discovery.loading import metric_specs
from bench.errors import UserError, did_you_mean
from bench.reports.formats import NONE, percent_text
from bench.reports.study.corruption import CorruptionErrors
from bench.reports.study.documents import StudyMethod, StudyReport
from bench.reports.study.methods import varied_axes
from bench.reports.study.published import published_tables
from bench.reports.study.rows import StudyRow
from bench.reports.study.shifts import Change
from bench.reports.text import Table
from bench.stats.difference_tests import MethodDifference, rank_text
from bench.stats.paired import ALPHA, Difference
from bench.store.studies import BoardStanding, MethodStanding


def check_pivoted(value: str) -> None:
    """Raise UserError if a pivoted table cannot show this value."""
    metrics = [name for name, metric in metric_specs().items() if metric.in_summaries]
    values = (*metrics, "cost", "seconds", "n", "status")
    if value not in values:
        raise UserError(
            f"--value {value}: a table cannot show it.{did_you_mean(value, values)} Expected one"
            f" of {', '.join(values)}."
        )


def study_tables(report: StudyReport) -> list[Table]:
    """Return the tables of a report: methods and differences by dataset, then the other results."""
    tables = []
    boards = list(dict.fromkeys(method.board for method in report.methods))
    metric = metric_specs()[report.metric]
    for board in boards:
        methods = [method for method in report.methods if method.board == board]
        tables.append(_methods(board, methods, metric, report.stop is not None))
    tables += published_tables(report.name, report.rows)
    tables += [_standing(board) for board in report.standings]
    words = f"differences in {metric.words}"
    tables += [
        _differences(f"{board.board}: {words}", board.differences, metric)
        for board in report.differences
        if board.differences
    ]
    if report.changes:
        tables.append(_changes(report.changes, metric))
    for board in dict.fromkeys(errors.board for errors in report.corruption):
        tables += _corruption(board, [e for e in report.corruption if e.board == board], metric)
    failed = [row for row in report.rows if row.status == "failed"]
    if failed:
        runs_of: dict[str, list[str]] = {}  # reason → runs
        for row in failed:
            run = ", ".join(row.axes[name] for name in report.axes if name in row.axes)
            runs_of.setdefault(row.error or "", []).append(run)
        lines = [["\n".join(runs), reason] for reason, runs in runs_of.items()]
        tables.append(Table("Runs that failed", ["run", "why"], lines))
    tables[:1] = [replace(table, above=report.question) for table in tables[:1]]
    if report.notes:
        tables = tables or [Table(report.name, ["run"], [])]
        tables[-1].below.extend(report.notes)
    return tables


def _methods(
    board: str, methods: Sequence[StudyMethod], metric: MetricSpec, stopped: bool
) -> Table:
    """Return the table of methods on one dataset.

    If the study has a stopping rule (`stopped`), ranks and intervals for a fixed number of images
    are left out, because they would be invalid.
    """
    axes = list(dict.fromkeys(name for method in methods for name in method.axes))
    varied = varied_axes(axes, [method.axes for method in methods]) or axes[:1]
    lines = []
    for method in methods:
        s = method.shown
        line = {name: method.axes.get(name, NONE) for name in varied}
        line |= {
            "rank": rank_text(method.rank),
            "acc" if metric.name == "accuracy" else metric.words: metric.shown(s.value),
            "templates": "–".join(map(metric.shown, s.range_of_templates or ())) or NONE,
            "95 %": "–".join(map(metric.shown, s.interval)),
            "±images": metric.shown(s.of_images),
            "±seeds": NONE if s.of_seeds is None else metric.shown(s.of_seeds),
            "cost": f"{method.cost:,.0f}",
            "TFLOP": NONE if method.tflop is None else f"{method.tflop:.3g}",
            "worst": percent_text(worst.accuracy, worst.accuracy_ci95)
            if (worst := method.worst_group)
            else NONE,
            "runs": str(method.runs)
            if method.runs == method.declared
            else f"{method.runs}/{method.declared}",
            "n": f"{s.images:,}",
            "trained on": provenance(method.trained_on),
        }
        lines.append(line)
    names = ("±seeds", "templates", "worst", "TFLOP")
    empty = {name for name in names if all(line[name] == NONE for line in lines)}
    if "backbone" not in varied:  # evaluations of one network are comparable
        empty.add("TFLOP")
    same = {n for n in ("n", "runs", "trained on") if len({line[n] for line in lines}) == 1}
    without = {"rank", "95 %", "±images"} if stopped else set()
    without |= set() if metric.sign else {"rank"}
    head = [name for name in lines[0] if name not in empty | same | without]
    facts = {"n": "images: {}", "runs": "runs of each: {}", "trained on": "{}"}
    shared = [text.format(lines[0][name]) for name, text in facts.items() if name in same]
    title = f"{board} ({', '.join(shared)})" if shared else board
    right = frozenset(
        name for name in head if name not in (*varied, "templates", "95 %", "trained on")
    )
    optional = ("trained on", "runs", "n", "±images", "±seeds", "worst", "templates", "95 %")
    return Table(
        title,
        head,
        [[line[name].removeprefix(f"{name} ") for name in head] for line in lines],
        right,
        tuple(name for name in optional if name in head),
    )


def _standing(board: BoardStanding) -> Table:
    head = ["method", "acc", "95 %", "images", "shown", "after"]
    lines = [
        [
            method.method,
            f"{100 * method.accuracy:.1f}",
            "–".join(f"{100 * end:.1f}" for end in method.anytime_ci95),
            f"{method.images:,}",
            _shown(method),
            NONE if method.shown_after is None else f"{method.shown_after:,}",
        ]
        for method in board.methods
    ]
    title = f"{board.board}: verdicts on images in random order"
    return Table(title, head, lines, frozenset({"acc", "images", "after"}))


def _shown(method: MethodStanding) -> str:
    """Return what a study with a stopping rule shows of a method."""
    if method.verdict != "left":
        return NONE if method.verdict == "open" else method.verdict
    if method.shown_after is None:
        return "within the margin"
    if method.p is None:  # a study of an earlier version
        return "not the best"
    return "worse than the best" if method.p <= ALPHA else "left out"


def _differences(title: str, pairs: Sequence[MethodDifference], metric: MetricSpec) -> Table:
    points = "points" if metric.unit == "share" else "difference"
    head = ["B", "less A", points, "95 %", "p", "p, Holm", "verdict"]
    lines = [
        [
            pair.b,
            pair.a,
            *_with_sign(metric, pair.difference),
            _p(pair.difference.p),
            _p(pair.p_holm),
            _verdict(pair, metric),
        ]
        for pair in sorted(pairs, key=lambda pair: (pair.p_holm or 0, pair.difference.p or 0))
    ]
    return Table(title, head, lines, frozenset(head[2:6]), ("p", "95 %"))


def _p(p: float | None) -> str:
    return NONE if p is None else f"{p:.2g}"


def _verdict(pair: MethodDifference, metric: MetricSpec) -> str:
    if pair.difference.p is None:
        return "not tested"
    if pair.different and pair.equal:
        return "differ, within the margin"
    if pair.different:
        return metric.verdict(pair.difference.estimate)
    return "equal" if pair.equal else "not significant"


def _changes(changes: Sequence[Change], metric: MetricSpec) -> Table:
    points = "points" if metric.unit == "share" else "difference"
    head = ["method", "usual", "shifted", "before", "after", points, "95 %"]
    text = (
        "Each interval is for one change, over other images. Corrupted images are paired with the"
        " clean ones, and two methods with each other on the same images."
    )
    if with_reference := any(change.robustness for change in changes):
        head += ["expected", "effective", "effective, 95 %"]
        text += (
            " The expected accuracy is by a line through the reference models' accuracies before"
            " and after the shift, in logits (Taori et al. 2020). Effective robustness is the"
            " accuracy minus the expected one, with an interval for this line."
        )
    lines = []
    for change in changes:
        less = "" if change.less is None else f" less {change.less}"
        values = [
            metric.shown(value, "+" if less else "") for value in (change.before, change.after)
        ]
        values += _with_sign(metric, change.change)
        if (robustness := change.robustness) is not None:
            effective = _with_sign(metric, robustness.effective)
            values += [metric.shown(robustness.expected), *effective]
        elif with_reference:
            values += [NONE] * 3
        lines.append([f"{change.method}{less}", change.usual, change.shifted, *values])
    title = f"Change in {metric.words} under a shift"
    right = frozenset(head) - {"method", "usual", "shifted", "95 %", "effective, 95 %"}
    return Table(title, head, lines, right, ("usual",), [text])


def _with_sign(metric: MetricSpec, difference: Difference) -> list[str]:
    """Return a difference and its interval as two fields."""
    ends = " to ".join(metric.shown(end, "+") for end in difference.interval)
    return [metric.shown(difference.estimate, "+"), ends]


def _corruption(
    board: str, methods: Sequence[CorruptionErrors], metric: MetricSpec
) -> Iterator[Table]:
    severities = list(methods[0].severities)
    head = ["method", "clean", *severities, "mean", "95 %"]
    lines = [
        [
            m.method,
            NONE if m.clean is None else metric.shown(m.clean),
            *(metric.shown(m.severities[name]) for name in severities),
            metric.shown(m.error),
            "–".join(map(metric.shown, m.interval)),
        ]
        for m in methods
    ]
    text = (
        f"{error_words(metric)}, on {methods[0].images:,} images by severity: the mean over"
        f" {len(methods[0].corruptions)} corruptions. The last mean, over all severities, is the"
        " mean corruption error; it is not divided by another model's."
    )
    title = f"{board}: errors under corruption"
    yield Table(title, head, lines, frozenset(head[1:-1]), below=[text])
    lines = [
        [name, *(metric.shown(m.corruptions[name]) for m in methods)]
        for name in methods[0].corruptions
    ]
    head = ["corruption", *(m.method for m in methods)]
    yield Table(f"{board}: error by corruption, %", head, lines, frozenset(head[1:]))


def error_words(metric: MetricSpec) -> str:
    """Return the name of the error in a metric, with its unit."""
    error = "Error" if metric.name == "accuracy" else f"{metric.range[1]:g} less {metric.words}"
    return f"{error}, %" if metric.unit == "share" else error


def pivot(report: StudyReport, rows: str, columns: str, value: str = "accuracy") -> Table:
    """Return a table of two axes, whose cells are the mean of `value` over all other axes."""
    for name in (rows, columns):
        if name not in report.axes:
            raise UserError(
                f"The study has no axis {name!r}.{did_you_mean(name, report.axes)} It has:"
                f" {', '.join(report.axes)}."
            )
    if rows == columns:
        raise UserError(f"--rows and --columns are both {rows!r}; name two axes.")
    lines = list(dict.fromkeys(row.axes.get(rows, NONE) for row in report.rows))
    heads = list(dict.fromkeys(row.axes.get(columns, NONE) for row in report.rows))
    cells: dict[tuple[str, str], list[StudyRow]] = {}
    for row in report.rows:
        cells.setdefault((row.axes.get(rows, NONE), row.axes.get(columns, NONE)), []).append(row)
    text = [
        [line, *(_pivot_cell(cells.get((line, head), []), value) for head in heads)]
        for line in lines
    ]
    others = [name for name in report.axes if name not in (rows, columns)]
    varied = varied_axes(others, [row.axes for row in report.rows])
    below = report.notes[:1]
    if varied and value != "status":
        below = [
            f"Values are means over {', '.join(varied)}; ± is the standard deviation of runs.",
            *below,
        ]
    metric = metric_specs().get(value)
    shown = f"{metric.words}, %" if metric else value
    title = f"{report.name}: {shown}"
    return Table(title, [rows, *heads], text, frozenset(heads), below=below)


def _pivot_cell(rows: Sequence[StudyRow], value: str) -> str:
    if value == "status":
        return " ".join(dict.fromkeys(row.status for row in rows)) or NONE
    field = {"n": "n_samples"}.get(value, value)
    values = [float(number) for row in rows if (number := getattr(row, field)) is not None]
    if not values:
        return NONE
    mean = fmean(values)
    if value in ("cost", "seconds", "n"):
        return f"{mean:,.0f}" if mean >= 10 else f"{mean:.2f}"
    shown = f"{100 * mean:.1f}"
    return f"{shown} ±{100 * stdev(values):.1f}" if len(values) > 1 else shown
