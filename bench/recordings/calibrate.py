"""Learn from the images of a run how far later decisions of the same kind can be trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.discovery.loading import exhaustive, load_plugins
from bench.errors import UserError, warn_user
from bench.inputs.subsets import limited
from bench.recordings.recording import Recording, open_draws
from bench.recordings.replay import decider_for, replayed
from bench.stats.probability import fit_probability
from bench.stats.risk import LEVEL
from bench.store.calibrations import (
    CALIBRATION_FORMAT,
    CalibratedSetting,
    Calibration,
    write_calibration,
)
from bench.store.decisions import Decisions, as_decisions
from bench.store.documents import Manifest
from bench.store.fields import without_none
from bench.store.folder import asked_records
from bench.store.identity import StrategyIdentity, digest
from bench.store.records import Record
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
    """Calibrate on the images of a run, and keep the result in its folder.

    Of a run that recorded every cell, the settings that the strategy's spec lists are replayed,
    and the disagreements of each with the full sweep are counted; `bench run --risk` chooses from
    these. The probability that a decision is right is fitted for each of them, for the full sweep,
    and for the strategy as the backbone uses it; of any other run, for its own decisions.

    Args:
        path: folder of the run.
        strategy: name of the strategy; None: that of the backbone.
        params: its other parameters, over those that the backbone sets.
        settings: the settings to test, from the safest on, in an order that does not depend on the
            images; None: those of the strategy's spec.
        samples: ids of the images; None: those of the run's summary.
        of: number of images that they were drawn from, for a risk on the others of them.

    Raises:
        UserError: nothing is decided, the run is not finished, or the strategy does not fit.
    """
    run = read_run(path)
    manifest = run.manifest
    about = _summarised(run) if samples is None else asked_records(path, manifest)
    records = [
        record
        for record in about
        if record["error"] is None and (samples is None or record["sample_id"] in samples)
    ]
    if not records:
        raise UserError(f"{path} has no decided image to calibrate on.")
    own = _setting(manifest.strategy, as_decisions(records))
    chosen: list[str] = []
    calibrated: list[CalibratedSetting] = []
    others, sample_ids = [own], [record["sample_id"] for record in records]
    try:
        recording = open_draws(path)
    except UserError:
        if strategy is not None or params:
            raise
    else:
        name, kept = strategy or _usual(manifest)[0], set(sample_ids)
        recorded = [record for record in recording.records if record["sample_id"] in kept]
        recording = replace(recording, records=tuple(recorded))
        chosen, calibrated, others = _replayed(recording, name, params or {}, settings)
        sample_ids = [record["sample_id"] for record in recorded]
    calibration = Calibration(
        format=CALIBRATION_FORMAT,
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


def _summarised(run: StoredRun) -> list[Record]:
    """Return the records of the images that a run's summary is about, and warn of others.

    A run that was stopped and then finished with `--limit` has decided more than these: the first
    of its split, which are no fair sample where the split is sorted. A subset is nested, so the one
    of all images is also that of the decided ones.

    Raises:
        UserError: it has no summary yet.
    """
    records, n = asked_records(run.path, run.manifest), run.finished().dataset.n_samples
    chosen = set(limited([r["sample_id"] for r in records], [r["label"] for r in records], n))
    if len(chosen) < len(records):
        warn_user(
            f"{run.manifest.run_id} is not complete: calibrated on the {len(chosen)} images of its"
            f" summary, and not on {len(records) - len(chosen)} others that are decided."
        )
    return [record for record in records if record["sample_id"] in chosen]


def _usual(manifest: Manifest) -> tuple[str, Mapping[str, Any]]:
    """Return the strategy of a run's backbone, and the parameters that the backbone sets."""
    plugins, name = load_plugins(), manifest.identity.backbone.name
    spec = plugins.backbones.get(name) if name in plugins.backbones else None
    if spec is not None and spec.strategy is not None:
        return spec.strategy, spec.strategy_parameters
    default = plugins.strategies.default()
    return default.name if default else exhaustive(), {}


def _replayed(
    recording: Recording,
    name: str,
    params: Mapping[str, Any],
    listed: Sequence[Mapping[str, Any]] | None,
) -> tuple[list[str], list[CalibratedSetting], list[CalibratedSetting]]:
    """Return the parameters that differ, the settings of a strategy, and other strategies."""
    usual, usual_params = _usual(recording.manifest)
    base = {**(usual_params if usual == name else {}), **params}
    if listed is None:
        listed = load_plugins().strategies.get(name).safest_first
    chosen = sorted(listed[0]) if listed else []
    if both := [key for key in chosen if key in params]:
        raise UserError(f"--set {both[0]}: a risk chooses {' and '.join(chosen)}; leave it out.")
    tried: list[tuple[str, Mapping[str, Any]]] = [(exhaustive(), {})]
    tried += [(name, {**base, **setting}) for setting in listed]
    tried += [(name, base)]
    deciders = [decider_for(recording, strategy, its) for strategy, its in tried]
    strategies = [decider.strategy for decider in deciders]
    full, *decided = map(as_decisions, replayed(recording, recording.samples(), strategies))
    settings = [
        _setting(decider.identity, decisions, full)
        for decider, decisions in zip(deciders[1:], decided, strict=True)
    ]
    others = [_setting(deciders[0].identity, full)]
    usual_setting = settings.pop()
    if usual_setting.strategy not in [setting.strategy for setting in (*settings, *others)]:
        others.append(usual_setting)
    return chosen, settings, others


def _setting(
    strategy: StrategyIdentity, decided: Decisions, full: Decisions | None = None
) -> CalibratedSetting:
    """Return cost and right decisions of a strategy, and how often it differs from `full`."""
    compared: dict[str, int] = {}
    if full is not None:
        compared["disagreements"] = int((decided.predictions != full.predictions).sum())
    return CalibratedSetting(
        strategy=strategy,
        cost=float(decided.equivalents.mean()),
        right=int(decided.correct.sum()),
        fit=fit_probability(decided),
        **compared,
    )
