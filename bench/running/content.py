"""The types of a run that is not loaded yet; `prepare` makes them, and `kinds` implements one.

`Content` is what the settings name, read: texts, located weights and, if they were read, images.
`PreparedRun` is a content with images and a manifest, which can be scored. `ScorerKind` is the base
class of everything that depends on the kind of the backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
from typing_extensions import override

from bench.contracts.backbone import Backbone, Denoiser
from bench.contracts.dataset import MOST_ANSWERS, Sample
from bench.contracts.decision import MEAN, Decided
from bench.contracts.executor import OpenRun
from bench.contracts.levels import Levels
from bench.contracts.strategy import Ints, Problem
from bench.discovery.backbones import count_tokens, encoder_key, fact, has_own
from bench.discovery.targets import make
from bench.engine.asking import CheckedStrategy, Engine
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.direct import CheckedClassifier, CheckedLikelihood
from bench.engine.embeddings import embed_prompts
from bench.engine.trees import Tree
from bench.errors import AbsentError, UserError
from bench.inputs.class_names import ClassNames
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.estimand import Weighting
from bench.inputs.prompts import Columns, Prompts, make_columns
from bench.inputs.replaced import TEXT_ONLY, blind_samples
from bench.inputs.split import Split
from bench.inputs.weights import Weights
from bench.machine.environment import pick_device
from bench.machine.stages import stage
from bench.running.borrowed import Shortlist
from bench.running.execute import SweptImages, Task
from bench.running.parts.declaration import option
from bench.running.parts.settings import SETTINGS, Names, RunConfig, about
from bench.running.until import until_of
from bench.store.formats.documents import Manifest
from bench.store.formats.identity import ScoringIdentity

CheckedBackbone = CheckedDenoiser | CheckedClassifier | CheckedLikelihood

B = TypeVar("B", bound="CheckedBackbone")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the names of a run stand for: texts, checkpoint, images, and what other runs give it.

    Images may not have been read, and a checkpoint may be absent.
    """

    names: Names
    kind: ScorerKind[Any]  # kind of the backbone
    class_names: ClassNames  # in label order: readable names and the spelling of the data
    prompts: Prompts
    weights: Weights | None
    """The located checkpoint; None if the backbone needs none or it is absent."""
    absent: AbsentError | None  # why the weights are not on this machine, if they are not
    trained_on: str | None
    """Training data as `dataset/split`; None if zero-shot; `unknown` for the user's weights."""
    split: Split | None  # the images, if they were read
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    weighting: Weighting  # the weights over the noise levels, fitted if they are learned
    warnings: tuple[str, ...]  # to be issued before the run
    loaded: Any  # the backbone itself, if the caller has loaded it
    learns_from: Split | None
    """The images that the backbone is fitted on; None if it does not learn, or no images are."""
    shortlist: Shortlist | None  # the candidates of each image; None to score all classes

    @property
    def config(self) -> RunConfig:
        """The settings as the user set them."""
        return self.names.config

    @property
    def backbone_key(self) -> tuple[object, ...]:
        """The key of the names, with the content of the weights instead of their name."""
        weights = self.weights
        content = weights and (weights.location, weights.revision, weights.fingerprint)
        return (*self.names.backbone_key[:-1], content)

    def naming(self, **changes: Any) -> Self:
        """Return the content with some of its names changed."""
        return replace(self, names=replace(self.names, **changes))

    def check(self) -> None:
        """Validate the run before it is scored; imports the backbone's class but reads no tensor.

        Raises UserError if weights are absent, a prompt has too many tokens or settings do not fit.
        """
        if self.absent is not None:
            raise self.absent
        names, prompts = self.names, self.prompts
        fact(
            names.backbone,
            Backbone.check_weights,
            self.weights,
            dtype=names.precision.dtype,
            **names.backbone_parameters,
        )
        if names.views is not None and names.views.views.of_latents:
            self.config.check_mode("latents", words := f"--views {self.config.views}")
            self.check_offers(words, Denoiser.posterior)
        names.view_of_draw()
        for name, value in self.config.changed().items():
            methods = SETTINGS[name].methods
            if (method := methods.get("") or methods.get(str(value))) is not None:
                self.check_offers(f"{option(name)} {'' if '' in methods else value}", method)
        self.kind.check(self)
        if (counted := self.token_counts()) is not None:
            counts, limit = counted
            for source, text, n in zip(prompts.sources, prompts.texts, counts, strict=True):
                if n > limit:
                    raise UserError(
                        f"{source}: the prompt has {n} tokens and would be cut at {limit}:"
                        f" {text!r}."
                    )
        self.names.strategy.check(self.problems()[-1][0])

    def check_offers(self, words: str, method: Callable[..., object]) -> None:
        """Raise UserError if the backbone's class lacks an optional method that an option needs."""
        if not has_own(self.names.backbone, method):
            raise UserError(
                f"{words.strip()} needs {method.__name__}(), which backbone"
                f" {self.names.source.name!r} does not have."
            )

    def token_counts(self) -> tuple[list[int], int] | None:
        """Return the tokens per prompt and the limit; None if the backbone counts no tokens."""
        return count_tokens(self.names.backbone, self.weights, self.prompts.texts)

    def problems(self) -> list[tuple[Problem, int]]:
        """Return the problems that the strategy solves, each with its number of images.

        There is one, or one per shape of items, or the smallest and the largest with
        `--candidates-from`; they are sorted by the number of prompts. Draws have no noise levels
        yet, but costs are those of the run.
        """
        split, config = self.split, self.config

        def problem(classes: Ints) -> Problem:
            return self.kind.problem(self, self.columns(classes))

        if split is not None and split.items is not None:
            most = config.top if config.candidates_from else MOST_ANSWERS
            shapes = sorted({(min(most, n), min(most, images)) for images, n in split.items.shapes})
            return [(problem(np.arange(texts)), images) for texts, images in shapes]
        classes = np.array(self.prompts.class_of_prompt)
        if not config.candidates_from:
            return [(problem(classes), 1)]
        by_size = np.argsort(np.bincount(classes), kind="stable")
        few, many = (
            classes[np.isin(classes, chosen)]
            for chosen in (by_size[: config.top], by_size[-config.top :])
        )
        sizes = [few] if len(few) == len(many) else [few, many]
        return [(problem(np.unique(shortlist, return_inverse=True)[1]), 1) for shortlist in sizes]

    @property
    def needs_null(self) -> bool:
        """Whether the null conditioning is used."""
        return self.config.subtract_null or self.config.guidance is not None

    @property
    def conditioning_key(self) -> str:
        """The cache key of encoded prompts: all that affects them except their texts."""
        names = self.names
        own = encoder_key(names.backbone, self.weights, names.backbone_parameters)
        loading = [pair for pair in self.config.loading() if pair[0] in about("prompts")]
        return f"{own} {names.precision} {loading}"

    def encode_texts(self, backbone: CheckedDenoiser) -> Tree:
        """Return the encoded prompts, cached on disk, and last the null if it is needed."""
        self.check_key(backbone)
        return embed_prompts(backbone, self.conditioning_key, self.prompts.texts, self.needs_null)

    def columns(self, classes: Ints | None = None) -> Columns:
        """Return the columns that a strategy compares.

        `classes`, int64 [P], are the prompts'; None stands for those of all prompts.
        """
        classes = np.array(self.prompts.class_of_prompt) if classes is None else classes
        return make_columns(classes, self.config.template_rule)

    def check_key(self, backbone: CheckedBackbone) -> None:
        """Raise RuntimeError if the run would score or encode prompts with another's backbone."""
        if backbone.key != self.backbone_key:
            raise RuntimeError(f"A run of {self.backbone_key} was given {backbone.key}.")


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A validated run, before anything heavy is loaded."""

    content: Content
    split: Split  # the images
    manifest: Manifest  # its samples are the images asked for
    folder: Path  # folder of its results
    copied: SweptImages | None = None  # images whose decisions are copied from a full sweep
    lend: Callable[[Content], CheckedBackbone | None] = lambda content: None
    """Returns a loaded backbone that the run shares with others, or None if there is none."""
    compares: bool = True  # whether this process compares the precision with float32

    @property
    def names(self) -> Names:
        """What the run's settings name."""
        return self.content.names

    @property
    def config(self) -> RunConfig:
        """The settings as the user set them."""
        return self.content.config

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy that decides the images."""
        return self.names.strategy

    @property
    def sample_ids(self) -> list[str]:
        """Ids of the images asked for."""
        return self.manifest.samples

    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield images with the control, corruption and candidates of the run's settings applied.

        An id is consumed only when its image is.
        """
        split, config, prompts = self.split, self.config, self.content.prompts
        if config.control in (None, TEXT_ONLY):
            samples = split.samples(sample_ids, prompts)
        else:
            samples = blind_samples(split, sample_ids, prompts, config.control)
        samples = corrupt_samples(samples, config.corrupt)
        if (shortlist := self.content.shortlist) is None:
            return samples
        return (replace(s, shortlisted=shortlist.of_sample[s.sample_id]) for s in samples)

    def check(self) -> None:
        """Validate the run before anything is written or loaded; raises UserError."""
        chosen = self.config.risk is None or self.manifest.identity.calibrated is not None
        assert chosen, "`settled` chooses the strategy of a stated risk"
        self.content.check()

    def open_engine(self) -> Engine:
        """Load the model in this process."""
        with stage(f"Loading {self.names.source.name}"):
            return self.content.kind.open_engine(self.content, self.lend(self.content), self)

    def open(self) -> OpenRun:
        """Load the model in this process, to score samples of the run by their ids."""
        return OpenEngine(self.open_engine(), self)

    def task(self, open_run: Opener | None = None) -> Task:
        """Return what `execute` needs of the run (UserError); `open_run` is called for `open`."""
        config, question = self.config, self.config.until
        return Task(
            manifest=self.manifest,
            strategy=self.strategy,
            folder=self.folder,
            started=self.content.started,
            open=self.open if open_run is None else partial(open_run, self),
            check=self.check,
            fresh=config.fresh,
            save_errors=config.save_errors,
            copied=self.copied,
            until=question and until_of(question, self.split, self.manifest, config.results),
        )


class OpenEngine(OpenRun):
    """A run whose model is loaded in this process."""

    def __init__(self, engine: Engine, run: PreparedRun) -> None:
        self.model, self.device = engine.model, engine.device
        self._engine, self._run = engine, run

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        return self._engine.score(self._run.samples(sample_ids), self._run.strategy)


Opener = Callable[[PreparedRun], OpenRun]


class ScorerKind(ABC, Generic[B]):
    """What a run does differently for a denoiser, a classifier and a likelihood."""

    checked_as: type[B]  # wrapper of a plugin's backbone that checks every output

    def problem(self, content: Content, columns: Columns, levels: Levels | None = None) -> Problem:
        """Return the problem of an image; `levels` is None if unknown yet, or if there are none."""
        n_draws, parents = content.names.n_draws, content.prompts.parents
        return Problem(
            columns.class_of_column,
            np.arange(n_draws),
            np.ones(n_draws),
            content.config.seed,
            cell_cost=columns.per_column,
            reduction=self.reduction(content.names),
            parents=None if parents is None else np.array(parents, dtype=np.int64),
        )

    def reduction(self, names: Names) -> str:
        """Return how the errors of a text are combined into its score."""
        return MEAN

    def draws_at_random(self, names: Names) -> bool:
        """Return whether the seed can change a score or a decision."""
        return True

    def check(self, content: Content) -> None:
        """Raise UserError if settings do not fit the backbone's class."""
        return None

    def check_draws(self, content: Content) -> None:
        """Raise UserError if levels, weights or noise of the user do not fit the backbone."""
        return None

    def scoring(self, content: Content) -> ScoringIdentity:
        """Return the identity of a run's errors and draws."""
        return ScoringIdentity()

    def checked(self, content: Content, backbone: Any) -> B:
        """Return a plugin's backbone with checks of every output."""
        return self.checked_as(backbone, content.names.backbone.label)

    def make(self, content: Content) -> B:
        """Return the caller's backbone or a new one, whose network may not be loaded yet."""
        backbone = content.loaded
        if backbone is None:
            backbone = make(
                content.names.backbone,
                content.weights,
                device=pick_device(content.config.device),
                dtype=content.names.precision.dtype,
                **content.names.backbone_parameters,
            )
        checked = self.checked(content, backbone)
        checked.key = content.backbone_key
        return checked

    def load(self, content: Content, others: Iterable[Content] = ()) -> B:
        """Return the backbone with its network loaded and set up.

        Prompts of the run and of `others` are encoded before, without the network in memory.
        """
        return self.make(content)

    def text_files(self, content: Content) -> list[Path]:
        """Return the cache files of the run's encoded prompts, if it has any."""
        return []

    def open_engine(
        self, content: Content, backbone: B | None = None, run: PreparedRun | None = None
    ) -> Engine:
        """Return the engine that scores with `backbone`, by default a new one.

        With a `run`, what needs its images is checked, too.
        """
        backbone = backbone or self.load(content)
        content.check_key(backbone)
        engine = self.engine(content, backbone)
        self.settle(engine, content, run)
        return engine

    @abstractmethod
    def engine(self, content: Content, backbone: B) -> Engine:
        """Return the engine that scores with `backbone`."""

    def settle(self, engine: Any, content: Content, run: PreparedRun | None) -> None:
        """Check an engine on a run's own images, and settle how it computes."""
        engine.device = pick_device(content.config.device).partition(":")[0]
