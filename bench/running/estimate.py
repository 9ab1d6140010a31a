"""The plan of one run, for `--dry-run`: its validation and estimated cost, without its weights."""

from collections.abc import Iterator
from contextlib import suppress
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bench.contracts.backbone import Backbone
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Problem
from bench.discovery.backbones import fact
from bench.errors import UserError
from bench.inputs.data import explain_missing_data
from bench.machine.environment import device_memory, likely_device, pick_device
from bench.machine.offline import offline_if_set
from bench.machine.precision import PRECISIONS, Precision, assumed_capability_notes
from bench.machine.speeds import estimate_speed, seconds_on_devices
from bench.running.content import Content, PreparedRun
from bench.running.generated import GeneratedImages
from bench.running.manifest import evaluation_flops, prepared_run
from bench.running.parts.data import find_dataset
from bench.running.parts.decision import price
from bench.running.parts.settings import Names, RunConfig
from bench.running.parts.texts import find_template
from bench.running.prepare import check_chosen, read_content
from bench.running.risk import PlannedSweep, SweepPlan, plan_sweep, settled
from bench.store.folder import missing_samples
from bench.store.formats.fields import Count, Document, without_none

DRIVER_BYTES = 0.6e9  # CUDA context, kernels and libraries
# The usual autoencoder in float32: its 84 million parameters, and the memory per pixel while it
# encodes an image, counted on torch's meta device.
AUTOENCODER_BYTES, ENCODING_BYTES = 335e6, 2572


Lack = Literal["weights", "data", "device"]


class PlannedGeneration(Document):
    """Images that are generated for a classifier to learn from, once for all runs."""

    images: Count  # of all classes
    images_to_make: Count  # those that are not in the cache
    evaluations: Count
    """Of the generator's network, for the images to make, if a step has one, and one more of the
    null prompt above a guidance of 1. Samplers may take more or fewer, which is counted."""
    tflop: float | None  # of these evaluations; None if unknown
    seconds: float | None  # None if the generator's speed is not known


class Plan(Document):
    """A validated run that was not started, and its cost."""

    run_id: str | None  # run id; None if the data or the weights were not read
    dataset: str  # dataset and split
    images: Count  # number of images requested
    images_to_score: Count  # number of images not decided yet, for which the cost is estimated
    prompts: Count  # number of prompts
    first_prompt: str  # first prompt of the first class
    template: str | list[str] | None  # None if the prompts come from a file
    backbone: str  # registered name, or name of the folder
    trained_on: str | None  # `dataset/split`; None for zero-shot
    strategy: str  # registered name
    params: Parameters  # parameters of the strategy, except those that a risk will choose
    draws: Count  # number of draws
    plan: str | None
    """Levels and pairs of the draws. For a classifier, this and the next four fields are None."""
    seed: int | None  # seed of the noise
    noise: str | None  # file of the noise; None if it is generated from the seed
    loss: str | None  # loss of a cell
    space: str | None  # space of the error
    device: str  # kind of device
    dtype: Precision  # precision of the network, as `--dtype` names it
    classifier: bool  # whether evaluations are passes of a classifier, one per image
    evaluations_per_image: Count  # upper bound
    evaluations_per_image_at_least: Count | None
    """Lower bound if the strategy's cost depends on the image; None if not known."""
    at_most: bool  # whether evaluations, TFLOP and seconds are upper bounds
    evaluations: Count  # for the images to score and those to decide again
    images_again: Count | None = None
    """Number of images to decide again with other noise; None without `--again`."""
    audit_evaluations: Count | None = None
    """Upper bound for the audit, not included in other figures; None without `--audit`."""
    tflop: float | None  # floating-point operations of `evaluations`, in 10^12
    memory: str | None  # weights that are in memory at the same time
    memory_needed: str | None = None
    """Estimated minimum: weights, driver, and the larger of a one-cell batch and encoding an
    image."""
    seconds: float | None  # None if the backbone's speed is not known
    estimate: str  # how `seconds` was estimated
    seconds_in: dict[Precision, float] | None = None
    """On a GPU: the other precisions → seconds, measured or assumed; None if not known."""
    seconds_elsewhere: dict[str, float] | None = None
    """Device → seconds at a fraction of its published peak; None if the operations are unknown."""
    dtype_elsewhere: Precision | None = None  # precision of `seconds_elsewhere`
    generation: PlannedGeneration | None = None  # not included in other figures
    risk: SweepPlan | None = None  # sweep and race of a stated risk that is not calibrated yet
    warnings: list[str]  # warnings before the run, including everything in `missing`
    missing: list[str] = Field(default_factory=list)
    """Why this machine cannot make the run: absent weights, data or device."""
    lacks: list[Lack] = Field(default_factory=list)  # which of these are absent


@offline_if_set
def make_plan(config: RunConfig) -> Plan:
    """Return the plan of a run, after all checks that need no weights (UserError)."""
    content, run, risk = _with_risk(_read_content(config))
    names = content.names
    check_chosen(names)
    lacking = dict(_missing(content))
    missing = list(lacking.values())
    if not content.absent and (content.weights is None or content.weights.revision is None):
        content.check()  # it would download other weights
        content.kind.check_draws(content)
    if run is not None:
        run.task()  # refuses a question that does not fit
    device, weights = likely_device(config.device), _weight_bytes(content)
    needed, too_much = _needed(content, config.device or device)
    warnings = [
        *content.warnings,
        *missing,
        *assumed_capability_notes(names.precision.network, config.device),
        *too_much,
        *filter(None, [risk and risk.warning()]),
    ]
    return Plan(
        **_described(content),
        **_costs(content, run, risk, device),
        run_id=run.manifest.run_id if run else None,
        device=device,
        memory=weights and f"{weights / 2**30:.2g} GiB of weights at a time",
        memory_needed=needed,
        **without_none(risk=risk, generation=_generation(content, device)),
        warnings=warnings,
        missing=missing,
        lacks=list(lacking),
    )


def _described(content: Content) -> dict[str, Any]:
    """Return the fields of a plan that say what is scored, and how."""
    names, config, texts = content.names, content.config, content.prompts.texts
    by_template = not (config.prompts or names.dataset.items or names.backbone.learns)
    template = find_template(config, names.backbone) or names.dataset.template
    scoring = content.kind.scoring(content)
    return {
        "dataset": f"{names.data.slug}/{_split(content)}",
        "prompts": len(texts),
        "first_prompt": texts[0],
        "template": template if by_template else None,
        "backbone": names.source.name,
        "trained_on": content.trained_on,
        "strategy": names.decider.spec.name,
        "draws": names.n_draws,
        "plan": scoring.draw_plan,
        "seed": None if config.noise or names.backbone.one_draw else config.seed,
        "noise": config.noise,
        "loss": scoring.loss,
        "space": scoring.space,
        "dtype": names.precision.network,
        "classifier": names.backbone.one_draw,
    }


def _costs(
    content: Content, run: PreparedRun | None, risk: SweepPlan | None, device: str
) -> dict[str, Any]:
    """Return the fields of a plan about images, evaluations and time, and the parameters."""
    names, config, flops = content.names, content.config, evaluation_flops(content)
    images, left = _images(content, run)
    again = None if config.again is None else min(config.again, images)
    most, least, at_most = _evaluations(names, content.problems())
    evaluations, params = most * (left + (again or 0)), dict(names.decider.parameters)
    if risk is not None:
        evaluations = ceil(risk.sweep_cost + risk.rest_cost_at_most)
        if (rest := risk.rest_cost_at_least) is not None:
            least = floor((risk.sweep_cost + rest) / images)
        for name in names.decider.spec.safest_first[0]:
            del params[name]
    unit = "passes" if names.backbone.one_draw else "evaluations"
    speeds = {
        name: estimate_speed(names.source.name, device, name, flops, unit) for name in PRECISIONS
    }
    seconds = {name: round(evaluations / of, 1) for name, (of, _) in speeds.items() if of}
    own, on_gpu = names.precision.network, names.precision.on_gpu
    others = {name: took for name, took in seconds.items() if name != own}
    return {
        "params": params,
        "images": images,
        "images_to_score": left,
        "evaluations_per_image": most,
        "evaluations_per_image_at_least": least,
        "at_most": at_most,
        "evaluations": evaluations,
        "images_again": again,
        "audit_evaluations": _of_audit(content, images),
        "tflop": evaluations * flops / 1e12 if flops else None,
        "seconds": seconds.get(own),
        "estimate": speeds[own][1],
        "seconds_in": others if device == "cuda" and names.backbone.denoises else None,
        "seconds_elsewhere": seconds_on_devices(evaluations * flops, on_gpu) if flops else None,
        "dtype_elsewhere": on_gpu if flops else None,
    }


def _generation(content: Content, device: str) -> PlannedGeneration | None:
    """Return what the images to learn from cost; None if none are generated."""
    learned_from = content.learns_from
    if learned_from is None or not isinstance(images := learned_from.rows, GeneratedImages):
        return None
    missing, names = images.missing, images.generator.names
    evaluations = missing * images.settings.expected_evaluations
    flop = images.flop_per_evaluation
    speed, _ = estimate_speed(names.source.name, device, names.precision.network, flop)
    return PlannedGeneration(
        images=len(images),
        images_to_make=missing,
        evaluations=evaluations,
        tflop=flop and round(flop * evaluations / 1e12, 6),
        seconds=speed and round(evaluations / speed, 1),
    )


def _evaluations(names: Names, sizes: list[tuple[Problem, int]]) -> tuple[int, int | None, bool]:
    """Return the evaluations of an image at most and at least, and whether it may cost less."""
    bounded = names.strategy.bounds_cost
    if names.backbone.one_draw:  # it encodes an image once, and all texts with it
        return 1, None, not bounded
    most, least = price(names.strategy, sizes)
    # Without gradients, the cost is an integer.
    most = ceil(most) if names.strategy.linearises else floor(most)
    if least is None:
        return most, None, len(sizes) > 1 or not bounded
    return most, floor(least), floor(least) != most


def _with_risk(content: Content) -> tuple[Content, PreparedRun | None, SweepPlan | None]:
    """Return a run if its images and weights are there, or else the plan of its risk's sweep.

    There is no run yet, either, if its risk is not tested.
    """
    if content.split is None:
        return content, None, None
    if content.absent is not None:
        stated, n = content.names.stated_risk(), len(content.split.sample_ids)
        return content, None, None if stated is None else plan_sweep(content, stated, n)
    first = settled(prepared_run(content))
    if isinstance(first, PlannedSweep):
        return content, None, first.plan
    return first.content, first, None


def _read_content(config: RunConfig) -> Content:
    """Return the content of a run, if possible without loading its dataset.

    A dataset that declares classes and split sizes is only loaded if it is in the user's folder, if
    a risk is stated or images are held out, or if a stored run may have decided some of its images.
    """
    data = find_dataset(config)
    spec = data.spec
    declared = spec.classes and spec.splits.get(str(config.split or spec.split))
    if not declared or data.data_dir or config.risk is not None or config.holdout is not None:
        return read_content(config, images=True)
    if any(Path(config.results).glob(f"{spec.name}-*")) and not config.fresh:
        with suppress(UserError):  # the data is not on this machine; the plan works without it
            return read_content(config, images=True)
    return read_content(config)


def _of_audit(content: Content, images: int) -> int | None:
    """Return the maximum number of evaluations of an audit, or of a shard's part of it."""
    config, sizes = content.config, content.problems()
    if config.audit is None:
        return None
    shards = config.shard.count if config.shard else 1
    costs = [n * p.price(len(p.class_of_prompt), len(p.timesteps)) for p, n in sizes]
    return min(ceil(config.audit / shards), images) * round(max(costs))


def _split(content: Content) -> str:
    split = content.split.split if content.split else None
    return str(split or content.config.split or content.names.dataset.split)


def _images(content: Content, run: PreparedRun | None) -> tuple[int, int]:
    """Return the number of images requested, and of those not decided yet."""
    config, spec = content.config, content.names.dataset
    if run is not None:
        samples, left = run.sample_ids, None
        if not config.fresh:
            left = missing_samples(run.folder, run.manifest, config.save_errors)
        return len(samples), len(samples if left is None else left)
    declared = spec.splits.get(_split(content)) or 0
    images = len(content.split.sample_ids) if content.split else declared
    images = min(images, config.limit or images)
    if (shard := config.shard) is not None:
        images = len(range(shard.index - 1, images, shard.count))
    return images, images


def _missing(content: Content) -> Iterator[tuple[Lack, str]]:
    """Yield what is not available on this machine, and why."""
    config, data = content.config, content.names.data
    if content.absent is not None:
        yield "weights", str(content.absent)
    if content.split is None and (problem := explain_missing_data(data, config.split)):
        yield "data", problem
    if config.device:
        try:
            pick_device(config.device)
        except UserError as error:
            yield "device", str(error)


def _needed(content: Content, device: str) -> tuple[str | None, list[str]]:
    """Return the minimum memory of a run in words, and a warning if `device` has less.

    Weights that are not on this machine are estimated from their declared size and the usual
    autoencoder.
    """
    names, weights = content.names, content.weights
    spec, parameters, dtype = names.backbone, names.backbone_parameters, names.precision.dtype
    size = _weight_bytes(content)
    if size is None:
        return None, []
    turns, denoises = None, spec.denoises
    side = parameters.get("resolution") or spec.resolution or 0
    working = side**2 * ENCODING_BYTES if denoises else 0
    if weights is not None and weights.revision is None and denoises:
        turns = fact(spec, Backbone.offloaded_memory, weights, dtype, **parameters)
    elif denoises:
        turns = max(size, AUTOENCODER_BYTES)
        size += AUTOENCODER_BYTES
    driver = DRIVER_BYTES if device.startswith("cuda") else 0
    parts = {"weights": size, "an image": working, "the driver": driver}
    offloads = content.config.offload is not None
    if offloads and turns:
        parts["weights"] = turns
    needed = sum(parts.values())
    named = ", ".join(f"{name} {part / 2**30:.2g}" for name, part in parts.items() if part)
    text = f"at least about {needed / 2**30:.3g} GiB ({named})"
    available = device_memory(device)
    if available is None or needed <= available:
        return text, []
    advice = "--dtype bfloat16 halves the weights; " if dtype == "float32" else ""
    if turns and not offloads:
        advice += f"--offload model needs {(turns + working + driver) / 2**30:.3g} GiB; "
    return text, [
        f"{device} has {available / 2**30:.3g} GiB, and this run needs {text}. {advice}an offloaded"
        " or quantised pipeline can be handed over in Python: bench.run(DATASET, backbone=pipe)."
    ]


def _weight_bytes(content: Content) -> float | None:
    """Return the bytes of the weights: counted on this machine, or declared by the spec."""
    names, spec, weights = content.names, content.names.backbone, content.weights
    dtype = names.precision.dtype
    if weights is not None and weights.revision is None:
        return fact(spec, Backbone.memory, weights, dtype, **names.backbone_parameters)
    if not spec.size or names.source.weights is not None:
        return None
    size_in_half = 2 * max(spec.size, spec.encoder_size or 0)
    return size_in_half * (2 if dtype == "float32" else 1)
