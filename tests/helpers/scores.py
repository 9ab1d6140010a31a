"""Stored runs with given scores or an answered question, and methods that share mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers.runs import a_manifest, a_record, store

from bench.contracts.strategy import Floats
from bench.inputs.subsets import shuffle_samples
from bench.stats.metrics.summarise import summarize
from bench.stats.sequential.stopping_rules import Results, answer, parse_question
from bench.store.folder import read_manifest
from bench.store.formats.decisions import read_decisions
from bench.store.questions import QuestionAnswer, keep_question
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


def two_methods(
    rng: np.random.Generator, gap: float, n: int = 200, seeds: int = 3, shift: float = 0.0
) -> tuple[Floats, Floats]:
    """Return two methods that share most of their mistakes, [seeds, 1, n] each.

    Args:
        rng: the source of the draws.
        gap: by how much A is better.
        n: images.
        seeds: of each method.
        shift: the standard deviation of a run's accuracy over seeds.
    """
    hard = rng.random(n)
    a, b = (
        rng.random((seeds, 1, n))
        < 0.9 - 0.5 * hard - worse + shift * rng.normal(size=(seeds, 1, 1))
        for worse in (0.0, gap)
    )
    return a.astype(float), b.astype(float)


def store_ended(
    results: Path, labels: Sequence[int], predictions: Sequence[int], **manifest: Any
) -> tuple[Path, QuestionAnswer]:
    """Store a run whose question other images end: whether it is better than one always wrong.

    Returns its folder, beside that of the other run, and the answer.
    """
    wrong = [(label + 1) % 3 for label in labels]
    other = store(results, labels, wrong, backbone="always-wrong")
    ids = [f"s{i:04d}" for i in range(len(labels))]
    order = [ids.index(name) for name in shuffle_samples(ids, "f" * 64)]
    right = np.array([float(labels[place] == predictions[place]) for place in order])
    question = f"differs from {other.name}"
    result = answer(parse_question(question), Results(right, 0 * right, len(ids)))
    kept = order[: result.n]
    path = store(
        results,
        [labels[place] for place in kept],
        [predictions[place] for place in kept],
        sample_ids=[ids[place] for place in kept],
        n_total=len(ids),
        **manifest,
    )
    keep_question(path, read_manifest(path), question, 0, result)
    return path, result
