"""A stored run as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.boards.formats import drawn
from bench.boards.text import visible
from bench.errors import UserError
from bench.running.resolve import UNKNOWN
from bench.stats.metrics import labels, predictions, summarize
from bench.store.documents import Manifest, Summary
from bench.store.folder import asked_records, read_manifest, read_summary
from bench.store.records import Record


@dataclass(frozen=True)
class RunData:
    """A run: what it is, what it decided, and what came of it.

    Attributes:
        path: its folder.
        manifest: its manifest.
        records: the decided images, in the order of the manifest.
        summary: its summary; of what is decided so far where the run is not complete.
        complete: whether the summary is the stored one.
    """

    path: Path
    manifest: Manifest
    records: list[Record]
    summary: Summary
    complete: bool

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.manifest.run_id

    @property
    def classes(self) -> list[str]:
        """The class names, in label order, as they can be written into a figure."""
        return [visible(name) for name in self.manifest.classes]

    @cached_property
    def true(self) -> NDArray[np.int64]:
        """int64 [n]: the true classes."""
        return labels(self.records)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """int64 [n]: the predicted classes, -1 where the image failed."""
        return predictions(self.records)

    @property
    def evaluations(self) -> float:
        """Evaluation equivalents an image: a gradient counts as what it cost."""
        return self.summary.cost.equivalents_per_image

    @property
    def marks(self) -> list[tuple[str, str]]:
        """What tells the result apart; see `marks`."""
        data, plan = self.summary.dataset, self.manifest.identity.scoring.draw_plan
        counts = {"n_samples": data.n_samples, "n_total": data.n_total}
        return marks(self.kind, self.summary.backbone.trained_on, counts, plan)

    @property
    def kind(self) -> str:
        """measured, subset, replayed or incomplete: what may be ranked beside what."""
        if not self.complete:
            return "incomplete"
        if self.summary.replayed_from:
            return "replayed"
        data = self.summary.dataset
        return "measured" if data.n_samples == data.n_total else "subset"


def read_run(path: Path) -> RunData:
    """Read a run, complete or not.

    Raises:
        UserError: it is no run, or nothing of it is decided yet.
    """
    manifest = read_manifest(path)
    records = asked_records(path, manifest)
    if not records:
        raise UserError(f"{path} has no decided image yet; the same `bench run` goes on with it.")
    summary = read_summary(path)
    complete = summary is not None
    return RunData(
        path, manifest, records, summary or summarize(manifest, records, 0.0, None), complete
    )


def marks(
    kind: str, trained_on: str | None, data: Mapping[str, Any], draw_plan: str | None = None
) -> list[tuple[str, str]]:
    """Return what tells a result apart, as (kind of mark, text).

    Args:
        kind: measured, subset, replayed, incomplete or reported.
        trained_on: what the backbone was trained on; None: zero-shot.
        data: `n_samples` and `n_total`, where they are known.
        draw_plan: where it is known.
    """
    if trained_on is None:
        found = [("zero-shot", "zero-shot")]
    elif trained_on == UNKNOWN:
        found = [("trained", "training data unknown")]
    else:
        found = [("trained", f"trained on {trained_on}")]
    n, total = data.get("n_samples"), data.get("n_total")
    if kind == "incomplete":
        found.append(("incomplete", "not complete"))
    if kind == "replayed":
        found.append(("replayed", "replayed"))
    if kind == "reported":
        found.append(("reported", "reported by others"))
    elif n is not None and total is not None and n < total:
        found.append(("subset", f"subset, {n:,} of {total:,}"))
    return found + [("draws", note) for note in drawn(draw_plan)]
