"""Pictures of one's own: no labels, no store, an answer for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Sample
from bench.contracts.specs import DatasetSpec
from bench.inputs.data import load_rows
from bench.running.assembly import check_token_lengths, find_weights, make_engine, make_prompts
from bench.running.resolve import resolve
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
    resolved = resolve(config, pictures)
    spec = resolved.dataset
    names = spec.classes or tuple(
        load_rows(spec, None, resolved.config.data_dir).features["label"].names
    )
    prompts = make_prompts(resolved, names)
    weights = find_weights(resolved)
    check_token_lengths(resolved, weights, prompts)
    engine = make_engine(resolved, prompts, weights)
    samples = [
        Sample(str(position), 0, {"bytes": None, "path": str(Path(image))})
        for position, image in enumerate(images)
    ]
    answers: dict[int, dict[str, Any]] = {}
    for decided in engine.score(samples, resolved.strategy):
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
