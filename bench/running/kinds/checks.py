"""Checks of a denoiser before a run, without labels: whether it fits, and what a precision costs.

Each takes at most 2 % of the run's own evaluations, and what was measured is remembered.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import islice

import numpy as np

from bench.contracts.backbone import Backbone, Denoiser
from bench.contracts.strategy import Floats, Ints
from bench.discovery.backbones import fact
from bench.discovery.targets import offers
from bench.engine.batching import device_name
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.engine.rounding import (
    MIN_IMAGES,
    Rounding,
    affordable,
    compare,
    errors_of,
    paired_draws,
    upcast,
)
from bench.engine.sanity import ModelFit, check_fit
from bench.engine.sanity import affordable as affordable_fit
from bench.engine.scoring import Evaluator
from bench.engine.trees import Tree
from bench.errors import UserError, warn_user
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.environment import device_memory, installed_packages
from bench.machine.libraries import Tensor, torch
from bench.machine.precision import computing
from bench.machine.stages import stage
from bench.running.content import Content, PreparedRun
from bench.running.parts.machine import RunPrecision
from bench.running.parts.settings import key_of
from bench.store.formats.identity import digest

FIT_VERSION = 2  # of what is measured

CHECK_SHARE = 0.02  # largest share of the run's own evaluations


def check_model(run: PreparedRun, engine: DenoisingEngine) -> str | None:
    """Return a warning if the model does not seem to fit its noise levels or the run's images.

    See `bench.engine.sanity`. What was measured is remembered for the same weights and images. Not
    checked are runs of a few evaluations, items, controls, whose images are altered, and models
    without a null prompt, which may rightly be worse than a guess under another class's prompt.
    """
    texts = len(run.content.prompts.texts)
    images, scaled, prompts = affordable_fit(_budget(run, engine), texts)
    has_null = offers(engine.backbone.backbone, Denoiser.encode_null)
    if not images or not has_null or run.split.items or run.config.control is not None:
        return None
    loaded = [*map(str, run.content.backbone_key), run.split.fingerprint]
    settings = key_of(run.config, "data", "images", "network")
    key = digest({"measured": [FIT_VERSION, *loaded, settings, images, scaled, prompts]})
    path = cache_dir("fit") / f"{key}.json"
    if (stored := read_cached(path)) is not None:
        return _reported(ModelFit(**json.loads(stored)))
    latents = [latent for _, latent in islice(_latents(run, engine), images)]
    if not latents:
        return None
    chosen = slice(0, texts, -(-texts // prompts)) if prompts else slice(0, 1)
    conditioning = engine.evaluator.pool.part(chosen)
    size = engine.batch_size
    try:
        with stage("Checking the model"):
            fit = check_fit(engine.backbone, torch.stack(latents), conditioning, size, scaled)
    except torch.OutOfMemoryError:  # scoring shrinks its batches; a check is not worth that
        return None
    if fit is None:
        return None
    write_cached(path, json.dumps(asdict(fit)))
    return _reported(fit)


def _reported(fit: ModelFit) -> str | None:
    logging.getLogger("bench.model").info("%s", fit)
    return fit.problem


def _budget(run: PreparedRun, engine: DenoisingEngine) -> float:
    """Return the evaluations that a check may take."""
    least = run.strategy.at_least(engine.problem)  # None: the highest cost stands for it
    cost = run.strategy.at_most(engine.problem) if least is None else least
    return CHECK_SHARE * cost * len(run.sample_ids)


def _latents(run: PreparedRun, engine: DenoisingEngine) -> Iterator[tuple[str, Tensor]]:
    """Yield each readable image's id and the latent of its first view, float32 [C, H, W]."""
    for sample, of_images in engine.latents.of(run.samples(run.sample_ids)):
        if not isinstance(of_images, str):
            yield sample.sample_id, of_images[0][0].float()


ROUNDING_VERSION = 1  # of what is measured


Measure = Callable[[Evaluator, Ints], Floats]
"""Returns the errors of some prompts, float64 [images, prompts, draws]."""
Encode = Callable[[Content, CheckedDenoiser], Tree]  # of a run's prompts


def check_precision(run: PreparedRun, engine: DenoisingEngine, encode: Encode) -> Rounding | None:
    """Return what the run's precision adds to the errors of float32; None if that was not measured.

    See `bench.engine.rounding`. It is remembered for the same weights, precision, resolution, GPU
    and versions, and changes nothing. Raises UserError if an error is not finite.
    """
    precision = run.names.precision
    if precision.network == "float32":
        return None
    backbone = engine.backbone
    loaded = [str(part) for part in run.content.backbone_key[:2] + run.content.backbone_key[-1:]]
    key = [ROUNDING_VERSION, *loaded, device_name(backbone.device), installed_packages()]
    path = cache_dir("rounding") / f"{digest({'measured': key})}.json"
    if (stored := read_cached(path)) is not None:
        return Rounding(**json.loads(stored))
    draws = paired_draws(len(engine.problem.timesteps), engine.problem.antithetic)
    images, prompts = affordable(_budget(run, engine), engine.prompts, len(draws))
    pairs = list(islice(_latents(run, engine), images))
    if len(pairs) < MIN_IMAGES:
        warn_user(
            f"{precision} was not compared with float32: 2 % of this run's evaluations are too few"
            " for two images."
        )
        return None
    names, latents = [name for name, _ in pairs], torch.stack([latent for _, latent in pairs])
    chosen = np.arange(prompts) * engine.prompts // prompts
    weights = engine.problem.weights[draws] / engine.problem.weights.mean()

    def measure(evaluator: Evaluator, prompts: Ints) -> Floats:
        return errors_of(evaluator, latents, names, prompts, draws)

    with stage(f"Comparing {precision} with float32"):
        rounded = measure(engine.evaluator, chosen)
        if latents.isfinite().all() and not np.isfinite(rounded).all():
            raise UserError(f"The model's errors are not finite{backbone.advice}.")
        try:
            exact, alone = _in_float32(run, engine, chosen, measure, encode)
        except torch.OutOfMemoryError:
            warn_user(f"{precision} was not compared with float32: memory ran out.")
            return None
    if not np.isfinite(exact).all():
        return None
    rounding = compare(rounded * weights, exact * weights, alone)
    write_cached(path, json.dumps(asdict(rounding)))
    return rounding


def _in_float32(
    run: PreparedRun, engine: DenoisingEngine, prompts: Ints, measure: Measure, encode: Encode
) -> tuple[Floats, bool]:
    """Return the errors in float32, and whether they are of the rounded weights.

    In TF32 the network is the same. Otherwise it leaves the GPU, and is loaded again in float32. If
    that does not fit, or it is an object in memory, its operations are converted one at a time.
    """
    if run.names.precision.dtype == "float32":
        with _switched(engine.backbone):
            return measure(engine.evaluator, prompts), False
    if not run.names.backbone.objects and _has_room(run, engine.backbone.device.type):
        whole = run.content.prompts
        probed = replace(
            whole,
            texts=tuple(whole.texts[prompt] for prompt in prompts),
            sources=tuple(whole.sources[prompt] for prompt in prompts),
            class_of_prompt=tuple(range(len(prompts))),
            parents=None,
        )
        config = run.config.model_copy(update={"tf32": False, "compile": False})
        exactly = replace(run.content, prompts=probed, loaded=None)
        exactly = exactly.naming(config=config, precision=RunPrecision())

        def loaded_again() -> Floats:  # a function, so that its network is gone when it ends
            other = exactly.kind.load(exactly)
            evaluator = Evaluator(other, encode(exactly, other), engine.evaluator.scoring)
            return measure(evaluator, np.arange(len(prompts)))

        with suppress(torch.OutOfMemoryError), _away(engine.backbone):
            return loaded_again(), False
    with _switched(engine.backbone), upcast():
        return measure(engine.evaluator, prompts), True


def _has_room(run: PreparedRun, device: str) -> bool:
    """Return whether a second network fits; where the host's memory runs out, nobody raises."""
    weights, total = run.content.weights, device_memory("cpu")
    if device != "cpu" or weights is None or total is None:
        return True
    parameters = run.names.backbone_parameters
    size = fact(run.names.backbone, Backbone.memory, weights, "float32", **parameters)
    return size is None or size < total / 4


@contextmanager
def _switched(backbone: CheckedDenoiser) -> Iterator[None]:
    """Turn TF32 off while the block runs."""
    own = backbone.switches
    backbone.switches = partial(computing, False) if backbone.device.type == "cuda" else nullcontext
    try:
        yield
    finally:
        backbone.switches = own


@contextmanager
def _away(backbone: CheckedDenoiser) -> Iterator[None]:
    """Move a network from the GPU to the host while the block runs."""
    network, device = backbone.network, backbone.device
    if network is None or device.type == "cpu" or backbone.offloads:
        yield
        return
    network.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        torch.cuda.empty_cache()
        network.to(device)
