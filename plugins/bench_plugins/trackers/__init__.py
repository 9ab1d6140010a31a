"""Experiment trackers: `BENCH_TRACKIO=PROJECT` and `BENCH_WANDB=PROJECT` log runs to them.

Without these variables no hook is registered, and neither trackio nor wandb has to be installed.
"""

from __future__ import annotations

import os

if os.environ.get("BENCH_TRACKIO") or os.environ.get("BENCH_WANDB"):
    from bench_plugins.trackers._tracking import run_finished, run_started, sample_scored  # noqa: F401
