"""What a run teaches: settings of a strategy, tried on other images, and a calibration.

A strategy declares in its spec which parameters are `learned`, and `Strategy.learn` learns them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from bench.contracts.dataset import Sample
from bench.contracts.parameters import Parameters
from bench.contracts.specs import StrategySpec
from bench.contracts.strategy import Bools, Floats, Ints
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError, warn_user
from bench.machine.stages import counted
from bench.recordings.recording import Recording, open_draws, subset_of
from bench.recordings.replay import check_replayed, decider_for, replay_settings
from bench.running.parts.decision import make_decider, usual_parameters, usual_strategy
from bench.running.risk import PlannedSweep
from bench.stats.calibration.probability import fit_probability, held_out_skill
from bench.stats.calibration.risk import LEVEL, risk_choices
from bench.stats.inference.difference_tests import compare_over_images
from bench.stats.inference.paired import Difference
from bench.stats.inference.shares import mean_interval
from bench.store.calibrations import CalibratedSetting, Calibration, write_calibration
from bench.store.folder import read_manifest, requested_records
from bench.store.formats.decisions import Decisions, as_decisions, cluster_numbers
from bench.store.formats.documents import RiskChoice
from bench.store.formats.fields import Document, without_none
from bench.store.formats.identity import StrategyIdentity, digest
from bench.store.formats.journal import Record
from bench.store.locking import refuse_shipped
from bench.store.runs import StoredRun, read_run

CALIBRATED = "calibration"  # what every strategy learns, besides the parameters of its spec
TRIAL_FOLDS = 5
MIN_HELD_OUT = 20  # minimum number of images for cross-validation, four per fold
MAX_LOSS = 0.05  # loss of agreement that must be excluded before a setting is recommended

Verdict = Literal["gains", "costs more", "agrees less often", "agreement not shown"]


class LearnedSetting(Document):
    """A learned setting, and how it decides images that it was not learned from."""

    name: str  # what was learned
    params: Parameters  # learned from all images, or the others if nothing was learned
    cost: float  # evaluation equivalents per image
    agreement: float  # share of images on which it agrees with the full sweep
    agreement_ci95: tuple[float, float]  # Wilson interval
    difference: Difference  # agreement minus that of the strategy without the setting
    verdict: Verdict | None = None  # None if nothing was learned, or no images were held out


class LearnedSettings(Document):
    """Settings of a strategy that were learned from a recording.

    The images of each fold are decided with settings learned from the other folds. With fewer than
    20 images, all of them are decided with settings learned from these same images.
    """

    run_id: str  # id of the recorded run
    n_samples: int  # number of its images
    strategy: str  # name of the strategy
    held_out: bool  # whether the images were decided with settings learned from others
    nothing_learned: LearnedSetting  # the strategy with its usual parameters
    settings: list[LearnedSetting]  # each learned setting that was tried
    untried: list[str]  # names of settings that some fold had too few images for
    recommended: Parameters | None
    """All parameters of the cheapest setting that gains, those included that were not learned. A
    setting gains if it costs less than the strategy without it and is shown to agree with the full
    sweep as often, to within 5 points, or if it is shown to agree more often."""


class Learned(Document):
    """What a run taught a strategy."""

    strategy: str  # name of the strategy
    settings: LearnedSettings | None = None  # None if none were asked for, or the run teaches none
    not_learned: str | None = None  # why the run teaches no settings
    calibration: Calibration | None = None  # None if it was not asked for
    risks: list[RiskChoice] = Field([])  # what `--risk` chooses by the calibration


def learn(
    path: Path,
    what: Collection[str] = (),
    strategy: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> Learned:
    """Learn from a run what a strategy declares, and store the calibration in the run's folder.

    `what` are learned parameters of the strategy, or `calibration`; nothing stands for all that can
    be learned from the run. The strategy is the named one, else the backbone's, else the first one
    that learns `what`. Like those of a run, its parameters are `params`, and others of the backbone
    unless `strategy` is named. Raises UserError if no strategy learns `what`, or the run cannot
    teach it.
    """
    manifest = read_manifest(path)
    backbone = load_plugins().backbones.by_name().get(manifest.identity.backbone.name)
    usual = usual_strategy(backbone)[0]
    spec = _find_learner(what, strategy, usual)
    settings = problem = calibration = None
    if spec.learned and (not what or set(what) & set(spec.learned)):
        own = dict(params or {})
        if strategy is None:
            own = usual_parameters(backbone, spec.name, own)
        try:
            settings = learn_settings(path, spec, own, what or spec.learned)
        except UserError as error:
            if what or strategy:
                raise
            problem = str(error)
    if not what or CALIBRATED in what:
        named = spec.name if strategy or spec is not usual else None
        calibration = calibrate(path, named, params)
    return Learned(
        strategy=spec.name,
        settings=settings,
        not_learned=problem,
        calibration=calibration,
        risks=[] if calibration is None else risk_choices(calibration),
    )


def _find_learner(what: Collection[str], strategy: str | None, usual: StrategySpec) -> StrategySpec:
    strategies = load_plugins().strategies
    specs = [usual, *strategies] if strategy is None else [strategies.get(strategy)]
    for spec in specs:
        if set(what) <= {*spec.learned, CALIBRATED}:
            return spec
    learners = [f"{', '.join(spec.learned)} ({spec.name})" for spec in strategies if spec.learned]
    raise UserError(
        f"No {'installed strategy' if strategy is None else f'strategy {strategy!r}'} learns"
        f" {' and '.join(what)}. What can be learned: {'; '.join([*learners, CALIBRATED])}."
    )


def learn_settings(
    path: Path, spec: StrategySpec, params: Mapping[str, Any], what: Collection[str]
) -> LearnedSettings:
    """Learn settings from a recorded run, and measure their cost and agreement.

    Only settings that change no learned parameters but those in `what` are tried. `params` are the
    strategy's other parameters. With 20 images or more, the settings are tried by five-fold
    cross-validation; otherwise none is recommended. Learn from other images than those that will be
    scored later. Raises UserError if the run has no errors, the strategy does not fit it or fails
    on an image, or nothing can be learned.
    """
    check_replayed(make_decider(spec, params), read_manifest(path))
    recording = open_draws(path, spec.recorder or None)
    samples, strategy = recording.samples(), decider_for(recording, spec.name, params).strategy
    read = counted(samples, "Learning", len(samples))
    statistics = [_sample_statistics(recording, sample, strategy) for sample in read]

    def learn(rows: Ints) -> dict[str, Parameters]:
        settings = strategy.learn([image for row in rows for image in statistics[row]])
        others = set(spec.learned) - set(what)
        return {name: setting for name, setting in settings.items() if not others & set(setting)}

    learned, folds = learn(np.arange(len(samples))), _folds(len(samples))
    by_fold = [learn(others) for others, _ in folds]
    names = [name for name in learned if all(name in settings for settings in by_fold)]
    decided = []
    for (_, own), settings in zip(folds, by_fold, strict=True):
        tried = [params, *({**params, **settings[name]} for name in names)]
        decided.append(_decide(recording, [samples[row] for row in own], spec.name, tried))
    costs, agrees = (np.concatenate(parts, axis=1) for parts in zip(*decided, strict=True))
    clusters = cluster_numbers(samples[row].cluster for _, own in folds for row in own)
    nothing = _measure("nothing", dict(params), costs[0], agrees[0], agrees[0], clusters)
    trials = [
        _measure(name, learned[name], cost, agree, agrees[0], clusters)
        for name, cost, agree in zip(names, costs[1:], agrees[1:], strict=True)
    ]
    held_out = len(folds) > 1
    if held_out:
        trials = [judge(trial, nothing) for trial in trials]
    best = choose_recommended(trials)
    return LearnedSettings(
        run_id=recording.manifest.run_id,
        n_samples=len(samples),
        strategy=spec.name,
        held_out=held_out,
        nothing_learned=nothing,
        settings=trials,
        untried=[name for name in learned if name not in names],
        recommended=None if best is None else {**params, **best.params},
    )


def _sample_statistics(
    recording: Recording, sample: Sample, strategy: CheckedStrategy
) -> list[Any]:
    """Return the statistics of each image of a sample."""
    tables, problem = recording.tables_and_problem(sample)
    first_order = None
    if strategy.linearises:
        if (at_mean := tables.at_mean) is None:
            raise UserError("Not every draw was linearised at the mean of the prompts.")
        first_order = at_mean.astype(np.float64)
    shape = (-1, len(problem.class_of_prompt), recording.n_draws)
    images = tables.errors.astype(np.float64).reshape(shape)
    return [strategy.statistics(problem, errors, first_order) for errors in images]


def _folds(n: int) -> list[tuple[Ints, Ints]]:
    """Return the images to learn from and those to decide, per fold; all of n if these are few."""
    if n < MIN_HELD_OUT:
        return [(np.arange(n), np.arange(n))]
    fold_of = np.random.default_rng(0).permutation(n) % TRIAL_FOLDS
    folds = range(TRIAL_FOLDS)
    return [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in folds]


def _decide(
    recording: Recording, samples: Sequence[Sample], name: str, tried: Sequence[Mapping[str, Any]]
) -> tuple[Floats, Bools]:
    """Return the cost of each setting on each sample, and whether it agrees with the full sweep."""
    full, replays = replay_settings(recording, samples, [(name, params) for params in tried])
    for record in (record for _, records in (full, *replays) for record in records):
        if record["prediction"] is None:
            raise UserError(f"The recorded errors of {record['sample_id']}: {record['error']}.")
    predictions, decided = as_decisions(full[1]).predictions, [as_decisions(r) for _, r in replays]
    agrees = [decisions.predictions == predictions for decisions in decided]
    return np.stack([decisions.equivalents for decisions in decided]), np.stack(agrees)


def _measure(
    name: str,
    params: Parameters,
    costs: Floats,
    agrees: Bools,
    agrees_without: Bools,
    clusters: Ints | None,
) -> LearnedSetting:
    a, b = (agree[None, None].astype(np.float64) for agree in (agrees_without, agrees))
    return LearnedSetting(
        name=name,
        params=params,
        cost=float(costs.mean()),
        agreement=float(agrees.mean()),
        agreement_ci95=mean_interval(agrees, clusters),
        difference=compare_over_images(a, b, clusters=clusters),
    )


def judge(trial: LearnedSetting, nothing: LearnedSetting) -> LearnedSetting:
    """Return a setting with its verdict, compared with the strategy that learned nothing.

    If no decision changes, 73 images show that no more than `MAX_LOSS` is lost.
    """
    low = trial.difference.interval[0]
    verdict: Verdict = "gains"
    if low <= 0 and trial.cost >= nothing.cost:
        verdict = "costs more"
    elif trial.difference.estimate < 0:
        verdict = "agrees less often"
    elif low < -MAX_LOSS:
        verdict = "agreement not shown"
    return trial.model_copy(update={"verdict": verdict})


def choose_recommended(trials: Sequence[LearnedSetting]) -> LearnedSetting | None:
    """Return the cheapest setting that gains; None if none does."""
    gains = [trial for trial in trials if trial.verdict == "gains"]
    return min(gains, key=lambda trial: trial.cost, default=None)


def calibrate(
    path: Path,
    strategy: str | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    settings: Sequence[Mapping[str, Any]] | None = None,
    samples: Collection[str] | None = None,
    of: int | None = None,
) -> Calibration:
    """Calibrate on the images of a run, and store the result in its folder.

    If the run recorded every cell, several settings of the strategy are replayed, and their
    disagreements with the full sweep are counted; `bench run --risk` chooses from these settings.
    The probability that a decision is right is fitted for each setting, for the full sweep, and for
    the backbone's usual setting. For any other run, it is fitted for the run's own decisions.

    By default the strategy is the backbone's, `settings` are those of the strategy's spec, and
    `samples` are the ids in the run's summary. `params` override the backbone's. `settings` must be
    sorted, safest first, in an order that does not depend on the images. `of` is the size of the
    population that the images were drawn from, for a risk on the rest of it. Raises UserError if no
    image is decided, the run is not finished, the strategy does not fit the recording, or `params`
    sets a parameter that `settings` choose.
    """
    refuse_shipped(path)  # before the work, whose result it could not keep
    run = read_run(path)
    manifest = run.manifest
    candidates = _summary_records(run) if samples is None else requested_records(path, manifest)
    records = [
        record
        for record in candidates
        if record["error"] is None and (samples is None or record["sample_id"] in samples)
    ]
    if not records:
        raise UserError(f"{path} has no decided image to calibrate on.")
    chosen, calibrated = list[str](), list[CalibratedSetting]()
    sample_ids = [record["sample_id"] for record in records]
    try:
        recording = open_draws(path)
    except UserError:
        if strategy is not None or params:
            raise
        others = [_calibrate_setting(manifest.strategy, as_decisions(records))]
    else:
        kept = set(sample_ids)
        recorded = [record for record in recording.records if record["sample_id"] in kept]
        recording = replace(recording, records=tuple(recorded))
        chosen, calibrated, others = _replay_settings(recording, strategy, params or {}, settings)
        sample_ids = [record["sample_id"] for record in recorded]
    calibration = Calibration(
        run_id=manifest.run_id,
        identity=digest(manifest.identity),
        split=manifest.dataset.split,
        images=len(sample_ids),
        samples=sample_ids,
        level=LEVEL,
        chosen=chosen,
        settings=calibrated,
        others=others,
        **without_none(of=of),
    )
    write_calibration(path, calibration)
    return calibration


def calibrate_sweep(sweep: PlannedSweep) -> Calibration:
    """Test the settings of a stated risk on the images that were swept for it; see `calibrate`."""
    strategy = sweep.candidates[0]
    tested = load_plugins().strategies.get(strategy.name).safest_first
    others = {name: value for name, value in strategy.params.items() if name not in tested[0]}
    return calibrate(
        sweep.folder,
        strategy.name,
        others,
        settings=tested,
        samples=set(sweep.samples),
        of=sweep.plan.split,
    )


def _summary_records(run: StoredRun) -> list[Record]:
    """Return the records of the images in a run's summary, and warn if more are decided.

    A run that was interrupted and then finished with `--limit` has decided further images: the
    first of its split, which are not a fair sample if the split is sorted. Subsets are nested, so
    the summary's subset of the split is also that of the decided images.
    """
    records, n = requested_records(run.path, run.manifest), run.require_summary().dataset.n_samples
    chosen = set(subset_of(records, n))
    if len(chosen) < len(records):
        warn_user(
            f"{run.manifest.run_id} is not complete: calibrated on the {len(chosen)} images of its"
            f" summary; {len(records) - len(chosen)} other decided images are left out."
        )
    return [record for record in records if record["sample_id"] in chosen]


def _replay_settings(
    recording: Recording,
    strategy: str | None,
    params: Mapping[str, Any],
    listed: Sequence[Mapping[str, Any]] | None,
) -> tuple[list[str], list[CalibratedSetting], list[CalibratedSetting]]:
    """Replay the settings of a strategy; `strategy` and `listed` are as for `calibrate`.

    Return which parameters they choose, the settings, and the full sweep and usual setting.
    """
    backbone = load_plugins().backbones.by_name().get(recording.manifest.identity.backbone.name)
    name = strategy or usual_strategy(backbone)[0].name
    usual, base = (usual_parameters(backbone, name, params, risk) for risk in (False, True))
    if listed is None:
        listed = load_plugins().strategies.get(name).safest_first
    chosen = sorted(listed[0]) if listed else []
    if clashes := [key for key in chosen if key in params]:
        raise UserError(f"--set {clashes[0]}: a risk chooses {' and '.join(chosen)}; leave it out.")
    tried = [*({**base, **setting} for setting in listed), usual]
    named = [(name, values) for values in tried]
    (sweep, records), replays = replay_settings(recording, recording.samples(), named)
    full = as_decisions(records)
    _check_records(recording, sweep.identity, full)
    settings = [_calibrate_setting(s.identity, as_decisions(r), full) for s, r in replays]
    others = [_calibrate_setting(sweep.identity, full)]
    usual_setting = settings.pop()
    if usual_setting.strategy not in [setting.strategy for setting in (*settings, *others)]:
        others.append(usual_setting)
    return chosen, settings, others


def _check_records(recording: Recording, full: StrategyIdentity, replayed: Decisions) -> None:
    """Raise UserError if a full sweep's records are not what its errors decide."""
    manifest = recording.manifest
    if manifest.strategy != full or manifest.identity.scoring.error_bits is not None:
        return  # another strategy decided, or the errors were rounded later
    for record, prediction in zip(recording.records, replayed.predictions, strict=True):
        if record["prediction"] != prediction:
            raise UserError(
                f"{recording.path}: the record of image {record['sample_id']!r} differs from its"
                " stored errors, so one of them was changed. Make the run again with --fresh."
            )


def _calibrate_setting(
    strategy: StrategyIdentity, decided: Decisions, full: Decisions | None = None
) -> CalibratedSetting:
    """Return a strategy's cost, fit and, if `full` is given, disagreements with the full sweep."""
    differs = None if full is None else int((decided.predictions != full.predictions).sum())
    return CalibratedSetting(
        strategy=strategy,
        cost=float(decided.equivalents.mean()),
        right=int(decided.correct.sum()),
        fit=fit_probability(decided),
        **without_none(disagreements=differs, held_out_skill=held_out_skill(decided)),
    )
