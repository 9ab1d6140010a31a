"""The sweep of a stated risk: some of the run's own images, on which the strategy is tested.

If the strategy was not calibrated on another split, `--risk` runs the full sweep on some images of
the run's split, drawn uniformly, tests the strategy's settings on them, and races the others with
the cheapest setting that passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.discovery.loading import exhaustive_strategy, load_plugins
from bench.errors import UserError
from bench.inputs.subsets import draw_sample
from bench.running.manifest import make_manifest
from bench.running.model_run import problems
from bench.running.parts.decision import Decider, backbone_params, make_decider
from bench.running.parts.setting import option
from bench.running.prepared import PlannedSweep, Prepared, SweepPlan
from bench.running.preparing.risk import StatedRisk, calibrated_on, cheapest, risk_choices
from bench.stats.risk import choose_sweep
from bench.store.calibrations import CALIBRATION, Calibration, calibration_files, read_calibration
from bench.store.documents import Sweep
from bench.store.folder import read_records
from bench.store.identity import digest

# Expected cost of a race / cost of its first look. Measured: 1.1 (UC Merced), 1.7 to 1.9 (clothes).
RACE_COST = 2.0
IMAGE_BYTES, CELL_BYTES = 2_500, 5  # disk space of errors, measured for 400 to 500,000 cells


def plan_sweep(prepared: Prepared, stated: StatedRisk) -> SweepPlan:
    """Return the size of the sweep and the expected costs of sweep and race.

    The size depends on the split and on the costs, not on `--limit`. Raises UserError if a setting
    excludes a sweep, or no race can be cheaper than the full sweep.
    """
    config, split, decider = prepared.config, prepared.split, stated.decider
    assert split is not None, "prepared without images"
    for name, why in (
        ("candidates_from", "a sweep records all classes"),
        ("until", "the swept images are not the first in its random order"),
    ):
        if getattr(config, name):
            raise UserError(f"{stated.option} and {option(name)} exclude each other: {why}.")
    n, (problem, images) = len(split.sample_ids), problems(prepared)[-1]
    cells = len(problem.class_of_prompt) * len(problem.timesteps) * images
    full = _on_same_draws(exhaustive_strategy(), stated).strategy.at_most(problem) * images
    swept = _on_same_draws(_recorder(stated), stated).strategy.at_most(problem) * images
    looks = [candidate.strategy.at_least(problem) for candidate in _candidates(decider)]
    least = min((look * images for look in looks if look is not None), default=None)
    race = full / 2 if least is None else min(RACE_COST * least, full)
    replaced = prepared.strategy.replaces(problem)
    schedule = None if replaced is None else replaced.equivalents * images
    otherwise = full
    if config.risk_else == "schedule":
        if schedule is None:
            raise UserError(
                f"--risk-else schedule: strategy {decider.spec.name!r} replaces no schedule."
            )
        otherwise = schedule
    size = choose_sweep(n, stated.risk, swept, race, otherwise)
    if size.images == n or (least is not None and least >= full):
        raise UserError(
            f"{stated.option} saves nothing on {n:,} images: use --strategy"
            f" {exhaustive_strategy()}, which keeps any risk."
        )
    n_asked = min(config.limit or n, n)
    rest = round(n_asked * (1 - size.images / n))
    return SweepPlan(
        risk=stated.risk,
        split=n,
        swept=size.images,
        allowed=size.allowed,
        passes=size.passes,
        otherwise=_fallback(prepared, stated).spec.name,
        sweep_cost=size.images * swept,
        errors_bytes=size.images * (IMAGE_BYTES + CELL_BYTES * cells),
        rest=rest,
        rest_cost=rest * (size.passes * race + (1 - size.passes) * otherwise),
        rest_cost_at_least=None if least is None else rest * least,
        rest_cost_at_most=rest * full,
        full_cost=n_asked * full,
        schedule=None if replaced is None else replaced.strategy,
        schedule_cost=None if schedule is None else n_asked * schedule,
    )


def with_sweep(prepared: Prepared, stated: StatedRisk, samples: Sequence[str] | None) -> Prepared:
    """Return a run with its sweep and, once that is calibrated, with the strategy for the rest.

    That strategy is the cheapest setting that passed, or else the fallback of `--risk-else`.
    `prepared` has no risk yet; `samples` None stands for the images that the settings select.
    """
    plan, split = plan_sweep(prepared, stated), prepared.split
    assert split is not None, "prepared without images"
    race = stated.decider
    recorder = _on_same_draws(_recorder(stated), stated)
    run = make_manifest(replace(prepared, decider=recorder))
    config = prepared.config.model_copy(
        update={
            **dict.fromkeys(("risk", "limit", "again", "audit", "min_accuracy")),
            "fresh": False,
            "save_errors": True,
            "strategy": recorder.spec.name,
            "params": {
                **backbone_params(prepared.config, prepared.backbone, race.spec),
                "draws": race.parameters["draws"],
            },
        }
    )
    sweep = PlannedSweep(
        plan,
        config,
        Path(config.results, run.run_id),
        tuple(draw_sample(split.sample_ids, plan.swept, digest(run.identity))),
        tuple(candidate.identity for candidate in _candidates(race)),
    )
    calibration = _stored_calibration(sweep)
    if calibration is None:
        return replace(prepared, described=None, sweep=sweep)
    best = cheapest(calibration, stated.risk)
    decider = _fallback(prepared, stated)
    if best is not None:
        decider = make_decider(race.spec, best.strategy.params)
    calibrated = calibrated_on(calibration, best or calibration.settings[0], stated.risk)
    described = Sweep(
        evaluation_equivalents_per_image=plan.sweep_cost / plan.swept,
        choices=risk_choices(calibration),
    )
    sweep = replace(sweep, calibration=calibration)
    prepared = replace(prepared, decider=decider, sweep=sweep)
    manifest = make_manifest(prepared, calibrated, described, samples)
    return replace(prepared, described=manifest)


def _stored_calibration(sweep: PlannedSweep) -> Calibration | None:
    """Return the stored calibration on exactly a sweep's images and settings; None if none yet.

    Failed images are counted as disagreements of every setting.
    """
    folder = sweep.folder
    if not (folder / CALIBRATION).exists():
        return None
    records = read_records(folder)
    swept = [records[name] for name in sweep.samples if name in records]
    decided = {record["sample_id"] for record in swept if record["error"] is None}
    failed = len(swept) - len(decided)
    if len(swept) < len(sweep.samples):
        return None
    candidates = [candidate.plain() for candidate in sweep.candidates]
    for name in calibration_files(folder):
        calibration = read_calibration(folder, name).calibration
        tested = [setting.strategy.plain() for setting in calibration.settings]
        if tested == candidates and set(calibration.samples or ()) == decided:
            settings = [
                setting.model_copy(update={"disagreements": (setting.disagreements or 0) + failed})
                for setting in calibration.settings
            ]
            changes = {"images": len(swept), "of": sweep.plan.split, "settings": settings}
            return calibration.model_copy(update=changes)
    return None


def _recorder(stated: StatedRisk) -> str:
    """Return the name of the strategy whose recordings the stated one can be replayed on."""
    return stated.decider.spec.recorder or exhaustive_strategy()


def _fallback(prepared: Prepared, stated: StatedRisk) -> Decider:
    """Return the strategy of `--risk-else`, which decides the other images if no setting passes."""
    if prepared.config.risk_else == "full":
        return _on_same_draws(exhaustive_strategy(), stated)
    replaced = prepared.strategy.replaces(problems(prepared)[-1][0])
    return _on_same_draws(exhaustive_strategy() if replaced is None else replaced.strategy, stated)


def _on_same_draws(name: str, stated: StatedRisk) -> Decider:
    """Return a strategy with the number of draws of the stated one."""
    spec = load_plugins().strategies.get(name)
    return make_decider(spec, {"draws": stated.decider.parameters["draws"]})


def _candidates(race: Decider) -> list[Decider]:
    """Return the strategy with each of its tested settings, the safest first."""
    spec, parameters = race.spec, race.parameters
    return [make_decider(spec, {**parameters, **setting}) for setting in spec.safest_first]
