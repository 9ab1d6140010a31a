"""Boards: rows that are ranked together, above them what all share, and the columns of tables."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import floor
from string import ascii_uppercase
from typing import Literal, Self

from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.specs import provenance
from bench.discovery.queries import metric_specs, non_default_params
from bench.reports.facts import (
    Column,
    Fact,
    assignments,
    metric_unit,
    percent_text,
    points_text,
    template_text,
    value_text,
)
from bench.reports.leaderboard.ranking import RANKED
from bench.reports.leaderboard.rows import REPORTED, SUBSET, WRONG, LeaderboardRow
from bench.reports.rows import Currency, accuracy_fact
from bench.reports.run_view import without_defaults
from bench.reports.text import Table, make_table
from bench.stats.comparison import Settings, data_apart
from bench.store.errata import checked_errata

PROMPT_SETTINGS = ("prompt", "template")
DENOISER_SETTINGS = ("draws", "loss", "space", "plan", *PROMPT_SETTINGS)
DETAILS = frozenset({"timed", "in-memory", "audited"})  # kinds of labels of wide tables alone
IN_SETTINGS = frozenset({"draws"})  # kinds of labels that tables show as a setting
Layout = Literal["narrow", "wide", "page"]
CURRENCIES: Mapping[Currency, str] = {  # what a cost is counted in, below tables and figures
    "evaluations": "cost, evaluation equivalents per image; a classifier: one pass",
    "flop": "TFLOP per image, without encoders of images and prompts",
    "seconds": "scoring time per image in seconds, each on its own machine",
}


@dataclass(frozen=True)
class BoardLine:
    """A row of a board, with what tells it apart from the others."""

    row: LeaderboardRow
    key: str  # letters that label its point in figures
    marks: Mapping[str, str]  # kind → text
    params: Parameters  # parameters of the strategy that not all rows share
    settings: Settings  # other settings that not all rows share


@dataclass(frozen=True)
class Board:
    """The results on one split of one dataset, best accuracy first, and what all of them share."""

    title: str
    shared: list[str]  # what all rows have in common
    lines: list[BoardLine]
    metrics: list[MetricSpec]  # metrics of which a row has a value, besides the accuracy
    sources: list[str]  # of reported results; marks refer to their numbers
    currency: Currency = "evaluations"  # what costs are counted in

    def table(
        self,
        layout: Layout = "wide",
        name: Callable[[LeaderboardRow], str] | None = None,
        link: Callable[[LeaderboardRow], str] | None = None,
    ) -> Table:
        """Return the board as a table.

        A `narrow` table has one line per row on a terminal, a `wide` one a column for each setting
        that differs, and that of a `page` has the keys, and names its runs with marks and settings.
        `name` returns the name of a row's run, for a last column; `link` returns the address of its
        section on a page.
        """
        page, narrow = layout == "page", layout == "narrow"
        columns: list[Column[BoardLine]] = []
        if page:
            columns += [Column("key", lambda line: f"{line.key:>3}")]  # so that B is before AA
        columns += [Column("rank", lambda line: line.row.rank, "rank")]
        if page:
            columns += [Column("run", lambda line: _run_fact(line, link))]
        else:
            columns += [
                Column("model", lambda line: line.row.backbone),
                Column("strategy", lambda line: _strategy(line, all_settings=narrow)),
            ]
        columns += [Column("accuracy", lambda line: accuracy_fact(line.row), "share")]
        columns += [_metric_column(m) for m in self.metrics if not (narrow and m.column)]
        named = {"flop": "TFLOP", "seconds": "s"}.get(self.currency, "cost")
        columns += [Column(named, lambda line: line.row.spent(self.currency), "cost")]
        if not narrow and self.currency != "seconds":
            columns += [Column("s", lambda line: line.row.seconds_per_image, "cost")]
        if not narrow and not self.images:
            columns += [Column("n", lambda line: line.row.n_samples, "count")]
        if layout == "wide":
            own_first = sorted(self.lines, key=lambda line: line.row.kind == REPORTED)
            names = dict.fromkeys(n for line in own_first for n in line.settings)
            columns += map(_setting_column, names)
        if not page:
            details = DETAILS if narrow else frozenset()
            if any(_marks(line, details) for line in self.lines):
                columns += [Column("marks", lambda line: _marks(line, details))]
        if name is not None:
            columns += [Column("run", lambda line: name(line.row))]
        above = " · ".join([*self.shared, *self.images])
        cut = frozenset({"model", "strategy", "marks"} if narrow else ())
        return make_table(
            self.title,
            columns,
            self.lines,
            above=above,
            below=self.errata,
            sources=self.sources,
            cut=cut,
        )

    @property
    def images(self) -> list[str]:
        """The number of images, if all rows have the same."""
        counts = {line.row.n_samples for line in self.lines}
        return [f"{n:,} image{'s' * (n != 1)}" for n in counts if n and len(counts) == 1]

    @property
    def errata(self) -> list[str]:
        """What was wrong in runs such as those that a mark says so of, as sentences."""
        marked = (touch for line in self.lines for touch in line.row.errata if touch.mark)
        texts = (f"{touch.mark[0].upper()}{touch.mark[1:]}: {touch.sentence}" for touch in marked)
        return list(dict.fromkeys(texts))

    @property
    def in_comparable_cost(self) -> Self:
        """The board with costs in operations, if those of several networks are all known."""
        rows = [line.row for line in self.lines]
        several = len({row.backbone for row in rows}) > 1
        if several and all(row.flop_per_image is not None for row in rows):
            return replace(self, currency="flop")
        return self


def _run_fact(line: BoardLine, link: Callable[[LeaderboardRow], str] | None) -> Fact:
    row, address = line.row, link(line.row) if link else ""
    options = assignments({**line.params, **line.settings})
    note = row.source if row.kind == REPORTED else options
    name = f"{row.backbone} · {row.strategy}"
    return Fact("run", name, note=note, link=address, marks=line.marks)


def _strategy(line: BoardLine, all_settings: bool) -> str:
    options = {**line.params, **(line.settings if all_settings else {})}
    return f"{line.row.strategy} {assignments(options)}".strip()


def _metric_column(metric: MetricSpec) -> Column[BoardLine]:
    return Column(metric.words, lambda line: line.row.metric(metric.name), metric_unit(metric))


def _setting_column(name: str) -> Column[BoardLine]:
    return Column(name, lambda line: value_text(line.settings.get(name)))


def _marks(line: BoardLine, left_out: frozenset[str]) -> str:
    return ", ".join(text for kind, text in line.marks.items() if kind not in left_out)


def make_boards(
    rows: Sequence[LeaderboardRow], metric: str | None = None, currency: Currency = "evaluations"
) -> list[Board]:
    """Return the boards of rows that are grouped by board already.

    If boards have the same dataset, split and version, their titles also name the data. `metric` is
    a metric that gets a column at the user's request.
    """
    firsts: dict[str, dict[str | None, LeaderboardRow]] = {}  # of each board, by its name and data
    for row in sorted(rows, key=lambda row: row.path is None):  # a run tells what its data is
        firsts.setdefault(_name(row), {}).setdefault(row.fingerprint, row)
    made = []
    for (name, data), group in groupby(rows, key=lambda row: (_name(row), row.fingerprint)):
        same_name = firsts[name]
        several = len(same_name) > 1 and data is not None
        title = name + (f", data {data[:8]}" if several else "")
        board = replace(_board(title, list(group), metric), currency=currency)
        if several and (why := _why_apart(next(iter(same_name.values())), same_name[data])):
            board.shared.insert(0, why)
        made.append(board)
    return made


def _why_apart(first: LeaderboardRow, row: LeaderboardRow) -> str | None:
    """Return why a board is not the first one of its name, if both have a run."""
    if first.path is None or row.path is None:
        return None
    why = data_apart(first.run.manifest, row.run.manifest)
    return why and f"not the data {str(first.fingerprint)[:8]}: {why}"


def board_tables(
    rows: Sequence[LeaderboardRow],
    name: Callable[[LeaderboardRow], str] | None = None,
    metric: str | None = None,
    currency: Currency = "evaluations",
) -> list[Table]:
    """Return a wide table per board; below the last one, ranks are explained."""
    tables = [board.table(name=name) for board in make_boards(rows, metric, currency)]
    if tables:
        tables[-1].below.append(f"{RANKED} {checked_errata()}")
    return tables


def _name(row: LeaderboardRow) -> str:
    version = f", version {row.version}" if row.version else ""
    return f"{row.dataset}/{row.split}{version}"


def _board(title: str, rows: list[LeaderboardRow], metric: str | None) -> Board:
    """Return a board.

    Reported results state few settings, so the other rows alone decide what is shared, if there are
    any; a reported result keeps a setting that differs.
    """
    sources = list(dict.fromkeys(str(row.source) for row in rows if row.kind == REPORTED))
    common, marks = board_labels(rows, sources)
    settings = [{**_chosen_params(row), **row_settings(row)} for row in rows]
    shared, differing = _split_settings(rows, settings)
    metrics = [
        spec
        for spec in metric_specs().values()
        if (spec.column or spec.name == metric)
        and any(row.metric(spec.name) is not None for row in rows)
    ]
    lines = []
    for position, (row, own, options) in enumerate(zip(rows, marks, differing, strict=True)):
        params = {name: options.pop(name) for name in _chosen_params(row) if name in options}
        lines.append(BoardLine(row, letter_key(position), own, params, options))
    return Board(title, [*common, *shared], lines, metrics, sources)


def letter_key(position: int) -> str:
    """Return A, B, … Z, AA, AB, … for the positions 0, 1, … of a list."""
    text = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, len(ascii_uppercase))
        text = ascii_uppercase[rest] + text
    return text


def row_labels(row: LeaderboardRow) -> dict[str, str]:
    """Return the labels of a row, which say how it differs from a usual one, as kind → text."""
    labels = {}
    if row.kind == SUBSET:
        labels[SUBSET] = row.stopped or f"subset of {row.n_total:,}"
        labels |= {"replayed": "replayed"} if row.replayed_from else {}
    elif row.kind not in ("measured", "candidates", WRONG):
        labels[row.kind] = row.kind
    if marks := [touch.mark for touch in row.errata if touch.mark]:
        labels["errata"] = ", ".join(dict.fromkeys(marks))
    if (recall := row.metric("candidate_recall")) is not None:
        top = row.settings.get("top")
        labels["candidates"] = f"among {top} candidates, recall {percent_text(recall)} %"
    if (test := row.against_first) is not None:
        ends = None if row.stopped else test.difference.interval  # which is of a fixed number
        labels["difference"] = points_text(test.difference.estimate, ends)
    labels["trained" if row.trained_on else "zero-shot"] = provenance(row.trained_on)
    if (plan := row.settings.get("plan", "grid")) != "grid":  # not the default plan
        labels["draws"] = f"draws {plan}"
    if row.cost_timed:
        labels["timed"] = "cost timed"
    if row.in_memory:
        labels["in-memory"] = f"{row.in_memory} in memory"
    if row.adapters:
        labels["LoRA"] = f"LoRA {row.adapters}"
    if (audit := row.audit) is not None:
        same = f"{audit.same:,} of {audit.images:,} as the full sweep"
        labels["audited"] = f"{same}, ≥ {floor(1000 * audit.agreement_ci95[0]) / 10:g} %"
    if row.private_data:
        labels["private"] = "private data"
    if row.n_declared not in (None, row.n_total):
        labels["declared"] = f"split of {row.n_total:,} images, {row.n_declared:,} are declared"
    if row.failed_samples:
        labels["failed"] = f"{row.failed_samples:,} failed"
    return labels


def board_labels(
    rows: Sequence[LeaderboardRow], sources: Sequence[str]
) -> tuple[list[str], list[dict[str, str]]]:
    """Return the labels that the own rows of a board share, and the other labels of each row.

    The training data of most rows counts as shared. On a board with published runs, others are
    marked. The label of a reported result has the number of its source among `sources`.
    """
    some_published = any(row.published for row in rows)
    labels = [_labels_on_board(row, sources, some_published) for row in rows]
    own = own_row_indices(rows)
    training = Counter(provenance(rows[index].trained_on) for index in own)
    usual, count = training.most_common(1)[0]
    labels = [{k: v for k, v in texts.items() if v != usual} for texts in labels]
    shared = {
        kind: text
        for kind, text in labels[own[0]].items()
        if len(rows) > 1 and all(labels[index].get(kind) == text for index in own)
    }
    common = [usual + " unless marked" * (count < len(own))]
    common += [text for kind, text in shared.items() if kind not in IN_SETTINGS]
    marks = [
        {k: v for k, v in texts.items() if k not in IN_SETTINGS and shared.get(k) != v}
        for texts in labels
    ]
    return common, marks


def _labels_on_board(
    row: LeaderboardRow, sources: Sequence[str], some_published: bool
) -> dict[str, str]:
    """Return `row_labels` with what the board adds: the source's number, or whose run it is."""
    if row.kind == REPORTED:
        return row_labels(row) | {REPORTED: f"{REPORTED} ({sources.index(str(row.source)) + 1})"}
    return row_labels(row) | ({"yours": "yours"} if some_published and not row.published else {})


def row_settings(row: LeaderboardRow) -> Settings:
    """Return the settings that affect the results of a row, except the strategy's parameters.

    `draws` is included, although it is one of them. Parameters of the backbone are left out if they
    have their default.
    """
    draws = None if row.classifier else row.params.get("draws")
    settings = without_defaults(row.backbone, {"draws": draws, **row.settings})
    if draws == 1:
        settings.pop("reduction", None)  # every reduction of one draw gives the same number
    if (prompt := settings.get("prompt")) is not None:
        settings["prompt"] = f"“{prompt}”"
    if "template" in settings:
        settings["template"] = template_text(settings["template"])
    return {name: value for name, value in settings.items() if value is not None}


def own_row_indices(rows: Sequence[LeaderboardRow]) -> list[int]:
    """Return the indices of the rows that are not reported results; of all rows if none is."""
    own = [index for index, row in enumerate(rows) if row.kind != REPORTED]
    return own or list(range(len(rows)))


def _split_settings(
    rows: Sequence[LeaderboardRow], settings: Sequence[Settings]
) -> tuple[list[str], list[Settings]]:
    """Return the settings that the own rows share, as texts, and the other settings of each row.

    One of `DENOISER_SETTINGS` may be missing in rows of classifiers, which have no loss either.
    """
    own = [settings[index] for index in own_row_indices(rows)]
    shared = _shared_settings(own)
    differing = [
        {k: v for k, v in options.items() if k not in shared or v != shared[k]}
        for options in settings
    ]
    kinds: dict[str, dict[str, object]] = {
        "": {},
        "rows with draws: ": {},
        "rows with prompts: ": {},
    }
    for name, value in shared.items():
        by_prompt = "rows with prompts: " if name in PROMPT_SETTINGS else "rows with draws: "
        kinds["" if all(name in options for options in own) else by_prompt][name] = value
    return [kind + assignments(options) for kind, options in kinds.items() if options], differing


def _shared_settings(own: Sequence[Settings]) -> Settings:
    """Return the settings that all rows have, or all but classifiers, with the same value."""
    shared: Settings = {}
    # The row with the most settings comes first, so that names keep the order of `row_settings`.
    longest_first = sorted(own, key=len, reverse=True)
    for name in dict.fromkeys(name for options in longest_first for name in options):
        values = [options[name] for options in own if name in options]
        without = [options for options in own if name not in options]
        may_lack = name in DENOISER_SETTINGS and not any("loss" in options for options in without)
        if all(value == values[0] for value in values) and (may_lack or not without):
            shared[name] = values[0]
    return shared


def _chosen_params(row: LeaderboardRow) -> Parameters:
    """Return the strategy's parameters that are not at their default, except `draws`."""
    params = non_default_params("strategies", row.strategy, row.params)
    return {name: value for name, value in params.items() if name != "draws"}


def comparable(lines: Sequence[BoardLine]) -> Iterator[list[BoardLine]]:
    """Yield the lines that have the same training data, number of images and unit of cost."""
    groups: dict[tuple[tuple[str, str], int | None, bool], list[BoardLine]] = {}
    for line in lines:
        row = line.row
        if row.kind in ("measured", SUBSET, "replayed"):
            key = (row.training, row.n_samples, row.classifier)
            groups.setdefault(key, []).append(line)
    yield from groups.values()
