"""`bench perf`: measure the speed of a backbone on this machine, and plan a dataset with it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch

from bench.contracts.specs import DatasetSpec
from bench.discovery.backbones import can_linearise
from bench.discovery.loading import load_plugins
from bench.engine.batching import device_name, settle_batch_size, smallest_of_the_best
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.engine.trees import Tree
from bench.errors import UserError
from bench.machine.environment import peak_memory, remember_batch_size, remember_speed
from bench.machine.offline import offline_if_set
from bench.perf.work import bare, evaluation_flops, in_turns, matmul_peak, pictures, ratio, scoring
from bench.running.model_run import check
from bench.running.parts.decision import make_decider
from bench.running.prepare import prepare
from bench.running.scorers import kind_of
from bench.running.scorers.draws import speed_key
from bench.running.settings import RunConfig
from bench.running.verbs.estimate import Plan, make_plan
from bench.store.fields import Count, Document

NO_DATASET = "-"
CLASSES = tuple(f"thing {n}" for n in range(10))  # made-up classes if no dataset is named
BATCH_SIZES = {"cpu": (8, 16, 32, 64, 128), "slow": (1, 2), "gpu": (8, 16, 32, 64, 128, 256)}
TIMED_ROUNDS = 3


class Switches(Document):
    """Settings that change the speed but not the decisions."""

    layout: str
    attention: str
    tf32: bool
    compile: bool


class Rate(Document):
    """The speed of the network alone at one batch size."""

    batch_size: Count
    evaluations_per_second: float


class Measured(Document):
    """The speed of one backbone on this machine; rates are medians over interleaved rounds."""

    backbone: str
    device: str
    dtype: str
    settings: Switches
    bare: list[Rate]
    best_batch_size: Count
    engine: dict[str, float]  # strategy → evaluations per second
    engine_over_bare: dict[str, float]  # strategy → speed relative to the network alone
    flops_per_evaluation: float
    peak_flops: float  # operations per second of the device's fastest matrix product
    utilisation: float  # percentage of the peak that the fastest strategy reaches
    peak_memory_bytes: int | None  # None if the device does not report it
    plan: Plan | None  # plan of a run on the dataset; None if no dataset is named


@offline_if_set
def measure(
    config: RunConfig,
    strategies: Sequence[str] = (),
    sizes: Sequence[int] = (),
    seconds: float = 20.0,
) -> Measured:
    """Measure the speed of a backbone, and store it for the estimates of later plans.

    Images are always made up: the speed does not depend on them, only the number of evaluations of
    a race does. The dataset `-` stands for ten made-up classes. By default, all strategies that the
    backbone supports are measured, and the batch sizes of the network alone depend on the device.
    Raises UserError if the backbone is not a denoiser, or `compile` is set without a batch size.
    """
    if config.compile and config.batch_size == "auto":
        raise UserError("--compile is for one batch size: set it with --batch-size.")
    made_up = None
    if config.dataset == NO_DATASET:
        made_up = DatasetSpec(name="pictures", target="bench.perf:pictures", classes=CLASSES)
    prepared = prepare(config, made_up, images=False)
    scorer = kind_of(prepared)
    if not scorer.batches_cells:
        raise UserError(
            f"Backbone {prepared.backbone_name!r} is not a denoiser: it has no batches."
        )
    check(prepared)
    backbone = scorer.load(prepared)
    assert isinstance(backbone, CheckedDenoiser)
    samples = pictures(backbone.resolution)

    # Strategies differ in their draws, so each needs its own engine; all share the network.
    engines, gradients = {}, can_linearise(prepared.backbone)
    without_hierarchy = (
        spec.name
        for spec in load_plugins().strategies
        if not make_decider(spec, {}).strategy.uses_hierarchy
    )
    for name in strategies or without_hierarchy:
        variant = prepare(_with_strategy(config, name), made_up, images=False)
        if not strategies and variant.strategy.linearises and not gradients:
            continue
        check(variant)
        engine = scorer.open_engine(variant, backbone)
        assert isinstance(engine, DenoisingEngine)
        engines[name] = engine, variant
    conditioning = backbone.encode_prompts(prepared.prompts.texts[:64])
    flops = evaluation_flops(backbone, conditioning)
    dtype = prepared.dtype
    peak = matmul_peak(backbone.device, getattr(torch, dtype))

    if config.batch_size != "auto":
        sizes = (config.batch_size,)
    elif not sizes:
        single = median(in_turns({"1": bare(backbone, conditioning, 1, 1)}, 1)["1"])
        slow = single < 2  # evaluations per second
        sizes = BATCH_SIZES["slow" if slow else "cpu" if backbone.device.type == "cpu" else "gpu"]
    sizes = _fitting(backbone, conditioning, sizes)
    cells = max(sizes) if max(sizes) < 8 else 128
    works = {str(size): bare(backbone, conditioning, size, cells) for size in sizes}
    rates = in_turns(works, TIMED_ROUNDS)
    table = {size: median(rates[str(size)]) for size in sizes}
    best = smallest_of_the_best(table)

    seconds_each = seconds / (TIMED_ROUNDS + 1) / (len(engines) + 1)
    cells = max(2 * best, round(table[best] * seconds_each))
    works = {"bare": bare(backbone, conditioning, best, cells)}
    for name, (engine, variant) in engines.items():
        engine.batch_size = best
        if variant.strategy.linearises and config.batch_size == "auto":
            settle_batch_size(engine.linear, f"{speed_key(variant)} linearised")
        works[name] = scoring(engine, variant.strategy, samples, cells)
    rates = in_turns(works, TIMED_ROUNDS)
    speeds = {name: median(rates[name]) for name in engines}
    if config.batch_size == "auto":
        name = device_name(backbone.device)
        remember_batch_size(f"{speed_key(prepared)} {name}", best)
    usual = speeds.get(prepared.decider.spec.name, max(speeds.values()))
    remember_speed(prepared.backbone_name, backbone.device.type, dtype, usual)
    return Measured(
        backbone=prepared.backbone_name,
        device=device_name(backbone.device),
        dtype=dtype,
        settings=Switches(**{name: getattr(config, name) for name in Switches.model_fields}),
        bare=[Rate(batch_size=size, evaluations_per_second=rate) for size, rate in table.items()],
        best_batch_size=best,
        engine=speeds,
        engine_over_bare={name: ratio(rates, name, "bare") for name in engines},
        flops_per_evaluation=flops,
        peak_flops=peak,
        utilisation=100 * max(speeds.values()) * flops / peak,
        peak_memory_bytes=peak_memory(),
        plan=None if made_up else make_plan(config),
    )


def _fitting(
    backbone: CheckedDenoiser, conditioning: Tree, sizes: Sequence[int]
) -> tuple[int, ...]:
    """Return the batch sizes that fit into memory, ascending; OutOfMemoryError if none does."""
    fitting: list[int] = []
    for size in sorted(sizes):
        try:
            bare(backbone, conditioning, size, 1)()
        except torch.OutOfMemoryError:
            if not fitting:
                raise
            break
        fitting.append(size)
    torch.cuda.empty_cache()
    return tuple(fitting)


def _with_strategy(config: RunConfig, name: str) -> RunConfig:
    """Return the settings with another strategy. Parameters are kept if it is the same one."""
    params = config.params if name == config.strategy else {}
    size = 1 if config.batch_size == "auto" else config.batch_size  # `measure` chooses it later
    return config.model_copy(update={"strategy": name, "params": params, "batch_size": size})
