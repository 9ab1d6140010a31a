"""Runs with a stated risk (`--risk`) but no earlier calibration: sweep, calibrate, race.

The sweep is a part of an ordinary full run. The race is an ordinary run whose identity includes the
calibration. Both can be resumed, so the same command continues wherever it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, warn_user
from bench.machine.offline import offline_if_set
from bench.recordings.calibrate import calibrate
from bench.running.execute import Finished
from bench.running.prepare import prepare_again
from bench.running.prepared import PlannedSweep, Prepared
from bench.running.run import SharedBackbone, prepare_run, run_prepared
from bench.running.settings import RunConfig

if TYPE_CHECKING:
    import datasets

Tell = Callable[[str], None]


@offline_if_set
def run(
    config: RunConfig,
    dataset: DatasetSpec | None = None,
    rows: datasets.Dataset | None = None,
    loaded: Any = None,
    tell: Tell = lambda text: None,
) -> Finished:
    """Make the run that `config` describes, or resume it; see `prepare_run` and `run_prepared`.

    If its risk is not calibrated yet, `tell` is called with the plan, and the sweep is made first:
    some images are swept, and the settings of the strategy are calibrated on them. Raises UserError
    for a shard of such a run.
    """
    prepared, shared = prepare_run(config, dataset, rows, loaded), None
    sweep = prepared.sweep
    if sweep is not None and sweep.calibration is None and config.shard is None:
        _announce_plan(sweep, tell)
        shared = SharedBackbone()
        _make_sweep(prepared, sweep, shared)
        prepared = prepare_again(prepared, config)
    return run_prepared(prepared, shared)


@offline_if_set
def sweep_only(config: RunConfig, tell: Tell = lambda text: None) -> Finished:
    """Make the sweep for a run's risk, or one shard of it, and calibrate once it is complete."""
    prepared = prepare_run(config)
    if prepared.sweep is None:
        raise UserError(
            "--sweep-only is for --risk without an earlier calibration on other images."
        )
    if prepared.sweep.calibration is None:
        _announce_plan(prepared.sweep, tell)
    return _make_sweep(prepared, prepared.sweep, SharedBackbone())


def _announce_plan(sweep: PlannedSweep, tell: Tell) -> None:
    tell(sweep.plan.in_words())
    if (warning := sweep.plan.warning()) is not None:
        warn_user(warning)


def _make_sweep(prepared: Prepared, sweep: PlannedSweep, shared: SharedBackbone) -> Finished:
    """Sweep the outstanding images. Then, unless this is a shard, calibrate on the whole sweep."""
    finished = run_prepared(prepare_again(prepared, sweep.config, sweep.samples), shared)
    if sweep.config.shard is None and sweep.calibration is None:
        strategy, settings = sweep.candidates[0], prepared.decider.spec.safest_first
        others = {name: value for name, value in strategy.params.items() if name not in settings[0]}
        samples, population = set(sweep.samples), sweep.plan.split
        calibrate(
            sweep.folder, strategy.name, others, settings=settings, samples=samples, of=population
        )
    return finished
