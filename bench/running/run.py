"""A run, from its settings to its summary."""

from __future__ import annotations

import warnings

from bench.errors import BenchWarning
from bench.running.execute import Finished, execute
from bench.running.prepare import prepare
from bench.running.settings import RunConfig


def run(config: RunConfig) -> Finished:
    """Make the run that `config` describes, or resume it.

    Raises:
        UserError: something is wrong that the user can fix; nothing was scored.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    prepared = prepare(config)
    for said in prepared.warnings:
        warnings.warn(said, BenchWarning, stacklevel=2)
    return execute(prepared)
