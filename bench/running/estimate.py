"""What a run would cost, before anything heavy is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.contracts.strategy import Problem
from bench.discovery.backbones import count_operations
from bench.discovery.loading import load_plugins
from bench.machine.speed import estimate, likely_device
from bench.running.checks import check_weights
from bench.running.prepare import Prepared, prepare
from bench.running.resolve import Resolved, resolve_dataset
from bench.running.settings import RunConfig


def make_plan(config: RunConfig) -> dict[str, Any]:
    """Return images, prompts, evaluations, TFLOP and an estimate of the time.

    A dataset whose spec says its classes and sizes is not loaded; of a folder, the listing is.
    Evaluations, TFLOP and seconds are at the most; of a strategy whose cost depends on the image,
    `evaluations_per_image_at_least` says what an image costs at the least (None: not known).

    Raises:
        UserError: what would stop the run before it loads anything.
    """
    _, spec = resolve_dataset(config, load_plugins())
    declared = spec.splits.get(str(config.split or spec.split)) if spec.classes else None
    prepared = prepare(config, images=declared is None)
    config, resolved, prompts = prepared.config, prepared.resolved, prepared.prompts
    if config.weights is not None and prepared.weights and prepared.weights.revision is None:
        check_weights(prepared)  # those of the Hub would be fetched for that
    split = prepared.split
    images = len(split.sample_ids) if split else declared or 0
    images = min(images, config.limit or images)
    least, most = evaluations_an_image(resolved, np.array(prompts.class_of_prompt))
    device = likely_device(config.device)
    flops = evaluation_flops(prepared)
    speed, source = estimate(resolved.backbone_name, device, config.dtype, flops)
    evaluations = most * images
    return {
        "dataset": f"{spec.name}/{split.split if split else config.split or spec.split}",
        "images": images,
        "prompts": len(prompts.texts),
        "first_prompt": prompts.texts[0],
        "backbone": resolved.backbone_name,
        "trained_on": resolved.trained_on,
        "strategy": resolved.strategy_spec.name,
        "params": dict(resolved.strategy_parameters),
        "device": device,
        "dtype": config.dtype,
        "evaluations_per_image": most,
        "evaluations_per_image_at_least": least,
        "evaluations": evaluations,
        "tflop": evaluations * flops / 1e12 if flops else None,
        "seconds": round(evaluations / speed, 1) if speed else None,
        "estimate": source,
    }


def evaluation_flops(prepared: Prepared) -> float | None:
    """Return the operations of one evaluation: the spec's, or counted where the backbone can."""
    spec, config = prepared.resolved.backbone, prepared.config
    if config.weights is None and config.resolution is None and spec.flops:
        return spec.flops
    if prepared.weights is None:
        return None
    return count_operations(spec, prepared.weights, config.resolution)


def evaluations_an_image(resolved: Resolved, class_of_prompt: Any) -> tuple[int | None, int]:
    """Return the evaluations an image costs at the least, None where not known, and at the most."""
    draws = 1 if resolved.backbone.scorer == "classifier" else resolved.strategy_parameters["draws"]
    strategy = resolved.strategy
    problem = Problem(
        class_of_prompt, np.arange(draws), np.ones(draws), can_linearise=strategy.linearises
    )
    return strategy.at_least(problem), strategy.at_most(problem)
