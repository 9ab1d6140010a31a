"""The sweep of a stated risk: images of the run itself, on which the race of the others is tested.

Where no other images were calibrated, `--risk` sweeps some images of the run's split, drawn
uniformly, tests the settings of the strategy on them, and races the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.discovery.loading import exhaustive, load_plugins
from bench.errors import UserError
from bench.inputs.subsets import drawn
from bench.running.model_run import problems
from bench.running.parts.decision import Decider, make_strategy, of_backbone
from bench.running.prepared import PlannedSweep, Prepared, SweepPlan
from bench.running.preparing.risk import Stated, cheapest, choices
from bench.running.resolve import Resolved
from bench.stats.risk import choose_sweep
from bench.store.calibrations import CALIBRATION, Calibration, calibration_files, read_calibration
from bench.store.documents import Manifest, Sweep
from bench.store.folder import read_records
from bench.store.identity import CalibratedOn, StrategyIdentity, digest

# Expected cost of a race in first looks: it took 1.1 of them on UC Merced, 1.7 to 1.9 on clothes.
RACE_COST = 2.0
IMAGE_BYTES, CELL_BYTES = 2_500, 5  # of recorded errors: measured for 400 to 500,000 cells

Describe = Callable[[Resolved, CalibratedOn | None, Sweep | None], Manifest]


def plan_sweep(prepared: Prepared, stated: Stated) -> SweepPlan:
    """Return the size of the sweep, and the cost of both parts.

    The size depends on the split and on the costs, not on `--limit`.

    Raises:
        UserError: the images cannot be recorded, or no race would be cheaper than the full sweep.
    """
    config, split, spec = prepared.config, prepared.split, stated.spec
    assert split is not None, "prepared without images"
    for name, why in (
        ("candidates_from", "a sweep records all classes"),
        ("until", "the swept images are no beginning of its random order"),
    ):
        if getattr(config, name):
            option = name.replace("_", "-")
            raise UserError(f"{stated.option} and --{option} exclude each other: {why}.")
    n, (problem, images) = len(split.sample_ids), problems(prepared)[-1]
    cells = len(problem.class_of_prompt) * len(problem.timesteps) * images
    full = _decider(exhaustive(), stated).strategy.at_most(problem) * images
    swept = _decider(_recorder(stated), stated).strategy.at_most(problem) * images
    looks = [
        make_strategy(spec, {**stated.parameters, **setting})[1].at_least(problem)
        for setting in spec.safest_first
    ]
    least = min((look * images for look in looks if look is not None), default=None)
    race = full / 2 if least is None else min(RACE_COST * least, full)
    replaced = prepared.strategy.replaces(problem)
    schedule = None if replaced is None else replaced.equivalents * images
    otherwise = full
    if config.risk_else == "schedule":
        if schedule is None:
            raise UserError(f"--risk-else schedule: {spec.name} is in the place of no schedule.")
        otherwise = schedule
    size = choose_sweep(n, stated.risk, swept, race, otherwise)
    if size.images == n or (least is not None and least >= full):
        raise UserError(
            f"{stated.option} saves nothing on {n:,} images: use --strategy {exhaustive()}, which"
            " keeps any risk."
        )
    wanted = min(config.limit or n, n)
    rest = round(wanted * (1 - size.images / n))
    return SweepPlan(
        risk=stated.risk,
        split=n,
        swept=size.images,
        allowed=size.allowed,
        passes=size.passes,
        otherwise=_otherwise(prepared, stated).spec.name,
        sweep_cost=size.images * swept,
        errors_bytes=size.images * (IMAGE_BYTES + CELL_BYTES * cells),
        rest=rest,
        rest_cost=rest * (size.passes * race + (1 - size.passes) * otherwise),
        rest_cost_at_least=None if least is None else rest * least,
        rest_cost_at_most=rest * full,
        full_cost=wanted * full,
        schedule=None if replaced is None else replaced.strategy,
        schedule_cost=None if schedule is None else wanted * schedule,
    )


def with_sweep(prepared: Prepared, stated: Stated, describe: Describe) -> Prepared:
    """Return a run with its sweep, and with the setting that passed where it is calibrated.

    Args:
        prepared: the run as it would be without a risk.
        stated: its risk.
        describe: returns the manifest of a resolved run.
    """
    plan, resolved, split = plan_sweep(prepared, stated), prepared.resolved, prepared.split
    assert split is not None, "prepared without images"
    recorder = _decider(_recorder(stated), stated)
    run = describe(replace(resolved, decider=recorder), None, None)
    config = prepared.config.model_copy(
        update={
            **dict.fromkeys(("risk", "limit", "again", "audit", "min_accuracy")),
            "fresh": False,
            "save_errors": True,
            "strategy": recorder.spec.name,
            "params": {
                **of_backbone(prepared.config, resolved.backbone, stated.spec),
                "draws": stated.parameters["draws"],
            },
        }
    )
    identity = digest(run.identity)
    sweep = PlannedSweep(
        plan,
        config,
        Path(config.results, run.run_id),
        tuple(drawn(split.sample_ids, plan.swept, identity)),
        stated.spec.safest_first,
        tuple(
            StrategyIdentity(
                name=stated.spec.name,
                version=stated.spec.version,
                params=make_strategy(stated.spec, {**stated.parameters, **setting})[0],
            )
            for setting in stated.spec.safest_first
        ),
    )
    calibration = _stored_calibration(sweep)
    if calibration is None:
        return replace(prepared, described=None, sweep=sweep)
    best = cheapest(calibration, stated.risk)
    decider = _otherwise(prepared, stated)
    if best is not None:
        decider = Decider(stated.spec, *make_strategy(stated.spec, best.strategy.params))
    calibrated = CalibratedOn(
        run_id=run.run_id,
        identity=identity,
        split=split.split,
        images=calibration.images,
        disagreements=(best or calibration.settings[0]).disagreements or 0,
        risk=stated.risk,
        level=calibration.level,
        of=plan.split,
    )
    described = Sweep(
        evaluation_equivalents_per_image=plan.sweep_cost / plan.swept,
        choices=choices(calibration),
    )
    resolved = replace(resolved, decider=decider)
    return replace(
        prepared,
        resolved=resolved,
        described=describe(resolved, calibrated, described),
        sweep=replace(sweep, calibration=calibration),
    )


def _stored_calibration(sweep: PlannedSweep) -> Calibration | None:
    """Return the calibration on exactly the images and the settings of a sweep; None: none yet."""
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


def _recorder(stated: Stated) -> str:
    """Return the strategy whose recordings this one can be replayed on."""
    return stated.spec.recorder or next(iter(stated.spec.learned.values()), exhaustive())


def _otherwise(prepared: Prepared, stated: Stated) -> Decider:
    """Return the strategy that the user chose beforehand, for where no setting passes."""
    if prepared.config.risk_else == "full":
        return _decider(exhaustive(), stated)
    replaced = prepared.strategy.replaces(problems(prepared)[-1][0])
    return _decider(exhaustive() if replaced is None else replaced.strategy, stated)


def _decider(name: str, stated: Stated) -> Decider:
    """Return a strategy on the draws of the race."""
    spec = load_plugins().strategies.get(name)
    return Decider(spec, *make_strategy(spec, {"draws": stated.parameters["draws"]}))
