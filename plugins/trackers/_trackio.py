"""Logs each run to a project of trackio: on this machine, unless trackio's own settings say more.

A run that is resumed goes on under its name. The accuracy so far is logged at most a thousand
times; the metrics of the whole run once, at its end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bench import hookimpl
from bench.errors import UserError

POINTS = 1_000  # of the accuracy so far


class _Run:
    tracked: Any = None
    done = correct = every = 0
    equivalents = 0.0


_run = _Run()


@hookimpl
def run_started(manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
    """Begin to log a run, or go on with it."""
    _run.tracked = None  # of an earlier run, which was interrupted
    try:
        import trackio
    except ImportError:
        raise UserError(
            "BENCH_TRACKIO is set, and trackio is not installed: pip install"
            " 'diffusion-classifier-bench[trackio]', or unset the variable"
        ) from None
    strategy, identity = manifest["strategy"], manifest["identity"]
    _run.tracked = trackio.init(
        project=os.environ.get("BENCH_TRACKIO") or "bench",
        name=manifest["run_id"],
        group=f"{manifest['dataset']['name']}/{manifest['dataset']['split']}",
        config={
            "dataset": manifest["dataset"]["name"],
            "split": manifest["dataset"]["split"],
            "backbone": manifest["backbone"]["name"],
            "strategy": strategy["name"],
            "seed": identity["seed"],
            **{f"strategy.{name}": value for name, value in strategy["params"].items()},
        },
        resume="allow",
        embed=False,  # no dashboard is started: `trackio show` does
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    _run.done, _run.correct, _run.equivalents = done, correct, 0.0
    _run.every = max(1, total // POINTS)


@hookimpl
def sample_scored(record: Mapping[str, Any]) -> None:
    """Log the accuracy so far."""
    _run.done += 1
    _run.correct += record["prediction"] == record["label"]
    if _run.tracked is not None and _run.done % _run.every == 0:
        _run.tracked.log(
            {
                "accuracy": _run.correct / _run.done,
                "images": _run.done,
                "evaluations": record["evaluations"],
            },
            step=_run.done,
        )


@hookimpl
def run_finished(summary: Mapping[str, Any]) -> None:
    """Log the metrics of the whole run, and end it."""
    if _run.tracked is None:
        return
    metrics = {
        f"final/{name}": value
        for part in ("metrics", "cost")
        for name, value in summary[part].items()
        if isinstance(value, int | float)
    }
    _run.tracked.log(metrics, step=_run.done)
    import trackio

    trackio.finish()
    _run.tracked = None
