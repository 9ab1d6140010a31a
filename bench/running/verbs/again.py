"""`--again N`: some images of a run decided a second time, with other noise."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.errors import BenchError
from bench.running.execute import Finished
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
    """Return a run as it would be with another seed; each image of a denoiser has its own noise.

    So decisions change independently of each other, given the first run, and the interval of
    their number is exact. The seed comes from the run's identity: the same every time.

    Args:
        prepared: the run.
        dataset: as it was prepared with.
    """
    seed = int(digest(prepared.manifest.identity)[:7], 16) + 1000  # far from the usual ones
    changes: dict[str, object] = {"seed": seed, "fresh": False, "risk": None}
    if prepared.resolved.backbone.scorer in SETTINGS["noise_per"].scorers:
        changes["noise_per"] = "image"
    if prepared.config.risk is not None:  # its settings were calibrated with the run's own seed
        changes["params"] = {**prepared.config.params, **prepared.resolved.strategy_parameters}
    config = prepared.config.model_copy(update=changes)
    return prepare(config, dataset, loaded=prepared.loaded, split=prepared.split)


def decide_again(
    run: ModelRun, finished: Finished, count: int, open_executor: OpenExecutor
) -> Again | None:
    """Decide images again, unless the run's folder holds what came of as many.

    Args:
        run: the run with other noise.
        finished: the run that is in its folder.
        count: images to decide again, chosen at random; all where there are fewer.
        open_executor: what scores them.

    Returns:
        What is in the run's folder now; None where no image was decided both times.
    """
    decided = read_decisions(finished.folder, finished.manifest)
    good = np.flatnonzero(~decided.failed)
    count = min(count, len(good))
    stored = read_again(finished.folder, decided)
    if count == 0 or (stored is not None and stored.images >= count):
        return stored
    seed = run.prepared.config.seed
    rows = np.sort(np.random.default_rng(seed).choice(good, count, replace=False))
    first = {decided.sample_ids[int(row)].as_py(): int(decided.predictions[row]) for row in rows}
    started, second = time.perf_counter(), {}
    evaluations, equivalents = 0, 0.0
    with closing(open_executor(run)) as executor:
        for image in executor.score(list(first)):
            evaluations += image.evaluations
            equivalents += image.equivalents
            if image.outcome is not None:
                second[image.sample.sample_id] = int(image.outcome.ranking[0])
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
        evaluations=evaluations,
        evaluation_equivalents=round(equivalents, 2),
        seconds=round(time.perf_counter() - started, 4),
    )
    write_again(finished.folder, again)
    return again


def strategy_of(manifest: Manifest) -> CheckedStrategy | None:
    """Return the strategy of a stored run; None where it is not installed, or is another by now."""
    try:
        spec = load_plugins().strategies.get(manifest.strategy.name)
        return make_strategy(spec, manifest.strategy.params)[1]
    except BenchError:
        return None
