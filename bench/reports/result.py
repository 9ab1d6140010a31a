"""Objects for Python and notebooks: results of runs, comparisons and studies."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from bench.discovery.queries import metric_specs
from bench.errors import UserError, images_failed
from bench.inputs.split import Split
from bench.machine.libraries import DataFrame, Figure, JsonValue, pd
from bench.reports.comparisons import comparison_facts
from bench.reports.facts import Fact, metric_fact
from bench.reports.html import to_html
from bench.reports.run_facts import cost_fact, description, errata, images_fact, scores
from bench.reports.run_view import SAMPLE_COLUMNS, RunView, view_of
from bench.reports.study.documents import StudyReport
from bench.reports.study.figures import forest_plot
from bench.reports.study.tables import study_tables
from bench.reports.text import Table, escape_html
from bench.running.classify import Answer
from bench.running.execute import Finished
from bench.stats.metrics.comparison import Comparison
from bench.store.errata import Touch
from bench.store.formats.documents import Manifest
from bench.store.summary import Summary

MOST_METHODS = 6  # in the text of a study


class Fields(dict[str, Any]):
    """A dictionary whose items can also be read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}; there are: {', '.join(self)}") from None
        return Fields(value) if isinstance(value, Mapping) else value

    @override
    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]


class RunResult(Fields):
    """The result of a run: a mapping with the keys of `bench run --json`, as attributes too.

    Examples are `run.metrics.accuracy`, `run.metrics.accuracy_ci95`, the 95 % interval,
    `run.cost.evaluations_per_image`, `run.answer`, the answer to the question of `until`, and
    `run.published`, whether the run is a published one. A notebook shows a table.
    """

    def __init__(self, finished: Finished, data: Callable[[], Split] | None = None) -> None:
        super().__init__(finished.plain())
        self.__dict__.update(folder=finished.folder, _finished=finished, _data=data)

    folder: Path  # where the run is stored
    _finished: Finished
    _data: Callable[[], Split] | None

    @property
    def samples(self) -> DataFrame:
        """One row per image: sample_id, label, prediction (class names), correct, margin, …."""
        return pd.DataFrame(list(self._view.samples), columns=list(SAMPLE_COLUMNS))

    def to_pandas(self) -> DataFrame:
        """Return `samples`."""
        return self.samples

    @property
    def manifest(self) -> Manifest:
        """Settings, identity, classes, prompts and versions of the run."""
        return self._finished.manifest

    @property
    def summary(self) -> Summary:
        """Metrics and cost."""
        return self._finished.summary

    @property
    def errata(self) -> list[Touch]:
        """What was wrong in runs such as this one: `name`, `what`, `state`, `mended`."""
        return self._view.errata

    @property
    def command(self) -> str:
        """The command that makes the run again."""
        from bench.running.command import reproducing_command

        return reproducing_command(self.manifest)

    def error_figure(self) -> Figure:
        """Draw errors of the true and the best wrong class; UserError if no errors were kept."""
        from bench.reports.figures.plots import draw_errors, errors_by_timestep
        from bench.running.command import recording_command

        curves = errors_by_timestep(self._view)
        if curves is None:
            raise UserError(
                f"{self.manifest.run_id} kept no errors by noise level. Record them with:"
                f" {recording_command(self.manifest)}"
            )
        return draw_errors(curves).figure()

    def confusion_figure(self) -> Figure:
        """Draw the confusion matrix; UserError if the run decided items, which have no classes."""
        from bench.reports.figures.run_pictures import draw_confusion

        if self.manifest.items is not None:
            raise UserError(f"{self.manifest.run_id} decided items, which have no classes.")
        return draw_confusion(self._view.decided, self.manifest, self.summary).figure()

    def examples_figure(self) -> Figure:
        """Draw images with their classes; UserError if the data is not on this machine."""
        from bench.reports.figures.run_pictures import draw_examples

        split = self._data() if self._data else None
        return draw_examples(self._view.decided, self.manifest, split).figure()

    @property
    def _view(self) -> RunView:
        return view_of(self._finished)

    @override
    def __repr__(self) -> str:
        run = self._view
        facts = scores(run)[0], images_fact(run)
        shown = "; ".join(f"{fact.label} {fact.line}" for fact in facts)
        return f"RunResult({self._title}: {shown})"

    def _repr_html_(self) -> str:
        run, failed = self._view, self.summary.failed_samples
        facts = [*errata(run), *scores(run), cost_fact(run), images_fact(run), *description(run)]
        if failed:
            facts.append(Fact("failed", f"{images_failed(failed)}, counted as wrong"))
        rows = [[fact.label, fact.line] for fact in facts]
        return to_html([Table(self._title, ["fact", "value"], rows)])

    @property
    def _title(self) -> str:
        return self.summary.run_id + (" (published)" if self["published"] else "")


class ComparisonResult(Comparison):
    """The comparison of two runs, as `bench compare --json` prints it."""

    def to_pandas(self) -> DataFrame:
        """Return one row per class with images."""
        rows = [row.model_dump(mode="json", by_alias=True) for row in self.per_class]
        return pd.DataFrame([_flat(row, "difference") for row in rows])

    @override
    def __repr__(self) -> str:
        facts = ", ".join(f"{fact.label}: {fact.line}" for fact in comparison_facts(self))
        return f"ComparisonResult({facts})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [[fact.label, fact.line] for fact in comparison_facts(self)]
        return to_html([Table("B − A", ["fact", "value"], rows, below=self.warnings)])


class AnswerList(list[Answer]):
    """The answers of `bench.classify`, one per image."""

    def to_pandas(self) -> DataFrame:
        """Return one row per image, without the ranking."""
        left_out = {"ranking", "confidence"}
        return pd.DataFrame([answer.model_dump(exclude=left_out) for answer in self])

    def _repr_html_(self) -> str:
        lines = [dict(answer.__repr_args__()) for answer in self]
        head = list(dict.fromkeys(str(name) for line in lines for name in line))
        rows = [[str(line.get(name, "–")) for name in head] for line in lines]
        return to_html([Table("Answers", head, rows)])


class StudyResult(StudyReport):
    """A study: its runs, its methods with their spread, and their differences.

    Its fields are what `bench study FILE --show --json` prints.
    """

    def to_pandas(self, table: Literal["runs", "methods", "differences"] = "runs") -> DataFrame:
        """Return a table of the runs, with a column per axis, or of the methods or differences."""
        if table == "runs":
            return pd.DataFrame([_flat(row.plain(), "axes") for row in self.rows])
        if table == "methods":
            plain = [method.model_dump(mode="json") for method in self.methods]
            return pd.DataFrame([_flat(row, "axes", "spread") for row in plain])
        if table == "differences":
            pairs = [(of.board, pair) for of in self.differences for pair in of.differences]
            plain = [{"board": board, **pair.model_dump(mode="json")} for board, pair in pairs]
            return pd.DataFrame([_flat(row, "difference") for row in plain])
        raise UserError(f"to_pandas({table!r}): expected 'runs', 'methods' or 'differences'.")

    def forest_figure(self) -> Figure:
        """Draw the accuracy of every method with its interval; UserError if nothing is decided."""
        return forest_plot(self).figure()

    @override
    def __repr__(self) -> str:
        metric, parts = metric_specs()[self.metric], [f"{self.done} of {self.cells} runs"]
        for method in self.methods[:MOST_METHODS]:
            fact = metric_fact(metric, method.shown.value, method.shown.interval)
            parts.append(f"{method.board} {method.method}: {fact.label} {fact.text}")
        more = "; …" if len(self.methods) > MOST_METHODS else ""
        return f"StudyResult({self.name!r}, {'; '.join(parts)}{more})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        progress = f"<p>{escape_html(self.name)}: {self.done} of {self.cells} runs</p>"
        return progress + to_html(study_tables(self))


def _flat(row: Mapping[str, JsonValue], *names: str) -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for name in names:
        part = row[name]
        assert isinstance(part, dict)
        flat |= part
    return {**flat, **{n: v for n, v in row.items() if n not in flat and n not in names}}
