"""Runs in an experiment tracker: `BENCH_TRACKIO=PROJECT` logs them with trackio.

Without that variable nothing listens, and trackio need not be installed.
"""

from __future__ import annotations

import os

PROJECT = "BENCH_TRACKIO"

if os.environ.get(PROJECT):
    from bench_plugins.trackers._trackio import (
        run_finished as run_finished,
    )
    from bench_plugins.trackers._trackio import (
        run_started as run_started,
    )
    from bench_plugins.trackers._trackio import (
        sample_scored as sample_scored,
    )
