"""Boards: rows that are ranked together, above them what all share, and the columns of tables."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby, product
from math import floor
from string import ascii_uppercase
from typing import Literal, Self

from bench.contracts.metric_spec import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.specs import provenance
from bench.discovery.queries import metric_specs, non_default_params
from bench.reports.facts import (
    Column,
    Fact,
    Mark,
    assignments,
    metric_unit,
    percent_text,
    points_text,
    template_text,
    value_text,
)
from bench.reports.leaderboard.rows import REPORTED, SUBSET, WRONG, LeaderboardRow
from bench.reports.rows import Currency, accuracy_fact
from bench.reports.run_facts import FIRST_SETTINGS, without_defaults
from bench.reports.text import Table, make_table
from bench.stats.metrics.comparison import Settings, data_apart
from bench.store.errata import own_list

PROMPT_SETTINGS = ("prompt", "template")
DENOISER_SETTINGS = ("draws", "loss", "space", "plan", *PROMPT_SETTINGS)
IN_SETTINGS = frozenset({"draws"})  # kinds of labels that tables show as a setting
Layout = Literal["usual", "wide", "page"]
CURRENCIES: Mapping[Currency, str] = {  # what a cost is counted in, on the axis of a figure
    "evaluations": "cost, evaluation equivalents per image",
    "flop": "TFLOP per image, without encoders",
    "seconds": "scoring time per image in seconds, each on its own machine",
}
COST_HEADS: Mapping[Currency, str] = {"evaluations": "cost", "flop": "TFLOP", "seconds": "s"}


def legend() -> str:
    """Return how to read boards, in a line of 80 characters; the glossary has the rest."""
    return (
        "Intervals: 95 %. `bench explain rank cost mark` says more. Errata: version"
        f" {own_list()[0]}."
    )


@dataclass(frozen=True)
class BoardLine:
    """A row of a board, with what tells it apart from the others."""

    row: LeaderboardRow
    key: str  # letters that label its point in figures
    marks: Mapping[str, Mark]  # by kind
    params: Parameters  # parameters of the strategy that not all rows share
    settings: Settings  # other settings that not all rows share
    source: int | None = None  # number of the source of a reported result


@dataclass(frozen=True)
class Board:
    """The results on one split of one dataset, best accuracy first, and what all of them share."""

    title: str
    common: list[str]  # labels that all rows have in common
    shared: dict[str, Settings]  # settings that all rows have in common, by which rows have them
    lines: list[BoardLine]
    metrics: list[MetricSpec]  # metrics of which a row has a value, besides the accuracy
    sources: list[str]  # of reported results; models have their numbers
    currency: Currency = "evaluations"  # what costs are counted in
    asked: str | None = None  # metric that has a column in every layout

    def table(
        self,
        layout: Layout = "usual",
        name: Callable[[LeaderboardRow], str] | None = None,
        link: Callable[[LeaderboardRow], str] | None = None,
    ) -> Table:
        """Return the board as a table.

        A `wide` table has every metric, a column for each setting that differs, and marks in full;
        that of a `page` also has the keys of figures. `name` returns the name of a row's run, for a
        last column; `link` returns the address of its section on a page.
        """
        wide, page = layout == "wide", layout == "page"
        columns: list[Column[BoardLine]] = [
            *([Column("key", lambda line: f"{line.key:>3}")] if page else []),  # B is before AA
            Column("rank", lambda line: line.row.rank, "rank"),
            Column("model", lambda line: _model(line, link)),
            Column("strategy", lambda line: _strategy(line, all_settings=not wide)),
            Column("accuracy", lambda line: accuracy_fact(line.row), "share"),
            *(_metric_column(m) for m in self.metrics if wide or m.name == self.asked),
            Column(COST_HEADS[self.currency], lambda line: line.row.spent(self.currency), "cost"),
        ]
        if wide and self.currency != "seconds":
            columns += [Column("s", lambda line: line.row.seconds_per_image, "cost")]
        if not self.images:
            columns += [Column("images", lambda line: line.row.n_samples, "count")]
        if wide:
            own_first = sorted(self.lines, key=lambda line: line.row.kind == REPORTED)
            names = dict.fromkeys(n for line in own_first for n in line.settings)
            columns += map(_setting_column, names)
        if any(line.marks for line in self.lines):
            columns += [Column("marks", lambda line: _marks(line, wide))]
        if name is not None:
            columns += [Column("run", lambda line: name(line.row))]
        return make_table(
            self.title,
            columns,
            self.lines,
            above=self.above(wide),
            below=self.errata,
            sources=self.sources,
            cut=frozenset() if wide else frozenset({"strategy", "marks", "sources"}),
        )

    def above(self, wide: bool = True) -> str:
        """Return what all rows share; unless `wide`, without `FIRST_SETTINGS`."""
        parts = [*self.common, *self.images]
        if wide:
            parts += [kind + assignments(options) for kind, options in self.shared.items()]
        else:
            every = {k: v for options in self.shared.values() for k, v in options.items()}
            parts += [assignments({k: v for k, v in every.items() if k not in FIRST_SETTINGS})]
        return " · ".join(filter(None, parts))

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


def _model(line: BoardLine, link: Callable[[LeaderboardRow], str] | None) -> Fact:
    name = line.row.backbone + (f" ({line.source})" if line.source else "")
    return Fact("model", name, link=link(line.row) if link else "")


def _strategy(line: BoardLine, all_settings: bool) -> str:
    options = {**line.params, **(line.settings if all_settings else {})}
    return f"{line.row.strategy} {assignments(options)}".strip()


def _metric_column(metric: MetricSpec) -> Column[BoardLine]:
    return Column(metric.words, lambda line: line.row.metric(metric.name), metric_unit(metric))


def _setting_column(name: str) -> Column[BoardLine]:
    return Column(name, lambda line: value_text(line.settings.get(name)))


def _marks(line: BoardLine, wide: bool) -> Fact:
    """Return the marks of a row: their words, and on pages what these mean."""
    marks = {kind: Mark(mark.full) if wide else mark for kind, mark in line.marks.items()}
    shown = {kind: mark for kind, mark in marks.items() if mark.word}
    return Fact("marks", ", ".join(mark.word for mark in shown.values()), marks=shown)


def make_boards(
    rows: Sequence[LeaderboardRow], metric: str | None = None, currency: Currency = "evaluations"
) -> list[Board]:
    """Return the boards of rows that are grouped by board already.

    If several boards have the same dataset, split and version, their titles also name the data.
    `metric` is the name of a further metric, which has a column of its own.
    """
    examples: dict[str, dict[str | None, LeaderboardRow]] = {}  # name of boards → data → a row
    for row in sorted(rows, key=lambda row: row.path is None):  # runs first: their data is known
        examples.setdefault(_board_name(row), {}).setdefault(row.fingerprint, row)
    boards = []
    for (name, data), group in groupby(rows, key=lambda row: (_board_name(row), row.fingerprint)):
        same_name = examples[name]
        several = len(same_name) > 1 and data is not None
        title = name + (f", data {data[:8]}" if several else "")
        board = replace(_make_board(title, list(group), metric), currency=currency)
        first, *_ = same_name.values()
        if several and (why := _why_apart(first, same_name[data])):
            board.common.insert(0, why)
        boards.append(board)
    return boards


def _why_apart(first: LeaderboardRow, row: LeaderboardRow) -> str | None:
    """Return why a board is not the first one of its name, if both have a run."""
    if first.path is None or row.path is None:
        return None
    why = data_apart(first.run.manifest, row.run.manifest)
    return why and f"not the data {str(first.fingerprint)[:8]}: {why}"


def board_tables(
    rows: Sequence[LeaderboardRow],
    metric: str | None = None,
    currency: Currency = "evaluations",
    layout: Layout = "usual",
    name: Callable[[LeaderboardRow], str] | None = None,
) -> list[Table]:
    """Return a table per board; below the last one is how to read them."""
    tables = [board.table(layout, name) for board in make_boards(rows, metric, currency)]
    if tables:
        tables[-1].below.append(legend())
    return tables


def _board_name(row: LeaderboardRow) -> str:
    version = f", version {row.version}" if row.version else ""
    return f"{row.dataset}/{row.split}{version}"


def _make_board(title: str, rows: list[LeaderboardRow], metric: str | None) -> Board:
    """Return the board of some rows.

    Reported results state few settings, so the other rows alone decide what is shared, if there are
    any; a reported result keeps a setting that differs.
    """
    sources = list(dict.fromkeys(row.described for row in rows if row.kind == REPORTED))
    common, marks = board_labels(rows)
    settings = [{**_chosen_params(row), **row_settings(row)} for row in rows]
    shared, differing = _split_settings(rows, settings)
    metrics = [
        spec
        for spec in metric_specs().values()
        if (spec.column or spec.name == metric)
        and any(row.metric(spec.name) is not None for row in rows)
    ]
    lines = []
    for row, own, options, key in zip(rows, marks, differing, letter_keys(), strict=False):
        params = {name: options.pop(name) for name in _chosen_params(row) if name in options}
        source = sources.index(row.described) + 1 if row.kind == REPORTED else None
        lines.append(BoardLine(row, key, own, params, options, source))
    return Board(title, common, shared, lines, metrics, sources, asked=metric)


def letter_keys() -> Iterator[str]:
    """Yield A, B, … Z, AA, AB, … without end."""
    for length in count(1):
        yield from map("".join, product(ascii_uppercase, repeat=length))


def row_labels(row: LeaderboardRow) -> dict[str, Mark]:
    """Return the labels of a row, which say how it differs from a usual one, by kind."""
    labels = {}
    if row.kind == SUBSET:
        part = f"subset of {row.n_total:,}"
        labels[SUBSET] = Mark("stopped", row.stopped) if row.stopped else Mark(SUBSET, part)
        labels |= {"replayed": Mark("replayed")} if row.replayed_from else {}
    elif row.kind not in ("measured", "candidates", WRONG):
        labels[row.kind] = Mark(row.kind)
    if row.errata_marks:
        word = row.errata_marks.replace("possibly wrong", "wrong?").replace("old promise", "old")
        labels["errata"] = Mark(word, row.errata_marks)
    if (recall := row.metric("candidate_recall")) is not None:
        text = f"among {row.settings.get('top')} candidates, recall {percent_text(recall)} %"
        labels["candidates"] = Mark("candidates", text)
    if (test := row.against_first) is not None:
        ends = None if row.stopped else test.difference.interval  # which is of a fixed number
        labels["difference"] = Mark("", points_text(test.difference.estimate, ends))
    training = provenance(row.trained_on)
    labels["trained" if row.trained_on else "zero-shot"] = Mark(training.split()[0], training)
    if (plan := row.settings.get("plan", "grid")) != "grid":  # not the default plan
        labels["draws"] = Mark("draws", f"draws {plan}")
    if row.cost_timed:
        labels["timed"] = Mark("timed", "cost timed")
    if row.in_memory:
        labels["in-memory"] = Mark("in-memory", f"{row.in_memory} in memory")
    if row.adapters:
        labels["LoRA"] = Mark("LoRA", f"LoRA {row.adapters}")
    if (audit := row.audit) is not None:
        same = f"{audit.same:,} of {audit.images:,} as the full sweep"
        least = f"≥ {floor(1000 * audit.agreement_ci95[0]) / 10:g} %"
        labels["audited"] = Mark("audited", f"{same}, {least}")
    if row.private_data:
        labels["private"] = Mark("private", "private data")
    if row.n_declared not in (None, row.n_total):
        text = f"split of {row.n_total:,} images, {row.n_declared:,} are declared"
        labels["declared"] = Mark("partial", text)
    if row.failed_samples:
        labels["failed"] = Mark("failed", f"{row.failed_samples:,} failed")
    return labels


def board_labels(rows: Sequence[LeaderboardRow]) -> tuple[list[str], list[dict[str, Mark]]]:
    """Return the labels that the own rows of a board share, and the other labels of each row.

    The training data of most rows counts as shared. On a board with published runs, others are
    marked.
    """
    some_published = any(row.published for row in rows)
    labels = [row_labels(row) for row in rows]
    for row, of_row in zip(rows, labels, strict=True):
        if some_published and row.path and not row.published:
            of_row["yours"] = Mark("yours")
    own = own_row_indices(rows)
    training = Counter(provenance(rows[index].trained_on) for index in own)
    usual, most = training.most_common(1)[0]
    labels = [{k: v for k, v in marks.items() if v.full != usual} for marks in labels]
    shared = {
        kind: mark
        for kind, mark in labels[own[0]].items()
        if len(rows) > 1 and all(labels[index].get(kind) == mark for index in own)
    }
    common = [usual + " unless marked" * (most < len(own))]
    common += [mark.full for kind, mark in shared.items() if kind not in IN_SETTINGS]
    marks = [
        {k: v for k, v in of_row.items() if k not in IN_SETTINGS and shared.get(k) != v}
        for of_row in labels
    ]
    return common, marks


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
) -> tuple[dict[str, Settings], list[Settings]]:
    """Return the settings that the own rows share, by which rows, and the others of each row.

    One of `DENOISER_SETTINGS` may be missing in rows of classifiers, which have no loss either.
    """
    own = [settings[index] for index in own_row_indices(rows)]
    shared = _shared_settings(own)
    differing = [
        {k: v for k, v in options.items() if k not in shared or v != shared[k]}
        for options in settings
    ]
    kinds: dict[str, Settings] = {"": {}, "rows with draws: ": {}, "rows with prompts: ": {}}
    for name, value in shared.items():
        by_prompt = "rows with prompts: " if name in PROMPT_SETTINGS else "rows with draws: "
        kinds["" if all(name in options for options in own) else by_prompt][name] = value
    return {kind: options for kind, options in kinds.items() if options}, differing


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
