"""Logs each run to a project of trackio, of Weights & Biases, or of both.

trackio writes to this machine unless its own settings say otherwise, and so does wandb (`offline`)
unless `WANDB_MODE` says otherwise. A resumed run continues under its name. The accuracy so far is
logged at most a thousand times; the metrics of the whole run once, at its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from bench import hookimpl
from bench.errors import UserError

POINTS = 1_000  # most values of the accuracy so far


class Tracker:
    """Logs one run at a time with a package, if the variable BENCH_PACKAGE names a project.

    Attributes:
        package: the module to import, and the extra that installs it.
        options: returns further keywords of the package's `init`, from the run's id.
        tracked: the package's run; None: no run is logged.
    """

    def __init__(self, package: str, options: Callable[[str], Mapping[str, Any]]) -> None:
        self.package = package
        self.options = options
        self.tracked: Any = None
        self.done = self.correct = self.every = 0

    @property
    def project(self) -> str:
        """The project to log to; "" if runs are not logged."""
        return os.environ.get(f"BENCH_{self.package.upper()}", "")

    def start(self, manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
        """Begin or continue to log a run; UserError: the package is not installed."""
        self.tracked = None  # an earlier run may have been interrupted
        if not self.project:
            return
        try:
            module = import_module(self.package)
        except ImportError:
            raise UserError(
                f"BENCH_{self.package.upper()} is set, and {self.package} is not installed: pip"
                f" install 'diffusion-classifier-bench[{self.package}]', or unset the variable"
            ) from None
        strategy = manifest["strategy"]
        self.tracked = module.init(
            project=self.project,
            name=manifest["run_id"],
            group=f"{manifest['dataset']['name']}/{manifest['dataset']['split']}",
            config={
                "dataset": manifest["dataset"]["name"],
                "split": manifest["dataset"]["split"],
                "backbone": manifest["backbone"]["name"],
                "strategy": strategy["name"],
                "seed": manifest["identity"]["seed"],
                **{f"strategy.{name}": value for name, value in strategy["params"].items()},
            },
            resume="allow",
            **self.options(manifest["run_id"]),
        )
        self.done, self.correct = done, correct
        self.every = max(1, total // POINTS)

    def score(self, record: Mapping[str, Any]) -> None:
        """Log the accuracy so far."""
        self.done += 1
        self.correct += record["prediction"] == record["label"]
        if self.tracked is not None and self.done % self.every == 0:
            accuracy = self.correct / self.done
            values = {"images": self.done, "evaluations": record["evaluations"]}
            self.tracked.log({"accuracy": accuracy, **values}, step=self.done)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the metrics of the whole run, and end it."""
        if self.tracked is None:
            return
        metrics = {
            f"final/{name}": value
            for part in ("metrics", "cost")
            for name, value in summary[part].items()
            if isinstance(value, int | float)
        }
        self.tracked.log(metrics, step=self.done)
        import_module(self.package).finish()
        self.tracked = None


def _of_trackio(run_id: str) -> dict[str, Any]:
    # No dashboard is started: `trackio show` does.
    return {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}


def _of_wandb(run_id: str) -> dict[str, Any]:
    settings = import_module("wandb").Settings(silent=True, console="off", x_disable_stats=True)
    mode = os.environ.get("WANDB_MODE", "offline")
    return {"id": run_id[-128:], "mode": mode, "settings": settings}


TRACKERS = (Tracker("trackio", _of_trackio), Tracker("wandb", _of_wandb))


@hookimpl
def run_started(manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
    """Begin to log a run with every tracker that has a project."""
    problems = []
    for tracker in TRACKERS:
        try:
            tracker.start(manifest, done, total, correct)
        except UserError as error:  # the other trackers still log it
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))


@hookimpl
def sample_scored(record: Mapping[str, Any]) -> None:
    """Log the accuracy so far."""
    for tracker in TRACKERS:
        tracker.score(record)


@hookimpl
def run_finished(summary: Mapping[str, Any]) -> None:
    """Log the metrics of the whole run, and end it."""
    for tracker in TRACKERS:
        tracker.finish(summary)
