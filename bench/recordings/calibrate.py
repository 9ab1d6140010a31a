"""Calibrate on a run: how often decisions of the same kind are right, or match the full sweep."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.discovery.loading import load_plugins
from bench.errors import UserError, warn_user
from bench.inputs.subsets import select_subset
from bench.recordings.recording import Recording, open_draws
from bench.recordings.replay import replay_settings
from bench.running.parts.decision import usual_parameters, usual_strategy
from bench.running.risk_sweep import PlannedSweep
from bench.stats.probability import fit_probability, held_out_skill
from bench.stats.risk import LEVEL
from bench.store.calibrations import CalibratedSetting, Calibration, write_calibration
from bench.store.decisions import Decisions, as_decisions
from bench.store.fields import without_none
from bench.store.folder import requested_records
from bench.store.identity import StrategyIdentity, digest
from bench.store.journal import Record
from bench.store.locking import refuse_shipped
from bench.store.runs import StoredRun, read_run


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
    chosen = set(select_subset([r["sample_id"] for r in records], [r["label"] for r in records], n))
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
