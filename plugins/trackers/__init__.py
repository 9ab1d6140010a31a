"""Runs in an experiment tracker: `BENCH_TRACKIO=PROJECT` logs them with trackio.

Without that variable nothing listens, and trackio need not be installed.
"""

from __future__ import annotations

import os

if os.environ.get("BENCH_TRACKIO"):
    from bench_plugins.trackers._trackio import run_finished, run_started, sample_scored  # noqa: F401
