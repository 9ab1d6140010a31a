"""A stored run as the report reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.boards.rows import LeaderboardRow, run_row
from bench.boards.text import visible
from bench.running.command import recording_command, reproducing_command
from bench.stats.metrics import INCOMPLETE, summary_so_far
from bench.store.decisions import Decisions
from bench.store.documents import Manifest
from bench.store.runs import StoredRun
from bench.store.summary import Summary


@dataclass(frozen=True)
class RunData:
    """A run: what it is, what it decided, and what came of it.

    Attributes:
        path: its folder.
        manifest: its manifest.
        decided: the decided images, in the order of the manifest, at least one.
        summary: its summary; of what is decided so far where the run is not complete.
    """

    path: Path
    manifest: Manifest
    decided: Decisions
    summary: Summary

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.manifest.run_id

    @property
    def classes(self) -> list[str]:
        """The class names, in label order, as they can be written into a figure."""
        return [visible(name) for name in self.manifest.classes]

    @property
    def row(self) -> LeaderboardRow:
        """The run's row of a leaderboard; of one that is not complete, of the kind incomplete."""
        row = run_row(self.path, self.manifest, self.summary)
        incomplete = self.summary.status == INCOMPLETE
        return row.model_copy(update={"kind": INCOMPLETE}) if incomplete else row

    @property
    def reproducing_command(self) -> str:
        """The command that makes the run again."""
        return reproducing_command(self.manifest)

    @property
    def recording_command(self) -> str:
        """The command that scores the same images and records their errors."""
        return recording_command(self.manifest)


def with_decisions(run: StoredRun) -> RunData:
    """Return a run, complete or not, with its decisions.

    Raises:
        UserError: nothing of it is decided yet.
    """
    decided = run.some_decided()
    summary = summary_so_far(run.manifest, run.summary, decided)
    return RunData(run.path, run.manifest, decided, summary)
