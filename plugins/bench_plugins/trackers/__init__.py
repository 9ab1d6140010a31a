"""Experiment trackers: `--tracker` logs a run to a project of trackio or of Weights & Biases.

trackio writes to this machine unless its own settings say otherwise, and so does wandb (`offline`)
unless `WANDB_MODE` says otherwise. A resumed run continues under its name. The accuracy so far is
logged at most a thousand times; the metrics of the whole run once, at its end.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from bench import hookimpl

POINTS = 1_000  # most values of the accuracy so far
PROJECT = "bench"  # default project


class Log:
    """A run that is logged with a package, from its start or from where it was interrupted."""

    def __init__(
        self, tracker: str, manifest: Mapping[str, Any], done: int, total: int, correct: int
    ) -> None:
        """Begin to log; `tracker` is the package, or PACKAGE:PROJECT."""
        package, _, project = tracker.partition(":")
        self.module: Any = import_module(package)
        dataset, strategy = manifest["dataset"], manifest["strategy"]
        self.tracked = self.module.init(
            project=project or PROJECT,
            name=manifest["run_id"],
            group=f"{dataset['name']}/{dataset['split']}",
            config={
                "dataset": dataset["name"],
                "split": dataset["split"],
                "backbone": manifest["backbone"]["name"],
                "strategy": strategy["name"],
                "seed": manifest["identity"]["seed"],
                **{f"strategy.{name}": value for name, value in strategy["params"].items()},
            },
            resume="allow",
            **_options(package, self.module, manifest["run_id"]),
        )
        self.done, self.correct = done, correct
        self.every = max(1, total // POINTS)  # images per logged value

    def score(self, record: Mapping[str, Any]) -> None:
        """Log the accuracy so far."""
        self.done += 1
        self.correct += record["prediction"] == record["label"]
        if self.done % self.every == 0:
            accuracy = self.correct / self.done
            values = {"images": self.done, "evaluations": record["evaluations"]}
            self.tracked.log({"accuracy": accuracy, **values}, step=self.done)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the metrics of the whole run, and end it."""
        metrics = {
            f"final/{name}": value
            for part in ("metrics", "cost")
            for name, value in summary[part].items()
            if isinstance(value, int | float)
        }
        self.tracked.log(metrics, step=self.done)
        self.module.finish()


def _options(package: str, module: Any, run_id: str) -> dict[str, Any]:
    """Return further keywords of the package's `init`: for trackio, or for wandb."""
    if package == "trackio":  # no dashboard is started: `trackio show` does
        return {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    settings = module.Settings(silent=True, console="off", x_disable_stats=True)
    mode = os.environ.get("WANDB_MODE", "offline")
    return {"id": run_id[-128:], "mode": mode, "settings": settings}


LOGS: list[Log] = []  # of the run that is being made


@hookimpl
def run_started(manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
    """Begin to log a run with every tracker of `--tracker`."""
    LOGS.clear()  # an earlier run may have been interrupted
    trackers = manifest["config"].get("tracker") or []
    for tracker in [trackers] if isinstance(trackers, str) else trackers:
        LOGS.append(Log(tracker, manifest, done, total, correct))


@hookimpl
def sample_scored(record: Mapping[str, Any]) -> None:
    """Log the accuracy so far."""
    for log in LOGS:
        log.score(record)


@hookimpl
def run_finished(summary: Mapping[str, Any]) -> None:
    """Log the metrics of the whole run, and end it."""
    while LOGS:
        LOGS.pop().finish(summary)
