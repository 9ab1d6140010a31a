"""A recording made up here: what `bench run --save-errors` stores, without a model."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers.runs import a_manifest

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.draw_order import timestep_grid
from bench.contracts.strategy import ErrorTable, Evaluate, Floats32, Problem, Reply
from bench.recordings.replay import prepare_replay
from bench.running.execute import execute
from bench.stats.metrics.summarise import summarize
from bench.store.folder import read_records
from bench.store.formats.decisions import as_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.journal import make_record
from bench.store.writing import RunFolder

N_DRAWS, N_CLASSES, N_IMAGES = 100, 6, 30


def record(
    path: Path,
    seed: int = 0,
    informative: tuple[int, int] = (0, N_DRAWS),
    skip: tuple[int, ...] = (),
    first: int = 0,
    classes: int = N_CLASSES,
) -> Path:
    """Store a run of `full` as `bench run --save-errors` does; classes differ on some draws.

    Args:
        path: the folder of the run's folder.
        seed: of the noise.
        informative: the draws on which classes differ.
        skip: images whose errors are not kept.
        first: the number of the first image.
        classes: the number of classes.
    """
    path = path / f"toy-toy-full-{first + seed:08x}"
    images = range(first, first + N_IMAGES)
    manifest = a_manifest(
        [f"image-{i}" for i in images],
        classes,
        dataset="toy",
        backbone="toy",
        seed=seed,
        scoring={"loss": "l2", "noise": f"seed {seed}"},
        draws=N_DRAWS,
        run_id=path.name,
    )
    truths = [int(np.random.default_rng(i).integers(classes)) for i in images]

    def tables() -> Iterator[Floats32]:
        for i, truth in zip(images, truths, strict=True):
            rng = np.random.default_rng([seed, i])
            errors = 0.5 + 0.02 * rng.standard_normal((classes, N_DRAWS))
            gap = 0.02 * (np.arange(classes) != truth)
            errors[:, slice(*informative)] += gap[:, None]
            yield errors.astype(np.float32)

    left_out = {f"image-{i}" for i in skip}
    return store_errors(
        path, manifest, truths, tables(), N_DRAWS, seed, lambda s: s not in left_out
    )


def store_errors(
    path: Path,
    manifest: Manifest,
    truths: Sequence[int],
    tables: Iterable[Floats32],
    n_draws: int,
    seed: int = 0,
    kept: Callable[[str], bool] | None = lambda sample: True,
    complete: bool = True,
) -> Path:
    """Store a run whose errors are given, as `bench run` does.

    Args:
        path: the folder of the run.
        manifest: of the run.
        truths: the class of each image.
        tables: the errors of each image, of the first draws of `n_draws`.
        n_draws: number of draws of the plan.
        seed: of the noise.
        kept: whether the errors of an image are; None where none were asked for.
        complete: whether the run has its summary.
    """
    prompts = np.arange(len(manifest.prompts))
    problem = Problem(prompts, timestep_grid(n_draws, 1000), np.ones(n_draws), seed)
    with RunFolder(path, manifest) as folder:
        for name, truth, values in zip(manifest.samples, truths, tables, strict=True):
            asked, table = Evaluate(prompts, np.arange(values.shape[1])), ErrorTable(problem)
            table.tell(asked, Reply(values, values.size))
            decided = Decided(Sample(name, truth, {}))
            decided.evaluations, decided.equivalents = values.size, float(values.size)
            decided.outcome = table.outcome()
            decided.cells = [(asked, values)] if kept and kept(name) else []
            folder.append(make_record(decided, 0.5), decided if kept else None, problem.timesteps)
        if complete:
            records = list(read_records(path).values())
            folder.finish(summarize(manifest, as_decisions(records), 1.0, None))
    return path


def replay(
    path: Path, strategy: str, params: Mapping[str, Any], results: Path, limit: int | None = None
) -> dict[str, Any]:
    """Replay a recorded run; returns the object that `bench replay --json` prints."""
    return execute(prepare_replay(path, strategy, params, results, limit)).plain()
