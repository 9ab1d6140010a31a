"""What a run would cost, before anything heavy is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.contracts.strategy import Problem
from bench.errors import UserError
from bench.inputs.data import load_split
from bench.machine.speed import estimate, likely_device
from bench.running.assembly import find_weights, linearises, make_prompts
from bench.running.resolve import Resolved, resolve
from bench.running.settings import RunConfig


def make_plan(config: RunConfig) -> dict[str, Any]:
    """Return images, prompts, evaluations, TFLOP and an estimate of the time.

    A dataset whose spec says its classes and sizes is not loaded; of a folder, the listing is.
    Evaluations, TFLOP and seconds are at the most; of a strategy whose cost depends on the image,
    `evaluations_per_image_at_least` says what an image costs at the least (None: not known).

    Raises:
        UserError: what would stop the run before it loads anything.
    """
    resolved = resolve(config)
    config, spec = resolved.config, resolved.dataset
    split = config.split or spec.split
    images, classes = spec.splits.get(str(split)), spec.classes
    if images is None or classes is None:
        loaded = load_split(spec, config.split, config.data_dir)
        split, images, classes = loaded.split, len(loaded.sample_ids), loaded.classes
    images = min(images, config.limit or images)
    prompts = make_prompts(resolved, classes)
    least, most = evaluations_an_image(resolved, np.array(prompts.class_of_prompt))
    device = likely_device(config.device)
    flops = evaluation_flops(resolved)
    speed, source = estimate(resolved.backbone_name, device, config.dtype, flops)
    evaluations = most * images
    return {
        "dataset": f"{spec.name}/{split}",
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


def evaluation_flops(resolved: Resolved) -> float | None:
    """Return the operations of one evaluation: the spec's, or counted where the backbone can."""
    spec, resolution = resolved.backbone, resolved.config.resolution
    if resolved.config.weights is None and resolution is None and spec.flops:
        return spec.flops
    count = getattr(spec.load(), "evaluation_flops", None)
    try:
        weights = find_weights(resolved)
        return float(count(weights, resolution)) if count and weights else None
    except UserError:  # a plan needs no weights on this machine
        return None


def evaluations_an_image(resolved: Resolved, class_of_prompt: Any) -> tuple[int | None, int]:
    """Return the evaluations an image costs at the least, None where not known, and at the most."""
    draws = 1 if resolved.backbone.scorer == "classifier" else resolved.strategy_parameters["draws"]
    problem = Problem(
        class_of_prompt, np.arange(draws), np.ones(draws), can_linearise=linearises(resolved)
    )
    at_least = getattr(resolved.strategy, "at_least", None)
    at_most = getattr(resolved.strategy, "at_most", None)
    return (
        int(at_least(problem)) if at_least else None,
        int(at_most(problem)) if at_most else len(class_of_prompt) * draws,
    )
