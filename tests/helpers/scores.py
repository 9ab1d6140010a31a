"""Stored runs of three classes or more with given scores of all classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from helpers.runs import a_manifest, a_record

from bench.stats.metrics import summarize
from bench.store.decisions import read_decisions
from bench.store.writing import RunFolder

LABELS = np.arange(45) % 3


def some_scores(seed: int = 0) -> Any:
    scores = np.random.default_rng(seed).normal(size=(45, 3))
    scores[np.arange(45), LABELS] -= 1
    return scores


def stored(results: Path, scores: Any, draws: Any = 5, **manifest: Any) -> Path:
    """Store a run with these scores of all classes and their draws."""
    draws = np.broadcast_to(draws, scores.shape)
    described = a_manifest([f"s{i:04d}" for i in range(45)], **manifest)
    path = results / described.run_id
    with RunFolder(path, described) as folder:
        for row, sample in enumerate(described.samples):
            order = np.argsort(scores[row])
            top = [[int(c), float(scores[row, c]), int(draws[row, c])] for c in order]
            record = a_record(sample, int(LABELS[row]), int(order[0]), top=top)
            folder.append(record, None, np.zeros(0, np.int64))
        decided = read_decisions(path, folder.manifest, top=True)
        folder.finish(summarize(described, decided, 1.0, None))
    return path
