"""A run from its settings to its summary.

Everything that can be wrong is checked before weights are read: names, data, prompts, the store.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.contracts.decision import Decided, Engine
from bench.discovery.loading import load_plugins
from bench.errors import BenchWarning
from bench.inputs.data import load_split
from bench.machine.environment import peak_memory
from bench.machine.speed import remember_speed
from bench.running.assembly import (
    check_linearisable,
    check_token_lengths,
    find_weights,
    make_engine,
    make_prompts,
)
from bench.running.manifest import make_manifest
from bench.running.resolve import Resolved, resolve
from bench.running.settings import RunConfig
from bench.stats.metrics import summarize
from bench.store.decisions import read_decisions
from bench.store.folder import RunFolder, completed
from bench.store.records import make_record


def run(config: RunConfig) -> dict[str, Any]:
    """Run, or go on with, the run that `config` describes.

    Returns:
        The object behind `--json`.

    Raises:
        UserError: something is wrong that the user can mend; nothing was scored.
        KeyboardInterrupt: the same call goes on where this one stopped.
    """
    started = time.perf_counter()
    resolved = resolve(config)
    config = resolved.config
    split = load_split(resolved.dataset, config.split, config.data_dir)
    prompts = make_prompts(resolved, split.classes)
    weights = find_weights(resolved)
    manifest = make_manifest(resolved, split, prompts, weights)
    path = Path(config.results, manifest["run_id"])
    if not config.fresh and (earlier := completed(path, manifest, config.save_errors)):
        return {**earlier, "results_dir": str(path.resolve()), "resumed": "complete"}
    check_token_lengths(resolved, weights, prompts)
    check_linearisable(resolved)
    with RunFolder(path, manifest, config.fresh) as folder:
        outstanding = folder.outstanding(config.save_errors)
        engine = make_engine(resolved, prompts, weights)
        events = load_plugins().manager.hook
        total = len(folder.manifest["samples"])
        _tell(events.run_started, manifest=manifest, done=total - len(outstanding), total=total)
        for decided, seconds in _timed(engine.score(split.samples(outstanding), resolved.strategy)):
            record = make_record(decided, seconds)
            folder.append(record, decided if config.save_errors else None, engine.problem.timesteps)
            _tell(events.sample_scored, record=record)
        summary = summarize(
            manifest,
            read_decisions(path, folder.manifest, top=True),
            total_seconds=time.perf_counter() - started,
            peak_memory=peak_memory(),
        )
        summary["results_dir"] = str(path.resolve())
        folder.finish(summary)
        _remember_speed(resolved, engine, summary)
        _tell(events.run_finished, summary=summary)
    return summary


def _remember_speed(resolved: Resolved, engine: Engine, summary: dict[str, Any]) -> None:
    cost = summary["cost"]
    if engine.device and cost["seconds"] > 1:
        speed = cost["evaluation_equivalents"] / cost["seconds"]
        remember_speed(resolved.backbone_name, engine.device, resolved.config.dtype, speed)


def _timed(decisions: Iterator[Decided]) -> Iterator[tuple[Decided, float]]:
    """Yield each decision with the seconds since the one before it, or since scoring began."""
    last = time.perf_counter()
    for decided in decisions:
        now = time.perf_counter()
        yield decided, now - last
        last = now


def _tell(hook: Callable[..., Any], **event: Any) -> None:
    """Tell the plugins; one that fails to listen does not end the run."""
    try:
        hook(**event)
    except Exception as error:
        message = f"A plugin failed to handle a run event: {error!r}"
        warnings.warn(message, BenchWarning, stacklevel=2)
