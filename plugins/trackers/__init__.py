"""Runs in an experiment tracker: `BENCH_TRACKIO=PROJECT` and `BENCH_WANDB=PROJECT` log them.

Without these variables nothing listens, and neither trackio nor wandb need be installed.
"""

from __future__ import annotations

import os

if os.environ.get("BENCH_TRACKIO") or os.environ.get("BENCH_WANDB"):
    from bench_plugins.trackers._tracking import run_finished, run_started, sample_scored  # noqa: F401
