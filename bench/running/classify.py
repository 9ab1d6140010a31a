"""Pictures of one's own: no labels, no store, an answer for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Sample
from bench.contracts.specs import DatasetSpec
from bench.running.prepare import prepare
from bench.running.settings import RunConfig
from bench.store.records import finite


def classify(
    config: RunConfig, images: Sequence[str], classes: tuple[str, ...] | None
) -> list[dict[str, Any]]:
    """Return what each image is taken for, in the order given.

    Args:
        config: the settings; its dataset gives classes and prompts where `classes` is None.
        images: paths.
        classes: class names, for the template.

    Raises:
        UserError: anything that is wrong before scoring.
    """
    pictures = None
    if classes is not None:
        pictures = DatasetSpec(
            name="pictures", target="bench.running.classify:classify", classes=classes
        )
    prepared = prepare(config, pictures, images=False)
    prepared.check()
    names, engine = prepared.classes, prepared.open_engine()
    samples = [
        Sample(str(position), 0, {"bytes": None, "path": str(Path(image))})
        for position, image in enumerate(images)
    ]
    answers: dict[int, dict[str, Any]] = {}
    for decided in engine.score(samples, prepared.strategy):
        position, outcome = int(decided.sample.sample_id), decided.outcome
        answers[position] = {
            "image": images[position],
            "prediction": names[outcome.ranking[0]] if outcome else None,
            "margin": finite(outcome.margin) if outcome else None,
            "margin_stderr": finite(outcome.margin_stderr) if outcome else None,
            "confidence": finite(outcome.confidence) if outcome else None,
            "evaluations": decided.evaluations,
            "ranking": [
                {
                    "class": names[c],
                    "score": finite(outcome.scores[c]),
                    "draws": int(outcome.draws[c]),
                }
                for c in outcome.ranking
            ]
            if outcome
            else [],
            "error": decided.error,
        }
    return [answers[position] for position in sorted(answers)]
