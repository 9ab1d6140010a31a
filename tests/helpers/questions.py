"""Stored runs that a question ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers.runs import store

from bench.inputs.subsets import shuffle_samples
from bench.stats.questions import Results, answer, parse_question
from bench.store.folder import read_manifest
from bench.store.questions import QuestionAnswer, keep_question


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
