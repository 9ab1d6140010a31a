"""What a run would cost, before anything heavy is loaded."""

from __future__ import annotations

from contextlib import suppress
from math import ceil, floor
from pathlib import Path

from bench.contracts.parameters import Parameters
from bench.discovery.backbones import count_operations, memory_of_weights
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.subsets import parse_shard
from bench.machine.environment import pick_device
from bench.machine.offline import as_settings_say
from bench.machine.speed import estimate, likely_device
from bench.running.checks import check, problems
from bench.running.prepare import prepare
from bench.running.prepared import Prepared
from bench.running.resolve import Resolved, resolve_dataset
from bench.running.scorers import kind_of
from bench.running.settings import RunConfig
from bench.store.fields import Count, Document
from bench.store.folder import missing


class Plan(Document):
    """What a run would be and cost."""

    run_id: str | None
    """None where the data or the weights were not read."""
    dataset: str
    """With its split."""
    images: Count
    """Asked for."""
    images_to_score: Count
    """Without those that a stored run has decided: what the cost is for."""
    prompts: Count
    """How many."""
    first_prompt: str
    """Of the first class."""
    template: str | list[str] | None
    """None where the prompts are from a file."""
    backbone: str
    """The registered name."""
    trained_on: str | None
    """`dataset/split`; None: zero-shot."""
    strategy: str
    """What would decide."""
    params: Parameters
    """All of its parameters."""
    draws: Count
    """Of the plan."""
    plan: str | None
    """How draws are paired, and on which levels; None of a classifier, as what follows."""
    seed: int | None
    """Of the noise."""
    noise: str | None
    """Where the noise is from."""
    loss: str | None
    """How a difference becomes an error."""
    space: str | None
    """In which the error is measured."""
    device: str
    """On which it would run."""
    dtype: str
    """In which it would compute."""
    evaluations_per_image: Count
    """At the most."""
    evaluations_per_image_at_least: Count | None
    """Of a strategy whose cost depends on the image; None where it is not known."""
    at_most: bool
    """Evaluations, TFLOP and seconds are what the run cannot exceed, and not what it takes."""
    evaluations: Count
    """Of the images to score, and of those to decide again."""
    images_again: Count | None = None
    """Images to decide again with other noise; None: this is not asked for."""
    tflop: float | None
    """Of these evaluations."""
    memory: str | None
    """Of the weights that are in memory together; a batch and the conditioning come on top."""
    seconds: float | None
    """None: nothing is known of the backbone's speed."""
    estimate: str
    """What the seconds rest on."""
    warnings: list[str]
    """What a user should know beforehand."""


@as_settings_say
def make_plan(config: RunConfig) -> Plan:
    """Return what a run would be and cost, after all checks that need no weights.

    Raises:
        UserError: what would stop the run before it loads anything.
    """
    prepared = _prepare(config)
    config, resolved, prompts = prepared.config, prepared.resolved, prepared.prompts
    noted = [*prepared.warnings, *prepared.absent, *_checked(prepared)]
    images, left = _images(prepared)
    again = None if config.again is None else min(config.again, images)
    evaluated = left + (again or 0)
    least, most = _evaluations(prepared)
    device, flops = likely_device(config.device), evaluation_flops(prepared)
    dtype = resolved.dtype
    speed, source = estimate(resolved.backbone_name, device, dtype, flops)
    kind = kind_of(resolved)
    scoring = kind.scoring(resolved, prepared.weighting)
    return Plan(
        run_id=prepared.described.run_id if prepared.described else None,
        dataset=f"{resolved.dataset.name}/{_split(prepared)}",
        images=images,
        images_to_score=left,
        prompts=len(prompts.texts),
        first_prompt=prompts.texts[0],
        template=None if resolved.backbone.learns else _template(resolved),
        backbone=resolved.backbone_name,
        trained_on=resolved.trained_on,
        strategy=resolved.strategy_spec.name,
        params=dict(resolved.strategy_parameters),
        draws=kind.draws(resolved),
        plan=scoring.draw_plan,
        seed=None if config.noise or kind.one_draw else config.seed,
        noise=config.noise,
        loss=scoring.loss,
        space=scoring.space,
        device=device,
        dtype=dtype,
        evaluations_per_image=most,
        evaluations_per_image_at_least=least,
        at_most=_is_bound(prepared, least, most),
        evaluations=most * evaluated,
        images_again=again,
        memory=_memory(prepared, dtype),
        tflop=most * evaluated * flops / 1e12 if flops else None,
        seconds=round(most * evaluated / speed, 1) if speed else None,
        estimate=source,
        warnings=noted,
    )


def _evaluations(prepared: Prepared) -> tuple[int | None, int]:
    """Return what an image, or an item, costs at the least, None: not known, and at most.

    In evaluations: a cell takes two under guidance, and one per template where their mean is its
    error.
    """
    strategy, sizes = prepared.resolved.strategy, problems(prepared)
    whole = ceil if strategy.linearises else floor  # what takes no gradients is a whole number
    most = max(whole(strategy.at_most(problem) * images) for problem, images in sizes)
    least = [
        floor(cost * images)
        for problem, images in sizes
        if (cost := strategy.at_least(problem)) is not None
    ]
    return min(least, default=None), most


def _is_bound(prepared: Prepared, least: int | None, most: int) -> bool:
    """Tell whether the most that an image can cost is more than it may take."""
    if least is not None:
        return least != most
    return len(problems(prepared)) > 1 or not prepared.resolved.strategy.bounds_cost


def _template(resolved: Resolved) -> str | list[str] | None:
    spec = resolved.dataset
    return None if resolved.config.prompts or spec.items else resolved.template or spec.template


def _prepare(config: RunConfig) -> Prepared:
    """Prepare; a dataset that declares its classes and sizes is not loaded without need.

    It is where it lies in a folder of the user's, and where a stored run may have decided some of
    its images already.
    """
    data = resolve_dataset(config, load_plugins())
    spec = data.spec
    declared = spec.classes and spec.splits.get(str(config.split or spec.split))
    if not declared or data.data_dir or config.risk is not None:
        return prepare(config)
    if any(Path(config.results).glob(f"{spec.name}-*")) and not config.fresh:
        with suppress(UserError):  # the data is not on this machine; a plan does without
            return prepare(config)
    return prepare(config, images=False)


def _split(prepared: Prepared) -> str:
    split = prepared.split.split if prepared.split else None
    return str(split or prepared.config.split or prepared.resolved.dataset.split)


def _images(prepared: Prepared) -> tuple[int, int]:
    """Return the images asked for, and those of them that would be scored."""
    config, spec = prepared.config, prepared.resolved.dataset
    if (manifest := prepared.described) is not None:
        left = None if config.fresh else missing(prepared.folder, manifest, config.save_errors)
        return len(manifest.samples), len(manifest.samples if left is None else left)
    declared = spec.splits.get(_split(prepared)) or 0
    images = len(prepared.split.sample_ids) if prepared.split else declared
    images = min(images, config.limit or images)
    if config.shard:
        shard = parse_shard(config.shard)
        images = len(range(shard.index - 1, images, shard.count))
    return images, images


def _checked(prepared: Prepared) -> list[str]:
    """Refuse what the run would refuse; return what is not on this machine.

    Weights of the Hub are not looked into: they would be fetched for that.
    """
    config, weights, noted = prepared.config, prepared.weights, []
    if not prepared.absent and (weights is None or weights.revision is None):
        check(prepared)
        kind_of(prepared.resolved).check_draws(prepared)
    if config.device:
        try:
            pick_device(config.device)
        except UserError as error:
            noted.append(str(error))
    return noted


def evaluation_flops(prepared: Prepared) -> float | None:
    """Return the operations of one evaluation: the spec's, or counted where the backbone can."""
    spec, config = prepared.resolved.backbone, prepared.config
    if prepared.resolved.source.weights is None and config.resolution is None and spec.flops:
        return spec.flops
    if prepared.weights is None:
        return None
    return count_operations(spec, prepared.weights, config.resolution)


def _memory(prepared: Prepared, dtype: str) -> str | None:
    """Return what the weights take: counted where they are here, else by their declared size."""
    spec, weights = prepared.resolved.backbone, prepared.weights
    found: float | None = None
    if weights is not None and weights.revision is None:
        parameters = prepared.resolved.backbone_parameters
        found = memory_of_weights(spec, weights, dtype, **parameters)
    elif spec.size and prepared.resolved.source.weights is None:
        largest = max(spec.size, spec.encoder_size or 0)
        found = largest * (4 if dtype == "float32" else 2)
    return None if found is None else f"{found / 2**30:.2g} GiB of weights at a time"
