"""`--risk`: the parameters of a strategy, chosen by what they did on other images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.running.command import recording_command
from bench.running.resolve import Resolved, make_strategy
from bench.running.settings import RunConfig
from bench.stats.risk import images_needed, passing
from bench.store.calibrations import Calibrated, Setting, find_calibrations
from bench.store.documents import Manifest
from bench.store.identity import CalibratedOn


def check_risk(config: RunConfig, resolved: Resolved) -> None:
    """Refuse a risk where no parameters can be chosen for it.

    Raises:
        UserError: the strategy has none to choose, or a parameter of it speaks against it.
    """
    if config.risk is None:
        return
    spec, option = resolved.strategy_spec, f"--risk {config.risk:g}"
    if not spec.safest_first:
        able = [each.name for each in load_plugins().strategies if each.safest_first]
        raise UserError(
            f"{option}: strategy {spec.name!r} has no settings to choose among;"
            f" {', '.join(able) or 'none'} has."
        )
    chosen = sorted(spec.safest_first[0])
    if both := [name for name in chosen if name in config.params]:
        raise UserError(
            f"{option} chooses {' and '.join(chosen)}: leave --set {both[0]}="
            f"{config.params[both[0]]} out."
        )
    if resolved.strategy_parameters.get("ceiling") is not None:
        raise UserError(
            f"{option} and ceiling={resolved.strategy_parameters['ceiling']} exclude each other: an"
            " image that the ceiling cut keeps no stated risk. Leave one of them out."
        )


def with_risk(resolved: Resolved, manifest: Manifest) -> tuple[Resolved, CalibratedOn]:
    """Return the run with the parameters that a risk chooses, and what they were calibrated on.

    Of the settings that keep the risk on the calibrated images, the cheapest is taken; see
    `bench.stats.risk`. Of several calibrations, the one of the most images.

    Args:
        resolved: the run's names and settings, with a risk.
        manifest: the run as it would be without one.

    Raises:
        UserError: there is no calibration for it, or too few images, or the images are the same.
    """
    risk = resolved.config.risk
    assert risk is not None
    found = _calibrated(resolved, manifest, risk)
    calibration, n = found.calibration, found.calibration.images
    counts = [setting.disagreements or 0 for setting in calibration.settings]
    kept = [calibration.settings[i] for i in passing(counts, n, risk, calibration.level)]
    if not kept:
        raise UserError(_too_few(found, risk, counts[0]))
    best = min(kept, key=lambda setting: setting.cost)
    _check_given(resolved, best, risk)
    parameters, strategy = make_strategy(resolved.strategy_spec, best.strategy.params)
    return replace(resolved, strategy_parameters=parameters, strategy=strategy), CalibratedOn(
        run_id=calibration.run_id,
        identity=calibration.identity,
        split=calibration.split,
        images=n,
        disagreements=best.disagreements or 0,
        risk=risk,
        level=calibration.level,
    )


def _calibrated(resolved: Resolved, manifest: Manifest, risk: float) -> Calibrated:
    """Return the calibration that a run can use."""
    spec, option = resolved.strategy_spec, f"--risk {risk:g}"
    same = [
        each
        for each in find_calibrations(Path(resolved.config.results))
        if each.fits(manifest)
        and any(
            (setting.strategy.name, setting.strategy.version) == (spec.name, spec.version)
            for setting in each.calibration.settings
        )
    ]
    if not same:
        raise UserError(
            f"{option}: no calibration in {resolved.config.results} is of the same backbone,"
            f" dataset, prompts, draws and seed, and of strategy {spec.name!r}. Record other"
            f" images, at least {images_needed(risk)}, and calibrate on them:"
            f" {recording_command(manifest)} (with another --split), then `bench calibrate RUN`."
        )
    other = [each for each in same if not each.shared(manifest)]
    if not other:
        shared = same[0].shared(manifest)
        raise UserError(
            f"{option}: {same[0].manifest.run_id} was calibrated on {shared} of the"
            f" {len(manifest.samples)} images that are to be scored. A risk holds for other images:"
            " calibrate on another split."
        )
    return max(other, key=lambda each: each.calibration.images)


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


def _check_given(resolved: Resolved, best: Setting, risk: float) -> None:
    """Refuse parameters of the user's that differ from those of the calibration."""
    made = {**resolved.strategy_parameters}
    for name in resolved.config.params:
        used = best.strategy.params.get(name, made.get(name))
        if name in made and made[name] != used:
            raise UserError(
                f"--risk {risk:g}: --set {name}={made[name]} differs from {name}={used}, with which"
                " it was calibrated. Leave it out, or calibrate again with it."
            )
