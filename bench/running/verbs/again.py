"""`--again N` decides images of a run a second time, with other noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.decision import Decided
from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.errors import BenchError
from bench.running.execute import timed
from bench.running.model_run import ModelRun
from bench.running.parts.decision import make_strategy
from bench.running.prepare import prepare
from bench.running.prepared import Prepared
from bench.running.settings import SETTINGS
from bench.stats.shares import exact_interval
from bench.store.decisions import read_decisions
from bench.store.documents import Manifest
from bench.store.identity import digest
from bench.store.summary import AGAIN_FORMAT, Again, read_again, write_again

if TYPE_CHECKING:
    from bench.running.executors.protocol import OpenExecutor


def with_other_noise(prepared: Prepared, dataset: DatasetSpec | None = None) -> Prepared:
    """Return a run with another seed, and for a denoiser with noise per image.

    So decisions change independently of each other, given the first run, and the interval of
    their number is exact. The seed is derived from the run's identity: the same every time.
    """
    seed = int(digest(prepared.manifest.identity)[:7], 16) + 1000  # far from common seeds
    changes: dict[str, object] = {"seed": seed, "fresh": False, "risk": None}
    if prepared.resolved.backbone.scorer in SETTINGS["noise_per"].scorers:
        changes["noise_per"] = "image"
    if prepared.config.risk is not None:  # its parameters were calibrated with the run's seed
        decider = prepared.resolved.decider
        changes["strategy"] = decider.spec.name
        changes["params"] = {**prepared.config.params, **decider.parameters}
    config = prepared.config.model_copy(update=changes)
    return prepare(config, dataset, loaded=prepared.loaded, split=prepared.split)


def decided_again(
    run: ModelRun, sample_ids: Sequence[str], open_executor: OpenExecutor
) -> Iterator[tuple[Decided, float]]:
    """Yield images of a finished run as another run decides them, with the seconds each took."""
    with closing(open_executor(run)) as executor:
        yield from timed(executor.score(sample_ids))


def decide_again(
    run: ModelRun, manifest: Manifest, path: Path, count: int, open_executor: OpenExecutor
) -> Again | None:
    """Decide `count` random images of a stored run again, unless as many are stored.

    Returns the stored result; None where no image was decided both times.
    """
    decided = read_decisions(path, manifest)
    good = np.flatnonzero(~decided.failed)
    count = min(count, len(good))
    stored = read_again(path, decided)
    if count == 0 or (stored is not None and stored.images >= count):
        return stored
    seed = run.prepared.config.seed
    rows = np.sort(np.random.default_rng(seed).choice(good, count, replace=False))
    first = {decided.sample_ids[int(row)].as_py(): int(decided.predictions[row]) for row in rows}
    images = list(decided_again(run, list(first), open_executor))
    second = {
        image.sample.sample_id: int(image.outcome.ranking[0])
        for image, _ in images
        if image.outcome is not None
    }
    if not second:
        return None
    changed = [name for name, prediction in second.items() if first[name] != prediction]
    low, high = exact_interval(len(changed), len(second))
    again = Again(
        format=AGAIN_FORMAT,
        of=len(good),
        images=len(second),
        changed=sorted(changed),
        expected=len(good) * len(changed) / len(second),
        expected_ci95=(len(good) * low, len(good) * high),
        seed=seed,
        evaluations=sum(image.evaluations for image, _ in images),
        evaluation_equivalents=round(sum(image.equivalents for image, _ in images), 2),
        seconds=round(sum(seconds for _, seconds in images), 4),
    )
    write_again(path, again)
    return again


def strategy_of(manifest: Manifest) -> CheckedStrategy | None:
    """Return the strategy of a stored run; None where it is missing, or no longer the same."""
    try:
        spec = load_plugins().strategies.get(manifest.strategy.name)
        return make_strategy(spec, manifest.strategy.params)[1]
    except BenchError:
        return None
