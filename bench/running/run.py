"""A run, from its settings to its summary."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.errors import BenchWarning
from bench.running.execute import Finished, execute
from bench.running.prepare import prepare
from bench.running.settings import RunConfig

if TYPE_CHECKING:
    import datasets


def warm_up(config: RunConfig) -> str:
    """Do what all shards of a run need, and score nothing: fetch weights, encode the prompts.

    Returns:
        The run's id.

    Raises:
        UserError: something is wrong that the user can fix.
    """
    prepared = prepare(config)
    prepared.check()
    prepared.open_engine()
    return prepared.manifest.run_id


def run(
    config: RunConfig,
    dataset: DatasetSpec | None = None,
    rows: datasets.Dataset | None = None,
    loaded: Any = None,
) -> Finished:
    """Make the run that `config` describes, or resume it.

    Args:
        config: the settings.
        dataset: instead of the registered one that `config` names.
        rows: its images, where they are in memory.
        loaded: the backbone that `config` names, where the caller has loaded it.

    Raises:
        UserError: something is wrong that the user can fix; nothing was scored.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    prepared = prepare(config, dataset, rows=rows, loaded=loaded)
    for said in prepared.warnings:
        warnings.warn(said, BenchWarning, stacklevel=2)
    return execute(prepared)
