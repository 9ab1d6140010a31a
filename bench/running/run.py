"""A run, from its settings to its summary."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.errors import BenchWarning, UserError
from bench.machine.offline import as_settings_say
from bench.running.execute import Finished, execute
from bench.running.executors.cluster import check_executor
from bench.running.executors.local import LocalExecutor
from bench.running.executors.protocol import OpenExecutor
from bench.running.model_run import ModelRun
from bench.running.prepare import prepare
from bench.running.prepared import Prepared
from bench.running.scorers.sharing import SharedBackbone, sharing
from bench.running.settings import RunConfig
from bench.running.verbs.again import decide_again, with_other_noise

if TYPE_CHECKING:
    import datasets


@as_settings_say
def warm_up(config: RunConfig) -> str:
    """Do what all shards of a run need, and score nothing: fetch weights, encode the prompts.

    Returns:
        The run's id.

    Raises:
        UserError: something is wrong that the user can fix.
    """
    check_executor(config)
    prepared = prepare(config)
    run = ModelRun(prepared)
    run.check()
    run.open_engine()
    return prepared.manifest.run_id


@as_settings_say
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
    check_executor(config)
    if config.executor == "ray" and not (dataset is rows is loaded is None):
        raise UserError(
            "--executor ray: workers are told names and prepare by themselves. Name the dataset and"
            " the backbone instead of handing over objects in memory."
        )
    prepared = prepare(config, dataset, rows=rows, loaded=loaded)
    for said in prepared.warnings:
        warnings.warn(said, BenchWarning, stacklevel=2)
    if config.again is None:
        return execute(ModelRun(prepared), executor_of(prepared))
    shared, other = SharedBackbone(), with_other_noise(prepared, dataset)
    finished = execute(sharing(prepared, shared, [other.config]), executor_of(prepared))
    again = sharing(other, shared, [])
    return replace(finished, again=decide_again(again, finished, config.again, executor_of(other)))


def executor_of(prepared: Prepared) -> OpenExecutor:
    """Return what scores a run, as its settings say.

    Raises:
        UserError: it is not there, or settings do not go with it.
    """
    check_executor(prepared.config)
    if prepared.config.executor == "local":
        return LocalExecutor
    from bench.running.executors.ray import open_ray

    return lambda _: open_ray(prepared)
