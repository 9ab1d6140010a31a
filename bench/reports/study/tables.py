"""Tables of a study: its methods and their differences, or one axis against another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from bench.contracts.metric_spec import MetricSpec
from bench.contracts.specs import provenance
from bench.discovery.queries import metric_specs
from bench.errors import UserError, did_you_mean
from bench.inputs.corruptions import NOT_THEIRS
from bench.reports.facts import (
    NONE,
    Column,
    Fact,
    Row,
    difference_fact,
    labelled,
    metric_fact,
    metric_unit,
)
from bench.reports.study.documents import StudyMethod, StudyReport
from bench.reports.study.methods import StudyRow, varied_axes
from bench.reports.study.shifts import Change, CorruptionErrors
from bench.reports.text import Table, make_table
from bench.stats.inference.difference_tests import MethodDifference
from bench.stats.inference.paired import ALPHA, Difference
from bench.store.studies import BoardStanding, MethodStanding, Published


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
        table = _methods(board, methods, metric, report.stop is not None)
        tables.append(replace(table, above=report.answers.get(board, "")))
    bare = [row.model_copy(update={"accuracy_ci95": None}) for row in report.rows]
    tables += published_tables(report.name, bare if report.stop else report.rows)
    tables += [
        replace(_standing(board), above=report.answers.get(board.board, ""))
        for board in report.standings
    ]
    words = f"differences in {metric.words}, B − A"
    tables += [
        _differences(f"{board.board}: {words}", board.differences, metric)
        for board in report.differences
        if board.differences
    ]
    if report.changes:
        tables.append(_changes(report.changes, metric))
    for board in dict.fromkeys(errors.board for errors in report.corruption):
        tables += _corruption(board, [e for e in report.corruption if e.board == board], metric)
    tables += _failed(report)
    if tables or report.notes:
        tables = tables or [Table(report.name, ["run"], [])]
        asked = " ".join(filter(None, [report.question, tables[0].above]))
        tables[0] = replace(tables[0], above=asked)
        unfinished = report.notes[: report.done < report.cells]
        tables[-1].below.extend(filter(None, [*unfinished, report.reading]))
        tables[-1].more.extend(report.notes[len(unfinished) :])
    return tables


def _failed(report: StudyReport) -> list[Table]:
    """Return the table of the runs that failed, by reason; [] if none did."""
    runs_of: dict[str, list[str]] = {}  # reason → runs
    for row in report.rows:
        if row.status == "failed":
            run = ", ".join(row.axes[name] for name in report.axes if name in row.axes)
            runs_of.setdefault(row.error or "", []).append(run)
    lines = [["\n".join(runs), reason] for reason, runs in runs_of.items()]
    return [Table("Runs that failed", ["run", "why"], lines)] if lines else []


def _methods(
    board: str, methods: Sequence[StudyMethod], metric: MetricSpec, stopped: bool
) -> Table:
    """Return the table of methods on one dataset.

    If the study has a stopping rule (`stopped`), ranks and intervals for a fixed number of images
    are left out, because they would be invalid.
    """
    may_be_empty = ("templates", "±seeds", "worst", "TFLOP")
    columns = [
        column
        for column in _method_columns(methods, metric, stopped)
        if column.name not in may_be_empty or any(column.fact(m).value is not None for m in methods)
    ]
    facts: dict[str, Callable[[StudyMethod], str]] = {
        "images": lambda m: f"{m.shown.images:,}",
        "runs of each": lambda m: f"{m.runs}" if m.runs == m.declared else f"{m.runs}/{m.declared}",
        "": lambda m: provenance(m.trained_on),
    }
    shared = []
    for name, text in facts.items():
        if len({text(method) for method in methods}) == 1:
            shared.append(f"{name}: {text(methods[0])}" if name else text(methods[0]))
        else:
            columns.append(Column(name.split()[0] if name else "trained on", text))
    title = f"{board} ({', '.join(shared)})" if shared else board
    optional = ("trained on", "runs", "images", "±images", "±seeds", "worst, %", "templates")
    return make_table(title, columns, methods, optional=optional)


def _method_columns(
    methods: Sequence[StudyMethod], metric: MetricSpec, stopped: bool
) -> list[Column[StudyMethod]]:
    """Return the columns of axes that vary, of the metric and its spread, and of the cost."""
    names = list(dict.fromkeys(name for method in methods for name in method.axes))
    varied, unit = varied_axes(names, [m.axes for m in methods]) or names[:1], metric_unit(metric)

    def value(method: StudyMethod) -> Fact:
        return metric_fact(metric, method.shown.value, None if stopped else method.shown.interval)

    rank = Column[StudyMethod]("rank", lambda m: m.rank, "rank")
    images = Column[StudyMethod]("±images", lambda m: Fact("", m.shown.of_images, unit), "number")
    tflop = Column[StudyMethod]("TFLOP", lambda m: m.tflop, "cost")
    return [
        *map(_axis_column, varied),
        *([rank] if metric.sign and not stopped else []),
        Column(metric.words, value, unit),
        Column("templates", lambda m: _range(metric, m.shown.range_of_templates)),
        *([] if stopped else [images]),
        Column("±seeds", lambda m: Fact("", m.shown.of_seeds, unit), "number"),
        Column("cost", lambda m: m.cost, "cost"),
        *([tflop] if "backbone" in varied else []),  # evaluations of one network are comparable
        Column("worst", _worst, "share"),
    ]


def _axis_column(name: str) -> Column[StudyMethod]:
    return Column(name, lambda m: m.axes.get(name, NONE).removeprefix(f"{name} "))


def _worst(method: StudyMethod) -> Fact | None:
    worst = method.worst_group
    return None if worst is None else Fact("worst", worst.accuracy, "share", worst.lowest_ci95)


def _range(metric: MetricSpec, ends: tuple[float, float] | None) -> str | None:
    return None if ends is None else "–".join(map(metric.shown, ends))


def _standing(board: BoardStanding) -> Table:
    columns: list[Column[MethodStanding]] = [
        Column("method", lambda m: m.method),
        Column("accuracy", lambda m: Fact("", m.accuracy, "share", m.anytime_ci95), "share"),
        Column("images", lambda m: m.images, "count"),
        Column("shown", _shown),
        Column("after", lambda m: m.shown_after, "count"),
    ]
    return make_table(f"{board.board}: verdicts on images in random order", columns, board.methods)


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
    columns: list[Column[MethodDifference]] = [
        Column("B", lambda pair: pair.b),
        Column("A", lambda pair: pair.a),
        _change_column("difference", lambda pair: pair.difference, metric),
        Column("p", lambda pair: pair.difference.p, "p"),
        Column("p, Holm", lambda pair: pair.p_holm, "p"),
        Column("verdict", lambda pair: _verdict(pair, metric)),
    ]
    first = sorted(pairs, key=lambda pair: (pair.p_holm or 0, pair.difference.p or 0))
    return make_table(title, columns, first, optional=("p",))


def _change_column(
    name: str, of: Callable[[Row], Difference | None], metric: MetricSpec
) -> Column[Row]:
    """Return a column of differences with their intervals."""

    def fact(row: Row) -> Fact | None:
        difference = of(row)
        return None if difference is None else difference_fact(metric, difference, name)

    return Column(name, fact, metric_unit(metric, difference=True))


def _verdict(pair: MethodDifference, metric: MetricSpec) -> str:
    if pair.difference.p is None:
        return "not tested"
    if pair.different and pair.equal:
        return "differ, within the margin"
    if pair.different:
        return metric.verdict(pair.difference.estimate)
    return "equal" if pair.equal else "not significant"


def _changes(changes: Sequence[Change], metric: MetricSpec) -> Table:
    def value(change: Change, number: float) -> Fact:
        return Fact("", number, metric_unit(metric, difference=change.less is not None))

    columns: list[Column[Change]] = [
        Column("method", lambda c: c.method + (f" less {c.less}" if c.less else "")),
        Column("usual", lambda c: c.usual),
        Column("shifted", lambda c: c.shifted),
        Column("before", lambda c: value(c, c.before), metric_unit(metric)),
        Column("after", lambda c: value(c, c.after), metric_unit(metric)),
        _change_column("change", lambda c: c.change, metric),
    ]
    text = (
        "Each interval is for one change, over other images. Corrupted images are paired with the"
        " clean ones, and two methods with each other on the same images."
    )
    more = []
    if any(change.robustness for change in changes):
        columns += [
            Column("expected", lambda c: c.robustness and c.robustness.expected, "share"),
            _change_column("effective", lambda c: getattr(c.robustness, "effective", None), metric),
        ]
        more.append(
            "The expected accuracy is by a line through the reference models' accuracies before"
            " and after the shift, in logits (Taori et al. 2020). Effective robustness is the"
            " accuracy minus the expected one, with an interval for this line."
        )
    title = f"Change in {metric.words} under a shift"
    return make_table(title, columns, changes, optional=("usual",), below=[text], more=more)


def _corruption(
    board: str, methods: Sequence[CorruptionErrors], metric: MetricSpec
) -> Iterator[Table]:
    unit = metric_unit(metric)

    def severity(name: str) -> Column[CorruptionErrors]:
        return Column(name, lambda m: Fact("", m.severities[name], unit), "number")

    def method_column(index: int) -> Column[str]:
        of = methods[index]
        return Column(of.method, lambda name: Fact("", of.corruptions[name], unit), "number")

    text = (
        f"{error_words(metric)}, on {methods[0].images:,} images by severity. The last mean, over"
        f" {len(methods[0].corruptions)} corruptions and their severities, is the mean corruption"
        " error; it is not divided by another model's."
    )
    note = f"It is not ImageNet-C's, because {NOT_THEIRS} is a generated texture here."
    more = [note] if NOT_THEIRS in methods[0].corruptions else []
    columns: list[Column[CorruptionErrors]] = [
        Column("method", lambda m: m.method),
        Column("clean", lambda m: m.clean, unit),
        *map(severity, methods[0].severities),
        Column("mean", lambda m: Fact("", m.error, unit, m.interval), unit),
    ]
    title = f"{board}: errors under corruption"
    yield make_table(title, columns, methods, below=[text], more=more)
    by_name: list[Column[str]] = [
        Column("corruption", lambda name: name),
        *map(method_column, range(len(methods))),
    ]
    title = labelled(f"{board}: error by corruption", unit)
    yield make_table(title, by_name, methods[0].corruptions)


def error_words(metric: MetricSpec) -> str:
    """Return the name of the error in a metric, with its unit."""
    error = "Error" if metric.name == "accuracy" else f"{metric.range[1]:g} less {metric.words}"
    return labelled(error, metric_unit(metric))


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
    metric = metric_specs().get(value)
    if varied and value != "status":
        deviation = "; ± is the standard deviation of runs" if metric else ""
        below = [f"Values are means over {', '.join(varied)}{deviation}.", *below]
    shown = labelled(metric.words, metric_unit(metric)) if metric else value
    title = f"{report.name}: {shown}"
    return Table(title, [rows, *heads], text, frozenset(heads), below=below)


def _pivot_cell(rows: Sequence[StudyRow], value: str) -> str:
    if value == "status":
        return " ".join(dict.fromkeys(row.status for row in rows)) or NONE
    field = {"n": "n_samples"}.get(value, value)
    values = [float(number) for row in rows if (number := getattr(row, field)) is not None]
    if not values:
        return NONE
    if (metric := metric_specs().get(value)) is None:
        return Fact(value, fmean(values), "cost").text
    shown = metric.shown(fmean(values))
    return f"{shown} ±{metric.shown(stdev(values))}" if len(values) > 1 else shown


def published_tables(study: str, rows: Sequence[StudyRow]) -> list[Table]:
    """Return a table of published figures with ours beside them; [] without figures.

    Sources, and what differs from the publications, are below. The interval of a difference is
    Newcombe's, of two shares of different images.
    """
    figures = [(row, row.published) for row in rows if row.published is not None]
    if not figures:
        return []
    axes = [row.axes for row, _ in figures]
    varied = varied_axes(dict.fromkeys(name for own in axes for name in own), axes)

    def run(row: StudyRow) -> str:
        return " ".join(row.axes[name] for name in varied if name in row.axes)

    deviations: dict[str, str] = {}  # sentence → what it is about
    for row, figure in figures:
        place = f"{run(row)}: " if run(row) else ""
        deviations |= {f"{place}{text}": text.partition(":")[0] for text in figure.differs}
    sources = dict.fromkeys(figure.described for _, figure in figures)
    about = ", ".join(dict.fromkeys(deviations.values()))
    columns = [Column("run", lambda pair: run(pair[0]) or study), *_PUBLISHED_COLUMNS]
    columns = [c for c in columns if any(c.fact(pair).value is not None for pair in figures)]
    below = [f"Published: {'; '.join(sources)}."]
    below += [f"What differs (--wide says how): {about}."] if about else []
    more = [f"Differs: {text}." for text in deviations]
    title = f"{study}: published and ours"
    return [make_table(title, columns, figures, optional=("metric", "run"), below=below, more=more)]


_RunAndFigure = tuple[StudyRow, Published]


def _published(pair: _RunAndFigure) -> Fact | str:
    _, figure = pair
    if figure.value is None:
        return "not read"
    return metric_fact(metric_specs()[figure.metric], figure.value)


def _ours(pair: _RunAndFigure) -> Fact:
    row, figure = pair
    ends = row.shown_ci95 if figure.metric == "accuracy" else None
    return metric_fact(metric_specs()[figure.metric], row.metric(figure.metric), ends)


def _difference(pair: _RunAndFigure) -> Fact:
    _, figure = pair
    unit = metric_unit(metric_specs()[figure.metric], difference=True)
    return Fact("", figure.difference, unit, figure.difference_ci95)


_PUBLISHED_COLUMNS = [
    Column[_RunAndFigure]("metric", lambda pair: metric_specs()[pair[1].metric].words),
    Column[_RunAndFigure]("published", _published),
    Column[_RunAndFigure]("ours", _ours),
    Column[_RunAndFigure]("difference", _difference),
    Column[_RunAndFigure]("verdict", lambda pair: pair[1].verdict),
]
