"""A study as tables: its methods line by line, or any two axes against each other."""

from __future__ import annotations

from collections.abc import Sequence

from bench.boards.study.groups import StudyGroup
from bench.boards.study.methods import NONE
from bench.boards.study.report import StudyMethod, StudyReport
from bench.boards.study.rows import StudyRow
from bench.boards.text_tables import TextTable
from bench.contracts.metrics import METRICS, difference_metrics
from bench.contracts.specs import provenance
from bench.errors import UserError, did_you_mean
from bench.stats.many import Difference

VALUES: tuple[str, ...] = (*difference_metrics(), "cost", "seconds", "n", "status")


def study_tables(report: StudyReport, differences: bool = True) -> list[TextTable]:
    """Return a table of methods for each dataset, and of their differences."""
    found = []
    boards = list(dict.fromkeys(method.board for method in report.methods))
    metric = "acc" if report.metric == "accuracy" else METRICS[report.metric].words
    for board in boards:
        methods = [m for m in report.methods if m.board == board]
        found.append(_methods(board, methods, metric))
        if groups := [one for one in report.groups if one.board == board]:
            found.append(_groups(f"{board}: groups of backbones", groups, metric))
    if differences:
        of = f"differences in {METRICS[report.metric].words}"
        for one in report.differences:
            if one.differences:
                found.append(_differences(f"{one.board}: {of}", one.differences))
        for one in report.group_differences:
            found.append(_differences(f"{one.board}: {of} of groups", one.differences))
    if report.ranks is not None:
        ranks = report.ranks
        lines = [[m, f"{r:.2f}"] for m, r in zip(ranks.methods, ranks.ranks, strict=True)]
        said = (
            f"Over {ranks.datasets} datasets; Friedman p = {ranks.friedman_p:.2g}. Mean ranks"
            f" closer than {ranks.critical_difference:.2f} do not differ significantly (Nemenyi)."
        )
        found.append(
            TextTable("Mean ranks", ["method", "rank"], lines, frozenset({"rank"}), (), [said])
        )
    if report.robustness:
        found.append(_robustness(report))
    failed = [row for row in report.rows if row.status == "failed"]
    if failed:
        lines = [[_place(row, report.axes), row.error or ""] for row in failed]
        found.append(TextTable("Runs that failed", ["run", "why"], lines))
    if report.notes:
        if not found:
            found = [TextTable(report.name, ["run"], [])]
        found[-1].below.extend(report.notes)
    return found


def _methods(board: str, methods: Sequence[StudyMethod], metric: str) -> TextTable:
    names = list(dict.fromkeys(name for method in methods for name in method.axes))
    varied = [n for n in names if len({m.axes.get(n, NONE) for m in methods}) > 1] or names[:1]
    lines = []
    for one in methods:
        s = one.shown
        line = {name: one.axes.get(name, NONE) for name in varied}
        line |= {
            "rank": NONE if one.rank is None else str(one.rank),
            metric: f"{100 * s.accuracy:.1f}",
            "95 %": f"{100 * s.interval[0]:.1f}–{100 * s.interval[1]:.1f}",
            "±images": f"{100 * s.of_images:.1f}",
            "±seeds": NONE if s.of_seeds is None else f"{100 * s.of_seeds:.1f}",
            "±templates": NONE if s.of_templates is None else f"{100 * s.of_templates:.1f}",
            "cost": f"{one.cost:,.0f}",
            "worst": f"{100 * one.worst_group.accuracy:.1f}" if one.worst_group else NONE,
            "runs": str(one.runs) if one.runs == one.declared else f"{one.runs}/{one.declared}",
            "n": f"{s.images:,}",
            "trained on": provenance(one.trained_on),
        }
        lines.append(line)
    empty = {n for n in ("±seeds", "±templates", "worst") if all(x[n] == NONE for x in lines)}
    same = {n for n in ("n", "runs", "trained on") if len({line[n] for line in lines}) == 1}
    head = [name for name in lines[0] if name not in empty | same]
    facts = {"n": "images: {}", "runs": "runs of each: {}", "trained on": "{}"}
    said = [
        facts[name].format(lines[0][name]) for name in ("n", "runs", "trained on") if name in same
    ]
    title = f"{board} ({', '.join(said)})" if said else board
    right = frozenset(name for name in head if name not in (*varied, "95 %", "trained on"))
    optional = ("trained on", "runs", "n", "±images", "95 %", "±templates", "±seeds", "worst")
    return TextTable(
        title,
        head,
        [[line[name] for name in head] for line in lines],
        right,
        tuple(name for name in optional if name in head),
    )


def _groups(title: str, groups: Sequence[StudyGroup], metric: str) -> TextTable:
    head = ["group", "backbones", metric, "95 %", "±images", "±backbones", "cost"]
    lines = [
        [
            one.group,
            str(len(one.methods)),
            f"{100 * one.value:.1f}",
            f"{100 * one.interval[0]:.1f}–{100 * one.interval[1]:.1f}",
            f"{100 * one.of_images:.1f}",
            NONE if one.of_backbones is None else f"{100 * one.of_backbones:.1f}",
            f"{one.cost:,.0f}",
        ]
        for one in sorted(groups, key=lambda one: -one.value)
    ]
    right = frozenset(head) - {"group", "95 %"}
    said = (
        "A group is the mean of its backbones. Its interval and its differences are over other"
        " images, for these backbones; ±backbones is what another backbone moves."
    )
    return TextTable(title, head, lines, right, ("±images", "cost"), [said])


def _differences(title: str, found: Sequence[Difference]) -> TextTable:
    head = ["B", "less A", "points", "95 %", "p", "p, Holm", "verdict"]
    lines = [
        [
            one.b,
            one.a,
            f"{100 * one.difference:+.1f}",
            f"{100 * one.interval[0]:+.1f} to {100 * one.interval[1]:+.1f}",
            f"{one.p:.2g}",
            f"{one.p_holm:.2g}",
            _verdict(one),
        ]
        for one in sorted(found, key=lambda one: (one.p_holm, one.p))
    ]
    return TextTable(title, head, lines, frozenset({"points", "p", "p, Holm"}), ("p", "95 %"))


def _verdict(one: Difference) -> str:
    if one.different and one.equal:
        return "differ, within the margin"
    if one.different:
        return "B is better" if one.difference > 0 else "B is worse"
    return "equal" if one.equal else "not significant"


def _robustness(report: StudyReport) -> TextTable:
    head = ["method", "usual", "shifted", "before", "after", "expected", "effective"]
    lines = [
        [
            one.method,
            one.usual,
            one.shifted,
            f"{100 * one.accuracy_usual:.1f}",
            f"{100 * one.accuracy_shifted:.1f}",
            NONE if one.expected is None else f"{100 * one.expected:.1f}",
            NONE if one.effective is None else f"{100 * one.effective:+.1f}",
        ]
        for one in report.robustness
    ]
    said = (
        "Expected: by a line through the other methods' accuracies on both, in logits (Taori et"
        " al. 2020). Effective robustness is what a method has beyond it."
    )
    return TextTable(
        "Effective robustness", head, lines, frozenset(head[3:]), ("usual", "shifted"), [said]
    )


def pivot(report: StudyReport, rows: str, columns: str, value: str = "accuracy") -> TextTable:
    """Return one axis of a study against another: the mean over all others, and how many runs.

    Args:
        report: the study.
        rows: the axis whose values are the lines.
        columns: the axis whose values are the columns.
        value: what is shown, one of `VALUES`.

    Raises:
        UserError: there is no such axis.
    """
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
        [line, *(_pivoted(cells.get((line, head), []), value) for head in heads)] for line in lines
    ]
    others = [name for name in report.axes if name not in (rows, columns)]
    varied = [n for n in others if len({row.axes.get(n, NONE) for row in report.rows}) > 1]
    said = []
    if varied and value != "status":
        said = [f"Each is the mean over {', '.join(varied)}; ± is the standard deviation of runs."]
    shown = f"{METRICS[value].words}, %" if value in METRICS else value
    title = f"{report.name}: {shown}"
    return TextTable(title, [rows, *heads], text, frozenset(heads), (), [*said, *report.notes[:1]])


def _pivoted(rows: Sequence[StudyRow], value: str) -> str:
    if value == "status":
        return " ".join(dict.fromkeys(row.status for row in rows)) or NONE
    found = [float(one) for row in rows if (one := getattr(row, value)) is not None]
    if not found:
        return NONE
    mean = sum(found) / len(found)
    if value in ("cost", "seconds", "n"):
        return f"{mean:,.0f}" if mean >= 10 else f"{mean:.2f}"
    shown = f"{100 * mean:.1f}"
    if len(found) > 1:
        deviation = (sum((one - mean) ** 2 for one in found) / (len(found) - 1)) ** 0.5
        shown += f" ±{100 * deviation:.1f}"
    return shown


def _place(row: StudyRow, axes: Sequence[str]) -> str:
    return ", ".join(row.axes[name] for name in axes if name in row.axes)
