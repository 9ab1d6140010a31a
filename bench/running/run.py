"""A run, from its settings to its summary."""

from __future__ import annotations

from typing import Any

from bench.running.execute import execute
from bench.running.prepare import prepare
from bench.running.settings import RunConfig


def run(config: RunConfig) -> dict[str, Any]:
    """Make the run that `config` describes, or resume it.

    Returns:
        The object behind `--json`.

    Raises:
        UserError: something is wrong that the user can fix; nothing was scored.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    return execute(prepare(config))
