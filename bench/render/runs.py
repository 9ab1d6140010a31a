"""A stored run as the report reads it, its scores in words, and its blind controls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.boards.rows import LeaderboardRow, run_row
from bench.boards.text import visible
from bench.errors import UserError
from bench.stats.metrics import INCOMPLETE, summary_so_far
from bench.store.decisions import Decisions
from bench.store.documents import Items, Manifest
from bench.store.questions import AskedQuestion, QuestionAnswer, ending_answer, read_questions
from bench.store.runs import LeftOut, StoredRun, read_runs, warn
from bench.store.summary import Metrics, Summary


@dataclass(frozen=True)
class RunData:
    """A run with its decisions, at least one, and the summary of these."""

    path: Path
    manifest: Manifest
    decided: Decisions
    summary: Summary

    @property
    def classes(self) -> list[str]:
        """The class names, in label order, as they can be written into a figure."""
        return [visible(name) for name in self.manifest.classes]

    @cached_property
    def questions(self) -> list[AskedQuestion]:
        """The questions that were to end it."""
        return read_questions(self.path)

    @property
    def stop(self) -> QuestionAnswer | None:
        """The answer that ended it; None: none did."""
        return ending_answer(self.questions, len(self.decided))

    @property
    def row(self) -> LeaderboardRow:
        """The run's row of a leaderboard; of one that is not complete, of the kind incomplete."""
        row = run_row(self.path, self.manifest, self.summary)
        incomplete = self.summary.status == INCOMPLETE
        return row.model_copy(update={"kind": INCOMPLETE}) if incomplete else row


def with_decisions(run: StoredRun) -> RunData:
    """Return a run, complete or not, with its decisions; UserError: nothing is decided yet."""
    decided = run.some_decided()
    summary = summary_so_far(run.manifest, run.summary, decided)
    return RunData(run.path, run.manifest, decided, summary)


def decided_runs(paths: Iterable[Path], left_out: LeftOut = warn) -> Iterator[RunData]:
    """Yield the runs in some folders; `left_out` is called for each without a decided image."""
    for run in read_runs(paths, left_out):
        try:
            yield with_decisions(run)
        except UserError as error:
            left_out(run.path, error)


@dataclass(frozen=True)
class Score:
    """One share of right decisions, with the ends of its 95 % interval and what guessing gives."""

    name: str
    share: float
    ends: tuple[float, float]
    guessing: float | None = None
    note: str = ""


def scores(
    metrics: Metrics, n_classes: int, items: Items | None, stop: QuestionAnswer | None = None
) -> list[Score]:
    """Return a run's scores, the accuracy or the text score first; `stop` ended the run."""
    guessing = 1 / n_classes if items is None else items.chance
    name = "accuracy" if metrics.text_score is None else "text score"
    ends, note = metrics.accuracy_ci95, ""
    if stop is not None:
        note = f"valid at any number of images; of a fixed one: {ends[0]:.4f} – {ends[1]:.4f}"
        ends = stop.interval
    rows = [Score(name, metrics.accuracy, ends, guessing, note)]
    for kind in ("image", "group"):
        share, ends, expected = (
            getattr(metrics, f"{kind}_{what}") for what in ("score", "score_ci95", "chance")
        )
        if share is not None:
            rows.append(Score(f"{kind} score", share, ends, expected))
    if (worst := metrics.worst_group) is not None:
        note = f"{worst.group} ({worst.n:,})"
        rows.append(Score("worst group", worst.accuracy, worst.accuracy_ci95, None, note))
    return rows


@dataclass(frozen=True)
class Blind:
    """A run beside its blind control, and how the images of that were destroyed."""

    seen: RunData
    control: str
    blind: RunData


def blind_controls(runs: Iterable[RunData]) -> list[Blind]:
    """Return each run with those of its controls that are among the runs."""
    identities = [(run, run.manifest.identity.plain()) for run in runs]
    return [
        Blind(seen, identity["control"], blind)
        for blind, identity in identities
        if identity.get("control") is not None
        for seen, other in identities
        if other == {name: value for name, value in identity.items() if name != "control"}
    ]
