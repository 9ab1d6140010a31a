"""One class per kind of backbone: what its runs check, their entry in the identity, their engine.

A denoiser is scored by the error of its predictions, a classifier once per image, and a likelihood
returns errors itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from PIL.Image import Image
from pydantic import JsonValue
from typing_extensions import override

from bench.contracts.backbone import LINEARISATION_COST, Classifier, Denoiser
from bench.contracts.levels import Column, Levels
from bench.contracts.specs import Scorer
from bench.contracts.strategy import Problem
from bench.discovery.backbones import fact, has_flag, reduction_of
from bench.discovery.queries import exhaustive_strategy
from bench.discovery.targets import offers
from bench.engine.asking import Engine
from bench.engine.batching import settle_batch_size
from bench.engine.denoiser import CheckedDenoiser, accelerate, compile_network
from bench.engine.denoising import DenoisingEngine, Latents
from bench.engine.direct import (
    CheckedClassifier,
    CheckedEnsemble,
    CheckedLikelihood,
    ClassifyingEngine,
    LikelihoodEngine,
)
from bench.engine.embeddings import conditioning_file
from bench.engine.scoring import Noise, OwnNoise, Scoring, SharedNoise, coefficients
from bench.errors import UserError, quoted, refusing, warn_user
from bench.inputs.draws import MAX_DRAWS, read_noise
from bench.inputs.estimand import draw_weights
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.prompts import Columns
from bench.inputs.replaced import TEXT_ONLY
from bench.inputs.split import Split
from bench.machine.libraries import torch
from bench.machine.precision import computing, has_precision, tf32_needs
from bench.running.checks import check_model, check_precision
from bench.running.content import Content, PreparedRun, ScorerKind
from bench.running.generated import GeneratedImages
from bench.running.parts.machine import RunPrecision
from bench.running.parts.measure import noise_identity, weighting_identity
from bench.running.parts.settings import Names
from bench.store.formats.fields import without_none
from bench.store.formats.identity import ScoringIdentity


class DenoiserKind(ScorerKind[CheckedDenoiser]):
    """Runs of a denoiser, with noise levels, encoded prompts and latents of images."""

    checked_as = CheckedDenoiser

    @override
    def problem(self, content: Content, columns: Columns, levels: Levels | None = None) -> Problem:
        names = content.names
        problem = replace(
            super().problem(content, columns),
            can_linearise=names.strategy.linearises,
            null_cost=int(content.needs_null),
            linearisation_cost=linearisation_cost(content),
            antithetic=names.plan.name == "antithetic",
        )
        if levels is None:
            return problem
        return replace(
            problem,
            timesteps=names.plan.assign_levels(names.n_draws, len(levels)),
            weights=weights_of_draws(content, levels),
            can_linearise=has_flag(names.backbone, "can_linearise"),
        )

    @override
    def check(self, content: Content) -> None:
        config, split = content.config, content.split
        if config.subtract_null and (not split or not split.items or split.items.shapes[0][0] == 1):
            raise UserError(
                "--subtract-null needs items with several images: it changes no decision among the"
                " texts of one image."
            )
        if (levels := level_table(content)) is not None:
            weights_of_draws(content, levels)

    @override
    def draws_at_random(self, names: Names) -> bool:
        config = names.config  # other strategies may shuffle the draws
        in_order = names.decider.spec.name == exhaustive_strategy()
        sampled = names.views is not None or config.latent == "sample"
        return config.noise is None or sampled or not in_order

    @override
    def check_draws(self, content: Content) -> None:
        """Raise UserError if levels, weights or noise of the user do not fit the model.

        The model is made on the CPU if its class declares no levels or `--noise` is set.
        """
        config = content.config
        weighted = content.weighting.name != "uniform"
        if not (config.noise or config.levels or config.plan or weighted):
            return
        levels = level_table(content)
        if levels is None or config.noise:
            on_cpu = content.config.model_copy(update={"device": "cpu", "tf32": False})
            backbone = self.make(content.naming(config=on_cpu, precision=RunPrecision()))
            levels = backbone.levels
            if config.noise:
                read_noise(Path(config.noise), content.names.n_draws, backbone.latent_shape)
        weights_of_draws(content, levels)

    @override
    def scoring(self, content: Content) -> ScoringIdentity:
        config = content.config
        return ScoringIdentity(
            loss=config.loss,
            space=config.space,
            draw_plan=str(content.names.plan),
            noise=noise_identity(config, content.names.n_draws),
            **config.in_identity("scoring"),
            **without_none(
                weighting=weighting_identity(content.weighting),
                views=content.names.views and content.names.views.identity,
                guidance_null=None if config.guidance is None else "draw",
            ),
        )

    @override
    def checked(self, content: Content, backbone: Any) -> CheckedDenoiser:
        denoiser = super().checked(content, backbone)
        device, precision = denoiser.device, content.names.precision
        if precision.tf32 and not has_precision(str(device), "tf32"):
            raise UserError(f"--dtype tf32 {tf32_needs(device)}")
        if device.type == "cuda":
            denoiser.switches = partial(computing, precision.tf32)
            encoding = precision.encoding or precision.network
            denoiser.encoding = partial(computing, encoding == "tf32")
        if precision.network != "float32":
            denoiser.advice = f" in {precision}: --dtype float32 has a wider range"
        return denoiser

    @override
    def load(self, content: Content, others: Iterable[Content] = ()) -> CheckedDenoiser:
        backbone, config = self.make(content), content.config
        if config.offload:
            backbone.offload()
        for run in chain([content], others):
            with suppress(UserError):  # that run raises it again when it starts
                run.encode_texts(backbone)
        if not content.names.backbone.objects:  # the caller's object is left unchanged
            accelerate(backbone, config.layout, config.attention, config.compile)
        return backbone

    @override
    def text_files(self, content: Content) -> list[Path]:
        texts = content.prompts.texts
        return [conditioning_file(content.conditioning_key, texts, content.needs_null)]

    @override
    def engine(self, content: Content, backbone: CheckedDenoiser) -> DenoisingEngine:
        names, config, columns = content.names, content.config, content.columns()
        problem = self.problem(content, columns, backbone.levels)
        return DenoisingEngine(
            backbone,
            content.encode_texts(backbone),
            problem,
            columns,
            Scoring(
                coefficients(backbone.levels, problem.timesteps, config.space, backbone.device),
                run_noise(content, backbone),
                config.loss,
                config.guidance,
            ),
            names.batch_size or default_batch_size(backbone.device.type, backbone.latent_shape),
            latents=Latents(
                backbone,
                config.seed,
                sample=config.latent == "sample",
                squashed=config.fit == "squash",
                views=None if names.views is None else names.views.views,
            ),
            view_of_draw=names.view_of_draw(),
            subtracts_null=config.subtract_null,
        )

    @override
    def settle(self, engine: DenoisingEngine, content: Content, run: PreparedRun | None) -> None:
        names, config, rounding = content.names, content.config, None
        if run is not None and run.compares:
            rounding = check_precision(run, engine)
            if rounding is not None:
                report = rounding.report(names.n_draws)
                engine.model = replace(engine.model, rounding=report)
        if config.compile:
            compile_network(engine.backbone, content.encode_texts(engine.backbone))
            engine.one_shape = True
        if config.batch_size == "auto":
            key = speed_key(content)
            measured = settle_batch_size(engine, key)
            if measured and config.compile:
                torch.compiler.reset()  # forgets the graphs of the other sizes
            if names.strategy.linearises:
                settle_batch_size(engine.lineariser, f"{key} linearised")
        if config.compile:
            engine.warm_up()
        if run is not None:
            warnings = [check_model(run, engine)]
            if rounding is not None:
                warnings.append(rounding.problem(names.precision.network, names.n_draws))
            engine.model = replace(engine.model, warnings=tuple(filter(None, warnings)))
            for warning in engine.model.warnings:
                warn_user(warning)


def linearisation_cost(content: Content) -> float:
    """Return the cost of a linearised draw in evaluations, which the backbone may declare."""
    names = content.names
    if not names.strategy.linearises:
        return LINEARISATION_COST
    resolution = names.backbone_parameters.get("resolution")
    cost = fact(names.backbone, Denoiser.linearisation_cost, content.weights, resolution)
    null = content.config.guidance is not None
    return (LINEARISATION_COST if cost is None else cost) + null


def default_batch_size(device: str, latent_shape: tuple[int, ...]) -> int:
    """Return the default number of cells per batch: enough to fill the device, and no more.

    64 for small latents; for 64×64 ones (512 pixels) 4 on a CPU, where more is no faster, and 32
    on an accelerator, as in the reference implementation.
    """
    pixels = 16_384 if device == "cpu" else 131_072  # of latents per batch
    return max(1, min(64, pixels // (latent_shape[-2] * latent_shape[-1])))


def weights_of_draws(content: Content, levels: Levels) -> Column:
    """Return float64 [N], the weight of each draw; raises UserError for levels out of range."""
    names, space = content.names, content.config.space
    rows = names.plan.assign_levels(names.n_draws, len(levels))
    return draw_weights(content.weighting, levels.rows(rows), space, rows, len(levels))


def level_table(content: Content) -> Levels | None:
    """Return the backbone's noise levels; None if only the model itself knows them."""
    names = content.names
    return fact(names.backbone, Denoiser.level_table, content.weights, **names.backbone_parameters)


def run_noise(content: Content, backbone: CheckedDenoiser) -> Noise:
    """Return the noise of the draws, from the seed or a file, shared by images or one per image."""
    config, plan, n_draws = content.config, content.names.plan, content.names.n_draws
    shape = backbone.latent_shape
    if config.noise_per == "image":
        return OwnNoise(plan, config.seed, shape, backbone.device)
    if config.noise:
        bank = read_noise(Path(config.noise), n_draws, shape)
    else:
        bank = plan.make_noise(config.seed, n_draws, shape)
    return SharedNoise(bank, backbone.device)


def speed_key(content: Content) -> str:
    """Return the cache key of the best batch size: all that affects speed except the device."""
    names, spec, weights = content.names, content.names.backbone, content.weights
    resolution = names.backbone_parameters.get("resolution")
    fingerprint, loading = weights.fingerprint if weights else "", content.config.loading()
    of_network = [value for name, value in loading if name != "device"]
    of_spec = f"{spec.name} {spec.version} {fingerprint}"
    return f"{of_spec} {names.precision} {resolution} {of_network}"


IMAGES_PER_BATCH = 16


class ClassifierKind(ScorerKind[CheckedClassifier]):
    """Runs of a classifier, which may be fitted to another split first."""

    checked_as = CheckedClassifier

    @override
    def engine(self, content: Content, backbone: CheckedClassifier) -> Engine:
        prompts, columns, fit = content.prompts, content.columns(), content.learns_from
        if columns.per_column > 1 and offers(backbone.backbone, Classifier.score_sets):
            backbone = CheckedEnsemble(backbone, prompts.texts, columns)
        return ClassifyingEngine(
            backbone,
            prompts.texts,
            self.problem(content, columns),
            columns,
            content.names.batch_size or IMAGES_PER_BATCH,
            _fit(backbone, fit, prompts.texts) if fit else None,
        )


def _fit(backbone: CheckedClassifier, split: Split, texts: Sequence[str]) -> dict[str, JsonValue]:
    """Fit a classifier to a split, whose images are generated first if need be; return facts."""
    generated = split.rows if isinstance(split.rows, GeneratedImages) else None
    if generated is not None:
        generated.make()
    facts = backbone.fit(images_to_learn(split), [texts[label] for label in split.labels])
    return facts if generated is None else {**facts, "generated": generated.took.plain()}


def images_to_learn(split: Split) -> Iterator[Image]:
    """Yield each image of a split, decoded. Raises UserError if one cannot be read."""
    for sample in split.samples(split.sample_ids):
        name = f"{quoted(sample.sample_id)} of {split.split!r}, the split to learn from,"
        with refusing(f"The image {name} cannot be read: ", PixelsError):
            yield decode(sample.image)


CELLS_PER_BATCH = 64


class LikelihoodKind(ScorerKind[CheckedLikelihood]):
    """Runs of a likelihood."""

    checked_as = CheckedLikelihood

    @override
    def reduction(self, names: Names) -> str:
        return reduction_of(names.backbone)

    @override
    def draws_at_random(self, names: Names) -> bool:
        return names.views is not None or not has_flag(names.backbone, "draws_are_equal")

    @override
    def check(self, content: Content) -> None:
        names, seed = content.names, content.config.seed
        if seed > (largest := (2**63 - 1) // MAX_DRAWS - 1):
            raise UserError(f"--seed {seed}: must be at most {largest} for a likelihood.")
        most = 1 if names.views is None else names.views.views.count
        if names.n_draws > most and has_flag(names.backbone, "draws_are_equal"):
            raise UserError(
                f"draws={names.n_draws}: backbone {names.source.name!r} has nothing random, so"
                f" that an image, or each of its --views, has a single draw. Use {most}."
            )

    @override
    def scoring(self, content: Content) -> ScoringIdentity:
        return ScoringIdentity(
            noise=f"seed {content.config.seed}",
            reduction=self.reduction(content.names),
            **without_none(views=content.names.views and content.names.views.identity),
        )

    @override
    def engine(self, content: Content, backbone: CheckedLikelihood) -> Engine:
        names, columns = content.names, content.columns()
        backbone.blind = content.config.control == TEXT_ONLY
        return LikelihoodEngine(
            backbone,
            content.prompts.texts,
            self.problem(content, columns),
            columns,
            names.batch_size or CELLS_PER_BATCH,
            None if names.views is None else names.views.views,
            names.view_of_draw(),
        )


KINDS: Final[dict[Scorer, ScorerKind[Any]]] = {
    "denoiser": DenoiserKind(),
    "classifier": ClassifierKind(),
    "likelihood": LikelihoodKind(),
}
