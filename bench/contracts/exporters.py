"""The contract of exporters, which write a run for another tool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.reports.run_view import RunView


class Exporter(ABC):
    """A format of `bench export`, constructed with the parameters of its spec.

    Its constructor raises ValueError for an invalid parameter.
    """

    @abstractmethod
    def write(self, run: RunView, folder: Path) -> None:
        """Write a run's files below `folder`, which is empty: one, or with `several` one or more.

        They are copied from there; a link or a special file is refused. `run` is complete or not,
        and has `path`, `manifest`, `summary` (if `so_far` is not None), `decided` and `samples`.
        Raises UserError if it lacks something that the format needs.
        """
