"""`--risk`: the parameters of a strategy, chosen by what they did on other images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contracts.specs import StrategySpec
from bench.discovery.loading import exhaustive, load_plugins
from bench.errors import UserError
from bench.running.command import other_images_command
from bench.running.parts.decision import Decider, make_strategy
from bench.running.resolve import Resolved
from bench.stats.risk import images_needed, passing
from bench.store.calibrations import Calibrated, CalibratedSetting, find_calibrations
from bench.store.documents import Manifest
from bench.store.identity import CalibratedOn


@dataclass(frozen=True)
class Stated:
    """A risk that was stated for a strategy.

    Attributes:
        risk: the largest share of decisions that may differ from those of the full sweep.
        spec: the strategy's.
        given: the parameters that the user gave.
        parameters: all of the strategy's, as they would be without a risk.
        results: the folder in which calibrations lie.
    """

    risk: float
    spec: StrategySpec
    given: Mapping[str, Any]
    parameters: Mapping[str, Any]
    results: Path

    @property
    def option(self) -> str:
        """How the user wrote it."""
        return f"--risk {self.risk:g}"


def stated_risk(resolved: Resolved) -> Stated | None:
    """Return the risk that a run's settings state, after `check_risk`; None: none.

    Raises:
        UserError: no parameters can be chosen for it.
    """
    config = resolved.config
    if config.risk is None:
        return None
    spec, parameters = resolved.strategy_spec, resolved.strategy_parameters
    stated = Stated(config.risk, spec, config.params, parameters, Path(config.results))
    check_risk(stated)
    return stated


def check_risk(stated: Stated) -> None:
    """Refuse a risk where no parameters can be chosen for it.

    Raises:
        UserError: the strategy has none to choose, or a parameter of it speaks against it.
    """
    spec, option = stated.spec, stated.option
    if not spec.safest_first:
        able = [each.name for each in load_plugins().strategies if each.safest_first]
        raise UserError(
            f"{option}: strategy {spec.name!r} has no settings to choose among; those that have:"
            f" {', '.join(able) or 'none'}."
        )
    chosen = sorted(spec.safest_first[0])
    if both := [name for name in chosen if name in stated.given]:
        raise UserError(
            f"{option} chooses {' and '.join(chosen)}: leave --set {both[0]}="
            f"{stated.given[both[0]]} out."
        )
    if (ceiling := stated.parameters.get("ceiling")) is not None:
        raise UserError(
            f"{option} and ceiling={ceiling} exclude each other: an image that the ceiling cut"
            " keeps no stated risk. Leave one of them out."
        )


def with_risk(
    resolved: Resolved, stated: Stated, manifest: Manifest
) -> tuple[Resolved, CalibratedOn]:
    """Return a run with the parameters that a risk chooses, and what they were calibrated on.

    Args:
        resolved: the run's names and settings.
        stated: its risk.
        manifest: the run as it would be without one.

    Raises:
        UserError: as `choose_setting` says.
    """
    chosen, calibrated = choose_setting(stated, manifest)
    decider = Decider(stated.spec, *make_strategy(stated.spec, chosen))
    changed = replace(resolved, decider=decider)
    return changed, calibrated


def choose_setting(stated: Stated, manifest: Manifest) -> tuple[dict[str, Any], CalibratedOn]:
    """Return the parameters that a risk chooses, and what they were calibrated on.

    Of the settings that keep the risk on the calibrated images, the cheapest is taken; see
    `bench.stats.risk`. Of several calibrations, one with the run's other parameters is taken, and
    of these the one of the most images.

    Args:
        stated: the risk.
        manifest: the run as it would be without it.

    Raises:
        UserError: there is no calibration for it, or too few images, or the images are the same.
    """
    found = _calibrated(stated, manifest)
    calibration, n = found.calibration, found.calibration.images
    counts = [setting.disagreements or 0 for setting in calibration.settings]
    kept = [calibration.settings[i] for i in passing(counts, n, stated.risk, calibration.level)]
    if not kept:
        raise UserError(_too_few(found, stated.risk, counts[0]))
    best = min(kept, key=lambda setting: setting.cost)
    _check_given(stated, best)
    return dict(best.strategy.params), CalibratedOn(
        run_id=calibration.run_id,
        identity=calibration.identity,
        split=calibration.split,
        images=n,
        disagreements=best.disagreements or 0,
        risk=stated.risk,
        level=calibration.level,
    )


def _calibrated(stated: Stated, manifest: Manifest) -> Calibrated:
    """Return the calibration that a run can use."""
    spec = stated.spec
    same = [
        each
        for each in find_calibrations(stated.results)
        if each.fits(manifest)
        and any(
            (setting.strategy.name, setting.strategy.version) == (spec.name, spec.version)
            for setting in each.calibration.settings
        )
    ]
    if not same:
        recorded = other_images_command(manifest, "--strategy", exhaustive(), "--save-errors")
        raise UserError(
            f"{stated.option}: no calibration in {stated.results} is of the same backbone, dataset,"
            f" prompts, draws and seed, and of strategy {spec.name!r}. Record other images, at"
            f" least {images_needed(stated.risk)}, and calibrate on them:"
            f" {recorded}, then `bench calibrate RUN`."
        )
    other = [each for each in same if not each.shared(manifest)]
    if not other:
        shared = same[0].shared(manifest)
        raise UserError(
            f"{stated.option}: {same[0].manifest.run_id} was calibrated on {shared} of the"
            f" {len(manifest.samples)} images that are to be scored. A risk holds for other images:"
            " calibrate on another split."
        )
    # A run without parameters of its own is the same run before and after another calibration.
    return max(other, key=lambda each: (_as_given(stated, each), each.calibration.images))


def _as_given(stated: Stated, calibrated: Calibrated) -> bool:
    """Whether a calibration has the parameters that the run would have without a risk."""
    calibration = calibrated.calibration
    return all(
        value == stated.parameters.get(name, value)
        for setting in calibration.settings
        for name, value in setting.strategy.params.items()
        if name not in calibration.chosen
    )


def _too_few(found: Calibrated, risk: float, disagreements: int) -> str:
    """Return what is wrong where not even the safest setting keeps a risk."""
    calibration = found.calibration
    sure = f"a risk of {risk:.3g} with probability {100 * calibration.level:g} %"
    about = f"{calibration.run_id} ({calibration.split}) has {calibration.images}"
    needed = images_needed(risk, disagreements, calibration.level)
    if not disagreements:
        return (
            f"--risk {risk:g}: {about} images, and {sure} needs at least {needed} without a"
            " disagreement. Record and calibrate more of them, or state a larger risk."
        )
    return (
        f"--risk {risk:g}: even the safest setting decided {disagreements} of the"
        f" {calibration.images} images of {calibration.run_id} otherwise than the full sweep;"
        f" {sure} needs {needed} images with so many. Use --strategy full, or state a larger risk."
    )


def _check_given(stated: Stated, best: CalibratedSetting) -> None:
    """Refuse parameters of the user's that differ from those of the calibration."""
    made = stated.parameters
    for name in stated.given:
        used = best.strategy.params.get(name, made.get(name))
        if name in made and made[name] != used:
            raise UserError(
                f"{stated.option}: --set {name}={made[name]} differs from {name}={used}, with which"
                " it was calibrated. Leave it out, or calibrate again with it."
            )
