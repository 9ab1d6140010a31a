"""`RunView`: a stored run with its decisions and results, which all tables and pages show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.reports.text import escape_hidden
from bench.stats.calibration.agreement import Audit, audit_of
from bench.stats.metrics.metric_values import MeasuredMetric
from bench.stats.metrics.summarise import summary_so_far, up_to_date
from bench.store.errata import Touch, touched
from bench.store.folder import requested_records
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import Manifest
from bench.store.questions import AskedQuestion, QuestionAnswer, ending_answer, read_questions
from bench.store.runs import StoredRun, read_run, read_runs, warn_left_out
from bench.store.summary import Repeated, Summary, read_again, read_swept

if TYPE_CHECKING:
    from bench.recordings.recording import Recording
    from bench.running.execute import Finished

SampleRow = dict[str, Any]
"""One decided image, by column. If it failed, `prediction` is None and `error` is its message."""

SAMPLE_COLUMNS = {
    "sample_id": "string",
    "label": "string",
    "prediction": "string",
    "correct": "bool",
    "score": "double",
    "margin": "double",
    "margin_stderr": "double",
    # The `confidence` of the record. It is None for strategies that choose when to stop: they stop
    # when the margin is large, which biases it.
    "stability": "double",
    "evaluations": "int64",
    "seconds": "double",
    "error": "string",
}
"""Column of `RunView.samples` → its Arrow type."""


@dataclass(frozen=True)
class RunView:
    """A stored run; most of its properties are read or computed when they are first used."""

    stored: StoredRun
    measured: MeasuredMetric | None = None  # requested metric
    label: tuple[str, str] | None = None  # (column, value) by which its images were filtered

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.stored.path

    @property
    def manifest(self) -> Manifest:
        """Settings, identity, classes, prompts and versions."""
        return self.stored.manifest

    @cached_property
    def decided(self) -> Decisions:
        """The decisions, which stay in memory."""
        return self.decisions()

    def decisions(self, top: bool = True) -> Decisions:
        """Return the decisions: `decided` if it is in memory, or else read them without keeping."""
        in_memory: Decisions | None = self.__dict__.get("decided")
        return self.stored.decided(top) if in_memory is None else in_memory

    @cached_property
    def so_far(self) -> Summary | None:
        """The summary of the decided images; None if there are none."""
        if self.stored.complete:
            summary = self.stored.summary
            return summary and up_to_date(summary, self.manifest, self.decisions)
        decided = self.decisions()
        if not len(decided):
            return None
        return summary_so_far(self.manifest, self.stored.summary, decided)

    @property
    def summary(self) -> Summary:
        """The summary of the decided images; there must be at least one such image."""
        assert self.so_far is not None
        return self.so_far

    @property
    def n(self) -> int:
        """Number of decided images."""
        return self.so_far.dataset.n_samples if self.so_far else 0

    @cached_property
    def classes(self) -> list[str]:
        """Class names in label order, with control characters escaped."""
        return [escape_hidden(name) for name in self.manifest.classes]

    @cached_property
    def questions(self) -> list[AskedQuestion]:
        """Questions (`--until`) whose answers could end the run."""
        return read_questions(self.path, self.manifest)

    @property
    def stop(self) -> QuestionAnswer | None:
        """Answer that ended the run; None if none did."""
        return ending_answer(self.questions, self.n)

    @cached_property
    def again(self) -> Repeated | None:
        """Changes among decisions that were repeated with other noise; None if none were."""
        return read_again(self.path, self.manifest, self.decisions())

    @cached_property
    def audit(self) -> Audit | None:
        """Agreement with the full sweep of images that were swept; None if none were."""
        swept = read_swept(self.path, self.manifest)
        return audit_of(swept, self.manifest, self.decisions()) if swept else None

    @cached_property
    def errata(self) -> list[Touch]:
        """What was wrong in runs such as this one; see `bench.store.errata`."""
        return touched(self.manifest, self.stored.summary)

    def recording(self) -> Recording:
        """Return the recorded errors; UserError if there are none, or not those of all classes."""
        from bench.recordings.recording import open_recording

        return open_recording(self.path)

    @property
    def template(self) -> str | None:
        """The user's template, several of them joined; None if the user set none."""
        template = self.manifest.config.template
        return " · ".join(template) if isinstance(template, list) else template

    @property
    def samples(self) -> Iterator[SampleRow]:
        """The rows of the decided images, in the order of the manifest's samples."""
        from bench.running.parts.decision import strategy_of

        manifest, strategy = self.manifest, strategy_of(self.manifest)
        classes, has_errors = manifest.classes, manifest.margin_errors_known
        unbiased = has_errors and strategy is not None and strategy.same_draws
        for record in requested_records(self.path, manifest):
            prediction = record["prediction"]
            row = {
                **record,
                "label": classes[record["label"]],
                "prediction": None if prediction is None else classes[prediction],
                "correct": prediction == record["label"],
                "margin_stderr": record["margin_stderr"] if has_errors else None,
                "stability": record["confidence"] if unbiased else None,
            }
            yield {name: row[name] for name in SAMPLE_COLUMNS}


def read_view(path: Path) -> RunView:
    """Return the run in a folder; UserError as for `read_run`."""
    return RunView(read_run(path))


def view_of(finished: Finished) -> RunView:
    """Return a run that was just made, limited to the images asked for."""
    return RunView(StoredRun(finished.folder, finished.manifest, finished.summary))


def read_decided_run(run: StoredRun) -> RunView:
    """Return a run, complete or not, with its decisions; UserError if there are none yet."""
    view = RunView(run)
    if not len(view.decided):
        run.require_decisions()  # raises
    return view


def read_decided_runs(paths: Iterable[Path]) -> Iterator[RunView]:
    """Yield the runs in some folders; a warning names each that has no decided image."""
    for run in read_runs(paths):
        try:
            yield read_decided_run(run)
        except UserError as error:
            warn_left_out(run.path, error)
