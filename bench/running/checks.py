"""Checks of a loaded backbone, without labels, before it scores its first image.

Whether a denoiser fits and what its precision costs: each takes at most 2 % of the run's own
evaluations, and what was measured is remembered. Whether a backbone in memory is that of the run
that is resumed: the identity covers such a backbone's weights, but not its code or its hooks, so
the manifest stores a few predictions, which a resumed run must reproduce.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from bench.contracts.backbone import Backbone, Denoiser
from bench.contracts.strategy import Floats, Ints
from bench.discovery.backbones import fact
from bench.discovery.targets import offers
from bench.engine import rounding, sanity
from bench.engine.batching import device_name
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.engine.direct import CheckedLikelihood
from bench.engine.scoring import Evaluator, mixed, times
from bench.engine.trees import mapped
from bench.errors import UserError, warn_user
from bench.inputs.pixels import decode
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.environment import device_memory, installed_packages
from bench.machine.libraries import Tensor, torch
from bench.machine.precision import computing
from bench.machine.stages import stage
from bench.running.content import PreparedRun
from bench.running.parts.machine import RunPrecision
from bench.store.folder import missing_samples, read_manifest
from bench.store.formats.documents import Probe
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
    images, scaled, prompts = sanity.affordable(_budget(run, engine), texts)
    has_null = offers(engine.backbone.backbone, Denoiser.encode_null)
    if not images or not has_null or run.split.items or run.config.control is not None:
        return None
    loaded = [*map(str, run.content.backbone_key), run.split.fingerprint]
    settings = run.config.key_of("data", "images", "network")
    key = [FIT_VERSION, *loaded, settings, images, scaled, prompts]

    def measure() -> sanity.ModelFit | None:
        latents = [latent for _, latent in islice(_latents(run, engine), images)]
        if not latents:
            return None
        chosen = slice(0, texts, -(-texts // prompts)) if prompts else slice(0, 1)
        conditioning, size = engine.evaluator.pool.part(chosen), engine.batch_size
        shown = engine.backbone, torch.stack(latents), conditioning, size, scaled
        try:
            with stage("Checking the model"):
                return sanity.check_fit(*shown)
        except torch.OutOfMemoryError:  # scoring shrinks its batches; a check is not worth that
            return None

    fit = _remembered("fit", key, sanity.ModelFit, measure)
    if fit is None:
        return None
    logging.getLogger("bench.model").info("%s", fit)
    return fit.problem


M = TypeVar("M", sanity.ModelFit, rounding.Rounding)


def _remembered(
    folder: str, key: list[object], kind: type[M], measure: Callable[[], M | None]
) -> M | None:
    """Return what was measured for the same key before; otherwise measure it, and remember it."""
    path = cache_dir(folder) / f"{digest({'measured': key})}.json"
    if (stored := read_cached(path)) is not None:
        return kind(**json.loads(stored))
    measured = measure()
    if measured is not None:
        write_cached(path, json.dumps(asdict(measured)))
    return measured


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


def check_precision(run: PreparedRun, engine: DenoisingEngine) -> rounding.Rounding | None:
    """Return what the run's precision adds to the errors of float32; None if that was not measured.

    See `bench.engine.rounding`. It is remembered for the same weights, precision, resolution, GPU
    and versions, and changes nothing. Raises UserError if an error is not finite.
    """
    if run.names.precision.network == "float32":
        return None
    loaded = [str(part) for part in run.content.backbone_key[:2] + run.content.backbone_key[-1:]]
    key = [ROUNDING_VERSION, *loaded, device_name(engine.backbone.device), installed_packages()]
    measure = partial(_measured_rounding, run, engine)
    return _remembered("rounding", key, rounding.Rounding, measure)


def _measured_rounding(run: PreparedRun, engine: DenoisingEngine) -> rounding.Rounding | None:
    precision = run.names.precision
    draws = rounding.paired_draws(len(engine.problem.timesteps), engine.problem.antithetic)
    images, prompts = rounding.affordable(_budget(run, engine), engine.prompts, len(draws))
    pairs = list(islice(_latents(run, engine), images))
    if len(pairs) < rounding.MIN_IMAGES:
        warn_user(
            f"{precision} was not compared with float32: 2 % of this run's evaluations are too few"
            " for two images."
        )
        return None
    names, latents = [name for name, _ in pairs], torch.stack([latent for _, latent in pairs])
    chosen = np.arange(prompts) * engine.prompts // prompts
    weights = engine.problem.weights[draws] / engine.problem.weights.mean()

    def measure(evaluator: Evaluator, prompts: Ints) -> Floats:
        return rounding.errors_of(evaluator, latents, names, prompts, draws)

    with stage(f"Comparing {precision} with float32"):
        rounded = measure(engine.evaluator, chosen)
        if latents.isfinite().all() and not np.isfinite(rounded).all():
            raise UserError(f"The model's errors are not finite{engine.backbone.advice}.")
        try:
            exact, alone = _in_float32(run, engine, chosen, measure)
        except torch.OutOfMemoryError:
            warn_user(f"{precision} was not compared with float32: memory ran out.")
            return None
    if not np.isfinite(exact).all():
        return None
    return rounding.compare(rounded * weights, exact * weights, alone)


def _in_float32(
    run: PreparedRun, engine: DenoisingEngine, prompts: Ints, measure: Measure
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
            evaluator = Evaluator(other, exactly.encode_texts(other), engine.evaluator.scoring)
            return measure(evaluator, np.arange(len(prompts)))

        with suppress(torch.OutOfMemoryError), _away(engine.backbone):
            return loaded_again(), False
    with _switched(engine.backbone), rounding.upcast():
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


PROBED_TEXTS = 2  # number of prompts
PROBED_LEVELS = (0.25, 0.75)  # noise levels, as fractions of the level table
KEPT_ELEMENTS = 16  # number of stored values per latent or prediction
# Largest relative differences due to rounding, across devices, batch sizes and library versions.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}


def with_probe(prepared: PreparedRun) -> PreparedRun:
    """Return the run with a probe in its manifest: a few of the backbone's predictions.

    Raises UserError if they differ from the stored run's probe, or the run is a shard.
    """
    prepared.config.check_mode("memory", "A backbone in memory")
    prepared.check()
    folder, fresh = prepared.folder, prepared.config.fresh
    resumes = not fresh and missing_samples(folder, prepared.manifest, False) is not None
    earlier = read_manifest(folder).probe if resumes else None
    sample = prepared.sample_ids[0] if earlier is None else earlier.sample
    probe = _probe(prepared, sample)
    difference = 0.0 if earlier is None else _difference(earlier, probe)
    if difference > (tolerance := TOLERANCES[prepared.names.precision.dtype]):
        raise UserError(
            f"{prepared.folder}: this backbone's predictions differ from those at the start of the"
            f" run by a relative {difference:.2g} (rounding explains at most {tolerance:g}). Its"
            " weights are the same, but its code, its hooks or the libraries are not. fresh=True"
            " starts over."
        )
    manifest = prepared.manifest.model_copy(update={"probe": earlier or probe})
    return replace(prepared, manifest=manifest)


def _probe(prepared: PreparedRun, sample_id: str) -> Probe:
    denoiser = prepared.content.kind.make(prepared.content)
    texts = prepared.content.prompts.texts[:PROBED_TEXTS]
    sample, count = next(prepared.samples([sample_id])), len(texts)
    image = decode(sample.images[0])
    if isinstance(denoiser, CheckedLikelihood):
        n_draws, first = prepared.content.names.n_draws, np.zeros(count, np.int64)
        errors = denoiser.evaluate([image] * count, texts, first, n_draws)
        return Probe(sample=sample_id, latent=[], predictions=[[float(e)] for e in errors])
    levels = denoiser.levels
    level = np.repeat([int(fraction * len(levels)) for fraction in PROBED_LEVELS], count)
    with torch.inference_mode():
        latent = denoiser.encode_images([image]).float()
        x_0 = latent.expand(len(level), *latent.shape[1:])
        generator = torch.Generator().manual_seed(0)
        eps = torch.randn(latent.shape, generator=generator).to(latent.device)
        alpha, sigma = (
            torch.from_numpy(column[level].astype(np.float32)).to(latent.device)
            for column in (levels.alpha, levels.sigma)
        )
        prompt = torch.arange(count).repeat(len(PROBED_LEVELS))
        encoded = prepared.content.encode_texts(denoiser)
        conditioning = mapped(lambda leaf: leaf[prompt].to(denoiser.device), encoded)
        x_t = mixed(x_0, eps.expand_as(x_0), alpha, sigma)
        time = times(levels, level).to(denoiser.device)
        predictions = denoiser.denoise(x_t, time, conditioning)
    return Probe(
        sample=sample_id,
        latent=_kept(latent[0]),
        predictions=[_kept(row) for row in predictions],
    )


def _kept(values: Any) -> list[float]:
    """Return at most `KEPT_ELEMENTS` evenly spaced elements, rounded to six digits."""
    flat = values.float().flatten().cpu().numpy()
    count = min(KEPT_ELEMENTS, len(flat))
    return [float(f"{value:.6g}") for value in flat[np.arange(count) * len(flat) // count]]


def _difference(stored: Probe, probe: Probe) -> float:
    """Return the largest relative difference (Euclidean norm) of the latent or a prediction."""
    pairs = [
        (stored.latent, probe.latent),
        *zip(stored.predictions, probe.predictions, strict=True),
    ]
    return max(
        float(np.linalg.norm(np.subtract(a, b)) / max(float(np.linalg.norm(a)), 1e-12))
        for a, b in pairs
    )
