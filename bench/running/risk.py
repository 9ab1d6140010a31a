"""`--risk`: choose the parameters of a prepared run by a test on images that it does not decide.

A calibration on another split is such a test. Without one, `--risk` runs the full sweep on some
images of the run's split, drawn uniformly, tests the strategy's settings on them, and races the
others with the cheapest setting that passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contracts.parameters import Parameters
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.errors import UserError
from bench.inputs.subsets import draw_sample
from bench.running.command import other_images_command
from bench.running.content import Content, PreparedRun
from bench.running.manifest import prepared_run
from bench.running.parts.decision import (
    ConfiguredStrategy,
    StatedRisk,
    backbone_params,
    make_decider,
    price,
)
from bench.stats.calibration.risk import (
    cheapest,
    choose_sweep,
    fewest_images,
    images_needed,
    risk_choices,
)
from bench.store.calibrations import (
    Calibrated,
    CalibratedSetting,
    Calibration,
    calibrations_of,
    find_calibrations,
)
from bench.store.formats.documents import Manifest, Sweep
from bench.store.formats.fields import Amount, Count, Document, Positive, Share, without_none
from bench.store.formats.identity import CalibratedOn, StrategyIdentity, digest
from bench.store.formats.journal import read_table


def choose_setting(stated: StatedRisk, manifest: Manifest) -> tuple[Parameters, CalibratedOn]:
    """Return the cheapest parameters that passed the test of a risk, and their calibration.

    See `bench.stats.calibration.risk` for the test. Calibrations with the run's other parameters
    are preferred, then those with more images. `manifest` is that of the run without a risk.
    Raises UserError if no calibration fits, it has too few images, or it has images of the run.
    """
    calibration, parameters = _calibration_for(stated, manifest), stated.decider.parameters
    best = cheapest(calibration, stated.risk)
    if best is None:
        raise UserError(_too_few_message(calibration, stated.risk))
    for name in stated.params:
        value = _value(stated, parameters, name)
        used = _value(stated, best.strategy.params, name)
        if name in parameters and value != used:
            raise UserError(
                f"{stated.option}: --set {name}={value} differs from {name}={used} of the"
                " calibration. Leave it out, or calibrate again with it."
            )
    return dict(best.strategy.params), calibrated_on(calibration, best, stated.risk)


def calibrated_on(
    calibration: Calibration, setting: CalibratedSetting, risk: float
) -> CalibratedOn:
    """Return the entry of a run's identity for the calibration of its setting."""
    return CalibratedOn(
        run_id=calibration.run_id,
        identity=calibration.identity,
        split=calibration.split,
        images=calibration.images,
        disagreements=setting.disagreements or 0,
        risk=risk,
        level=calibration.level,
        **without_none(of=calibration.of),
    )


def has_calibration(stated: StatedRisk, manifest: Manifest) -> bool:
    """Return whether the run's question and strategy were calibrated on another split."""
    own = manifest.identity.dataset
    others = (of.manifest.identity.dataset for of in _calibrations(stated, manifest))
    return any((of.split, of.fingerprint) != (own.split, own.fingerprint) for of in others)


def _calibrations(stated: StatedRisk, manifest: Manifest) -> list[Calibrated]:
    """Return the calibrations with a run's setup and strategy that are for other images.

    Those with a parameter that the strategy no longer has cannot be used.
    """
    spec = stated.decider.spec
    return [
        calibrated
        for calibrated in find_calibrations(stated.results)
        if calibrated.calibration.of is None
        and calibrated.applies_to(manifest)
        and any(
            (setting.strategy.name, setting.strategy.version) == (spec.name, spec.version)
            and spec.parameters.keys() >= setting.strategy.params.keys()
            for setting in calibrated.calibration.settings
        )
    ]


def _calibration_for(stated: StatedRisk, manifest: Manifest) -> Calibration:
    """Return the preferred calibration of a run, or raise UserError if none fits."""
    spec, same = stated.decider.spec, _calibrations(stated, manifest)
    if not same:
        recorded = other_images_command(manifest, strategy=exhaustive_strategy(), save_errors=True)
        raise UserError(
            f"{stated.option}: {stated.results} has no calibration of strategy {spec.name!r} with"
            " the same backbone, dataset, prompts, draws and seed. Record at least"
            f" {images_needed(stated.risk)} other images, and calibrate on them:"
            f" {recorded}, then `bench learn RUN --strategy {spec.name}`."
        )
    disjoint = [of.calibration for of in same if not of.shared_images(manifest)]
    if not disjoint:
        shared = same[0].shared_images(manifest)
        raise UserError(
            f"{stated.option}: {same[0].manifest.run_id} was calibrated on {shared} of the"
            f" {len(manifest.samples)} images that are to be scored. The images of a calibration"
            " must be others: calibrate on another split."
        )
    # So a later calibration with other parameters does not change which run this is.
    return max(
        disjoint,
        key=lambda calibration: (_has_own_parameters(stated, calibration), calibration.images),
    )


def _has_own_parameters(stated: StatedRisk, calibration: Calibration) -> bool:
    """Return whether the parameters that were not calibrated equal the run's own."""
    own = stated.decider.parameters
    return all(
        _value(stated, setting.strategy.params, name) == _value(stated, own, name)
        for setting in calibration.settings
        for name in {**setting.strategy.params, **own}
        if name not in calibration.chosen
    )


def _value(stated: StatedRisk, parameters: Mapping[str, Any], name: str) -> Any:
    """Return a parameter's value as in JSON, where tuples are lists; by default the spec's."""
    declared = stated.decider.spec.parameters.get(name)
    value = parameters.get(name, declared.default if declared else None)
    return list(value) if isinstance(value, tuple) else value


def _too_few_message(calibration: Calibration, risk: float) -> str:
    """Return an error message that explains why not even the safest setting passed."""
    disagreements = calibration.settings[0].disagreements or 0
    tested = f"a risk of {risk:.3g} with probability {100 * calibration.level:g} %"
    needed = fewest_images(calibration, risk)
    if not disagreements:
        return (
            f"--risk {risk:g}: {calibration.run_id} ({calibration.split}) has {calibration.images}"
            f" images, but {tested} needs at least {needed} without a disagreement. Record and"
            " calibrate more of them, or state a larger risk."
        )
    return (
        f"--risk {risk:g}: even the safest setting differs from the full sweep on {disagreements}"
        f" of the {calibration.images} images of {calibration.run_id}; {tested} needs {needed}"
        " images with that many. Use --strategy full, or state a larger risk."
    )


# Expected cost of a race / cost of its first look. Measured: 1.1 (UC Merced), 1.7 to 1.9 (clothes).
RACE_COST = 2.0
IMAGE_BYTES, CELL_BYTES = 2_500, 5  # disk space of errors, measured for 400 to 500,000 cells


class SweepPlan(Document):
    """Plan of a run with `--risk`: some images are swept, then the others are raced."""

    risk: Share  # largest share of the split's decisions that may differ from the full sweep's
    split: Positive  # number of images of the split
    swept: Positive  # number of swept images, chosen for the lowest expected total cost
    allowed: Count  # largest number of swept images on which a setting may differ from the sweep
    passes: Share  # probability that a setting passes if it differs on 0.5 % of the decisions
    otherwise: str  # fallback strategy for the other images if no setting passes
    sweep_cost: Amount  # evaluation equivalents of the sweep
    errors_bytes: Count  # approximate disk space of its recorded errors
    rest: Count  # number of images asked for that are not swept; with a limit, the expected number
    rest_cost: Amount  # their expected evaluation equivalents
    rest_cost_at_least: Amount | None  # lower bound if a setting passes; None if unknown
    rest_cost_at_most: Amount  # upper bound: every prompt on every draw
    full_cost: Amount  # evaluation equivalents of a full sweep of the images asked for
    schedule: str | None
    """Strategy with a fixed schedule that the race replaces; None if there is none."""
    schedule_cost: Amount | None  # evaluation equivalents of the schedule, which has no promise

    def in_words(self) -> str:
        """Return the plan and its cost as text."""
        return (
            f"--risk {self.risk:g}: {self.swept:,} of the split's {self.split:,} images, drawn"
            f" uniformly, are swept ({self.sweep_cost:,.0f} evaluations; their errors take about"
            f" {self.errors_bytes / 1e6:,.1f} MB). The cheapest setting that differs from the sweep"
            f" on at most {self.allowed:,} of them decides the other {self.rest:,} (expected:"
            f" {self.rest_cost:,.0f} evaluations); if none does, {self.otherwise} decides them."
        )

    def warning(self) -> str | None:
        """Return a warning if another strategy is expected to be cheaper."""
        expected = self.sweep_cost + self.rest_cost
        cost = f"sweep and race are expected to take {expected:,.0f} evaluations"
        full = (
            f"the full sweep (--strategy {exhaustive_strategy()}), which keeps any risk, takes"
            f" {self.full_cost:,.0f}"
        )
        if self.full_cost <= expected:
            return f"--risk {self.risk:g} does not pay: {cost}, but {full}."
        if self.schedule_cost is not None and self.schedule_cost < expected:
            return (
                f"--risk {self.risk:g} pays only if the promise is needed: {cost}, but the"
                f" published schedule (--strategy {self.schedule}), which promises nothing, takes"
                f" {self.schedule_cost:,.0f}, and {full}."
            )
        return None


@dataclass(frozen=True)
class PlannedSweep:
    """The sweep on which the settings of a run with a stated risk are tested."""

    plan: SweepPlan  # its size and cost
    whole: PreparedRun  # the ordinary full sweep of all images, of which this is a part
    samples: tuple[str, ...]  # ids of the swept images, in the order of the split
    candidates: tuple[StrategyIdentity, ...]  # the strategy with each tested setting, safest first

    @property
    def folder(self) -> Path:
        """Folder of the whole sweep."""
        return Path(self.whole.config.results, self.whole.manifest.run_id)

    def run(self) -> PreparedRun:
        """Return the ordinary run that sweeps the images, or its shard."""
        return prepared_run(self.whole.content, self.samples)

    def calibration(self) -> Calibration | None:
        """Return the stored test of the candidates on exactly the swept images; None if none yet.

        Failed images are counted as disagreements of every setting.
        """
        stored = [calibrated.calibration for calibrated in calibrations_of(self.folder)]
        if not stored:
            return None
        records = read_table(self.folder, len(self.whole.manifest.classes))
        names, errors = (records[column].to_pylist() for column in ("sample_id", "error"))
        error_of = dict(zip(names, errors, strict=True))
        if not error_of.keys() >= set(self.samples):
            return None
        decided = {name for name in self.samples if error_of[name] is None}
        failed = len(self.samples) - len(decided)
        candidates = [candidate.plain() for candidate in self.candidates]
        for calibration in stored:
            tested = [setting.strategy.plain() for setting in calibration.settings]
            if tested == candidates and set(calibration.samples or ()) == decided:
                counts = [(setting.disagreements or 0) + failed for setting in calibration.settings]
                settings = [
                    setting.model_copy(update={"disagreements": count})
                    for setting, count in zip(calibration.settings, counts, strict=True)
                ]
                changes = {"images": len(self.samples), "of": self.plan.split, "settings": settings}
                return calibration.model_copy(update=changes)
        return None


def sweep_of(run: PreparedRun) -> PlannedSweep | None:
    """Return the sweep of a run's risk; None without a risk, or if other images were calibrated on.

    Raises UserError if a setting excludes a sweep, or it saves nothing.
    """
    stated = run.names.stated_risk()
    if stated is None or has_calibration(stated, run.manifest):
        return None
    plan, race = plan_sweep(run.content, stated, len(run.split.sample_ids)), stated.decider
    recorder = _on_same_draws(stated.recorder, stated)
    own = backbone_params(run.config, run.names.backbone, race.spec)
    changes = {
        **dict.fromkeys(("risk", "limit", "again", "audit", "min_accuracy")),
        "fresh": False,
        "save_errors": True,
        "strategy": recorder.spec.name,
        "params": {**own, "draws": race.parameters["draws"]},
    }
    config = run.config.model_copy(update=changes)
    whole = prepared_run(run.content.naming(config=config, decider=recorder))
    return PlannedSweep(
        plan,
        whole,
        tuple(draw_sample(run.split.sample_ids, plan.swept, digest(whole.manifest.identity))),
        tuple(candidate.identity for candidate in _candidates(race)),
    )


def first_run(run: PreparedRun) -> PreparedRun:
    """Return what is made first: the sweep of a risk that is not tested yet, else the run."""
    first = settled(run)
    return first.run() if isinstance(first, PlannedSweep) else first


def with_chosen_params(run: PreparedRun) -> PreparedRun:
    """Return the run with the strategy that its risk chooses, as `settled`; UserError if untested.

    Without a risk, it is the run itself.
    """
    first = settled(run)
    if isinstance(first, PlannedSweep):
        raise UserError(
            f"--risk {first.plan.risk:g} is not calibrated yet: {first.plan.swept:,} images must be"
            " swept first. Run the same command with --sweep-only. To sweep in parts, run it with"
            f" --sweep-only --shard I/N, then `bench results merge {first.folder.name}` in the same"
            " results folder, then with --sweep-only alone."
        )
    return first


def settled(run: PreparedRun) -> PreparedRun | PlannedSweep:
    """Return the run with the strategy that its risk chooses, or the sweep that comes before.

    The strategy is the cheapest setting that passed the test, or else, if the run's own images were
    swept, the fallback of `--risk-else`. Raises UserError if no setting passed on other images.
    """
    stated, content = run.names.stated_risk(), run.content
    if stated is None or run.manifest.identity.calibrated is not None:
        return run
    race = stated.decider.spec
    if (sweep := sweep_of(run)) is None:
        params, calibrated = choose_setting(stated, run.manifest)
        decider = make_decider(race, params)
        return prepared_run(content.naming(decider=decider), calibrated=calibrated)
    if (calibration := sweep.calibration()) is None:
        return sweep
    best = cheapest(calibration, stated.risk)
    if best is None:
        decider = _on_same_draws(sweep.plan.otherwise, stated)
    else:
        decider = make_decider(race, best.strategy.params)
    calibrated = calibrated_on(calibration, best or calibration.settings[0], stated.risk)
    described = Sweep(
        evaluation_equivalents_per_image=sweep.plan.sweep_cost / sweep.plan.swept,
        choices=risk_choices(calibration),
    )
    rest = prepared_run(content.naming(decider=decider), calibrated=calibrated)
    manifest = rest.manifest.model_copy(update={"sweep": described})
    return replace(rest, manifest=manifest, copied=(sweep.folder, sweep.samples))


def plan_sweep(content: Content, stated: StatedRisk, n: int) -> SweepPlan:
    """Return the size of the sweep and the expected costs of sweep and race, on `n` images.

    The size depends on the split and on the costs, not on `--limit`. Raises UserError if a setting
    excludes a sweep, or no race can be cheaper than the full sweep.
    """
    config, decider = content.config, stated.decider
    config.check_mode("sweep", stated.option)
    sizes = content.problems()[-1:]
    problem, images = sizes[0]
    cells = len(problem.class_of_prompt) * len(problem.timesteps) * images
    full, swept = (
        price(_on_same_draws(name, stated).strategy, sizes)[0]
        for name in (exhaustive_strategy(), stated.recorder)
    )
    looks = [price(candidate.strategy, sizes)[1] for candidate in _candidates(decider)]
    least = min((look for look in looks if look is not None), default=None)
    race = full / 2 if least is None else min(RACE_COST * least, full)
    replaced = content.names.strategy.replaces(problem)
    schedule = None if replaced is None else replaced.equivalents * images
    otherwise, otherwise_cost = exhaustive_strategy(), full
    if config.risk_else == "schedule":
        if replaced is None or schedule is None:
            raise UserError(
                f"--risk-else schedule: strategy {decider.spec.name!r} replaces no schedule."
            )
        otherwise, otherwise_cost = replaced.strategy, schedule
    size = choose_sweep(n, stated.risk, swept, race, otherwise_cost)
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
        otherwise=otherwise,
        sweep_cost=size.images * swept,
        errors_bytes=size.images * (IMAGE_BYTES + CELL_BYTES * cells),
        rest=rest,
        rest_cost=rest * (size.passes * race + (1 - size.passes) * otherwise_cost),
        rest_cost_at_least=None if least is None else rest * least,
        rest_cost_at_most=rest * full,
        full_cost=n_asked * full,
        schedule=None if replaced is None else replaced.strategy,
        schedule_cost=None if schedule is None else n_asked * schedule,
    )


def _on_same_draws(name: str, stated: StatedRisk) -> ConfiguredStrategy:
    """Return a strategy with the number of draws of the stated one."""
    spec = load_plugins().strategies.get(name)
    return make_decider(spec, {"draws": stated.decider.parameters["draws"]})


def _candidates(race: ConfiguredStrategy) -> list[ConfiguredStrategy]:
    """Return the strategy with each of its tested settings, the safest first."""
    spec, parameters = race.spec, race.parameters
    return [make_decider(spec, {**parameters, **setting}) for setting in spec.safest_first]
