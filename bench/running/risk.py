"""`--risk`: choose a strategy's parameters by a calibration on other images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts.parameters import Parameters
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.errors import UserError
from bench.running.command import other_images_command
from bench.running.parts.decision import Decider
from bench.running.parts.names import Names
from bench.stats.risk import RISKS, images_needed, passing
from bench.store.calibrations import Calibrated, CalibratedSetting, Calibration, find_calibrations
from bench.store.documents import Manifest, RiskChoice
from bench.store.fields import without_none
from bench.store.identity import CalibratedOn


@dataclass(frozen=True)
class StatedRisk:
    """The risk that `--risk` states for a strategy."""

    risk: float  # the largest share of decisions that may differ from those of the full sweep
    decider: Decider  # the strategy without a risk
    params: Mapping[str, Any]  # parameters that the user set
    results: Path  # results folder with the calibrations

    @property
    def option(self) -> str:
        """The option as the user wrote it."""
        return f"--risk {self.risk:g}"

    def check(self) -> None:
        """Raise UserError if the strategy has no settings to choose from, or the user set one."""
        spec, option = self.decider.spec, self.option
        if not spec.safest_first:
            able = [other.name for other in load_plugins().strategies if other.safest_first]
            raise UserError(
                f"{option}: strategy {spec.name!r} has no settings to choose from; strategies that"
                f" have some: {', '.join(able) or 'none'}."
            )
        chosen = sorted(spec.safest_first[0])
        for name in chosen:
            if name in self.params:
                raise UserError(
                    f"{option} chooses {' and '.join(chosen)}: leave --set"
                    f" {name}={self.params[name]} out."
                )


def stated_risk(names: Names) -> StatedRisk | None:
    """Return the risk that settings state for the strategy that they name; None if they do not."""
    config = names.config
    if config.risk is None:
        return None
    return StatedRisk(config.risk, names.decider, config.params, Path(config.results))


def choose_setting(stated: StatedRisk, manifest: Manifest) -> tuple[Parameters, CalibratedOn]:
    """Return the cheapest parameters that passed the test of a risk, and their calibration.

    See `bench.stats.risk` for the test. Calibrations with the run's other parameters are preferred,
    then those with more images. `manifest` is that of the run without a risk. Raises UserError if
    no calibration fits, it has too few images, or it has images of the run.
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


def cheapest(calibration: Calibration, risk: float) -> CalibratedSetting | None:
    """Return the cheapest setting that passed the test of a risk; None if none did."""
    counts = [setting.disagreements or 0 for setting in calibration.settings]
    safe = passing(counts, calibration.images, risk, calibration.level, calibration.of)
    settings = [calibration.settings[place] for place in safe]
    return min(settings, key=lambda setting: setting.cost, default=None)


def risk_choices(calibration: Calibration) -> list[RiskChoice]:
    """Return the parameters chosen for each of `RISKS`, or the images needed if none passed."""
    chosen: list[RiskChoice] = []
    for risk in RISKS if calibration.settings else ():
        best = cheapest(calibration, risk)
        if best is None:
            chosen.append(RiskChoice(risk=risk, images_needed=_images_needed(calibration, risk)))
        else:
            params = {name: best.strategy.params[name] for name in calibration.chosen}
            chosen.append(
                RiskChoice(risk=risk, params=params, evaluation_equivalents_per_image=best.cost)
            )
    return chosen


def _images_needed(calibration: Calibration, risk: float) -> int:
    """Return how many images the test needs to pass with the safest setting's disagreements."""
    fewest = calibration.settings[0].disagreements or 0
    return images_needed(risk, fewest, calibration.level, calibration.of)


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
    disjoint = [
        calibrated.calibration for calibrated in same if not calibrated.shared_images(manifest)
    ]
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
    needed = _images_needed(calibration, risk)
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
