"""A run: what it asks, and its images.

`Resolved` holds what the names in the settings stand for, `RunQuestion` also the prompts and the
located weights: names, prompts, levels, checks and prices, as far as no image is needed.
`PreparedRun` has the images and the manifest too, and can be scored, as any `Executable`.
`ScorerKind` is everything that depends on the kind of the backbone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from typing_extensions import override

from bench.contracts.backbone import Backbone, Denoiser
from bench.contracts.dataset import Sample
from bench.contracts.decision import MEAN, Decided
from bench.contracts.executor import ModelFacts, OpenRun
from bench.contracts.levels import Levels
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, DatasetSpec
from bench.contracts.strategy import Ints, Problem
from bench.discovery.backbones import code_of, count_tokens, fact, has_own
from bench.discovery.targets import make
from bench.engine.asking import CheckedStrategy, Engine
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.direct import CheckedClassifier, CheckedLikelihood
from bench.errors import AbsentError, UserError
from bench.inputs.class_names import ClassNames
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.data import DataSource
from bench.inputs.draws import DrawPlan
from bench.inputs.estimand import Weighting
from bench.inputs.prompts import Columns, Prompts, make_columns
from bench.inputs.replaced import TEXT_ONLY, blind_samples
from bench.inputs.split import Split
from bench.inputs.weights import Weights
from bench.machine.environment import pick_device
from bench.machine.stages import stage
from bench.running.decider import Decider
from bench.running.finders import BackboneSource, ResolvedViews, view_of_each_draw
from bench.running.parts.precision import RunPrecision
from bench.running.risk import StatedRisk
from bench.running.settings import (
    SETTINGS,
    RunConfig,
    Values,
    changed,
    check_mode,
    loading_settings,
)
from bench.running.settings.declaration import option
from bench.store.documents import Manifest
from bench.store.identity import Candidates, ScoringIdentity

CheckedBackbone = CheckedDenoiser | CheckedClassifier | CheckedLikelihood

B = TypeVar("B", bound="CheckedBackbone")


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A run's settings and what they resolve to."""

    config: RunConfig  # settings as the user set them
    data: DataSource  # where the images are, and how they are read
    source: BackboneSource  # the backbone, and the weights that the user named
    kind: "ScorerKind[Any]"  # kind of the backbone
    backbone_parameters: Parameters  # all of the backbone's parameters
    trained_on: str | None
    """Training data as `dataset/split`; None if zero-shot; `unknown` for the user's weights."""
    precision: RunPrecision
    template: str | list[str] | None
    """The user's template, else the backbone's; None for the dataset's or a file of prompts."""
    decider: Decider
    risk: StatedRisk | None = None  # what will choose the strategy's parameters, if one does
    plan: DrawPlan  # noise levels and pairs of the draws
    views: ResolvedViews | None = None  # views of an image; None for the image alone

    @property
    def dataset(self) -> DatasetSpec:
        """Spec of the dataset."""
        return self.data.spec

    @property
    def backbone(self) -> BackboneSpec:
        """Spec of the backbone."""
        return self.source.spec

    @property
    def backbone_name(self) -> str:
        """Name of the backbone: the spec's, or the folder's or file's, with its LoRAs."""
        return self.source.name

    @property
    def backbone_key(self) -> tuple[object, ...]:
        """What is loaded, and how: runs with equal keys can share a backbone.

        Name, version, code, precision, parameters and settings of the loading, and last the
        weights, as the settings name them.
        """
        source, config = self.source, self.config
        return (
            (source.spec.name, source.spec.version, code_of(source.spec), self.precision.options()),
            tuple(sorted((name, repr(v)) for name, v in self.backbone_parameters.items())),
            loading_settings(config),
            (source.weights, config.revision, source.file, *source.loras),
        )

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy that decides the images."""
        return self.decider.strategy

    @property
    def n_draws(self) -> int:
        """Number of draws, N."""
        return 1 if self.kind.one_draw else int(self.decider.parameters["draws"])

    @property
    def batch_size(self) -> int | None:
        """The user's batch size; None if it is automatic."""
        chosen = self.config.batch_size
        return None if chosen == "auto" else chosen

    def without_risk(self) -> RunConfig:
        """Return the settings with `risk` replaced by the strategy and parameters it has chosen."""
        if self.config.risk is None:
            return self.config
        decider = self.decider
        params = {**self.config.params, **decider.parameters}
        changes = {"risk": None, "strategy": decider.spec.name, "params": params}
        return self.config.model_copy(update=changes)

    def recorded_settings(self) -> Values:
        """Return the settings for the manifest, with resolved names."""
        return {
            **self.config.model_dump(),
            "dataset": self.data.name,
            "data_dir": self.data.data_dir,
            "backbone": self.backbone.name,
            "weights": self.source.file or self.source.weights,
            **({"backbone": self.source.weights} if self.source.file else {}),
            **self.precision.settings(),
            "template": self.template,
        }


@dataclass(frozen=True)
class Shortlist:
    """Candidate classes of every image asked for, from an earlier run."""

    source: Candidates  # the earlier run, and the number of candidates per image
    trained_on: str | None  # training data of that run's backbone
    classes: Mapping[str, tuple[int, ...]]  # sample id → class indices, best first


@dataclass(frozen=True, kw_only=True)
class RunQuestion(Resolved):
    """What a run asks of every image; the images themselves need not be there."""

    named: ClassNames  # the classes in label order: readable names and the spelling of the data
    prompts: Prompts
    weights: Weights | None
    """The located checkpoint; None if the backbone needs none or it is absent."""
    absent: AbsentError | None  # why the weights are not on this machine, if they are not
    split: Split | None  # the images, if they were read
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    weighting: Weighting  # the weights over the noise levels, fitted if they are learned
    warnings: tuple[str, ...]  # to be issued before the run
    loaded: Any  # the backbone itself, if the caller has loaded it
    learns_from: Split | None
    """The images that the backbone is fitted on; None if it does not learn."""
    shortlist: Shortlist | None  # the candidates of each image; None to score all classes

    @property
    @override
    def backbone_key(self) -> tuple[object, ...]:
        weights = self.weights
        content = weights and (weights.location, weights.revision, weights.fingerprint)
        return (*super().backbone_key[:-1], content)

    @property
    def classes(self) -> tuple[str, ...]:
        """Readable class names, in label order."""
        return self.named.names

    def check(self) -> None:
        """Validate the run before it is scored; imports the backbone's class but reads no tensor.

        Raises UserError if weights are absent, a prompt has too many tokens or settings do not fit.
        """
        if self.absent is not None:
            raise self.absent
        prompts, spec = self.prompts, self.backbone
        parameters = self.backbone_parameters
        fact(spec, Backbone.check_weights, self.weights, dtype=self.precision.dtype, **parameters)
        if self.views is not None and self.views.views.of_latents:
            check_mode(self.config, "latents", words := f"--views {self.config.views}")
            self.check_offers(words, Denoiser.posterior)
        view_of_each_draw(self.views, self.n_draws, self.plan)
        for name, value in changed(self.config).items():
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
        self.strategy.check(self.problems()[-1][0])

    def check_offers(self, words: str, method: Callable[..., object]) -> None:
        """Raise UserError if the backbone's class lacks an optional method that an option needs."""
        if not has_own(self.backbone, method):
            raise UserError(
                f"{words.strip()} needs {method.__name__}(), which backbone {self.backbone_name!r}"
                " does not have."
            )

    def token_counts(self) -> tuple[list[int], int] | None:
        """Return the tokens per prompt and the limit; None if the backbone counts no tokens."""
        return count_tokens(self.backbone, self.weights, self.prompts.texts)

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
            shapes = sorted({(texts, images) for images, texts in split.items.shapes})
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


Swept = tuple[Path, Sequence[str]]  # folder of a full sweep, and ids of some of its images


@dataclass(frozen=True, kw_only=True)
class Executable(ABC):
    """A run that `execute` can score, with a model or from recorded errors."""

    manifest: Manifest  # its samples are the images asked for
    decider: Decider
    folder: Path  # folder of its results
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    fresh: bool = False  # whether to start over instead of resuming
    save_errors: bool = False  # whether to keep the error of every cell
    timed: bool = True  # whether times are recorded; those of a replayed recording mean nothing
    swept: Swept | None = None  # images whose decisions are copied from a full sweep

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy that decides the images."""
        return self.decider.strategy

    @abstractmethod
    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield the images with these ids."""

    def check(self) -> None:
        """Validate the run before anything is written or loaded; raises UserError."""
        return None

    @abstractmethod
    def open_engine(self) -> Engine:
        """Load the model or the recording and return its engine."""

    def open(self) -> OpenRun:
        """Load the model or the recording in this process."""
        return _OpenHere(self)


class _OpenHere(OpenRun):
    def __init__(self, run: Executable) -> None:
        self._run, self._engine = run, run.open_engine()
        fitted, warnings, rounding = (
            getattr(self._engine, name, None) for name in ("fitted", "warnings", "rounding")
        )
        self.device = self._engine.device
        problem, levels = self._engine.problem, self._engine.levels
        self.model = ModelFacts(problem, levels, fitted, warnings or (), rounding)

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        return self._engine.score(self._run.samples(sample_ids), self._run.strategy)


@dataclass(frozen=True, kw_only=True)
class PreparedRun(RunQuestion, Executable):
    """A validated run, before anything heavy is loaded."""

    split: Split  # the images
    lend: "Callable[[PreparedRun], CheckedBackbone | None]" = lambda run: None
    """Returns a loaded backbone that the run shares with others, or None if there is none."""
    compares: bool = True  # whether this process compares the precision with float32

    @override
    def check(self) -> None:
        assert self.risk is None, "`settled` chooses the strategy of a stated risk"
        super().check()

    @property
    def sample_ids(self) -> list[str]:
        """Ids of the images asked for."""
        return self.manifest.samples

    @override
    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield images with the control, corruption and candidates of the run's settings applied.

        An id is consumed only when its image is.
        """
        split, control, shortlist = self.split, self.config.control, self.shortlist
        if control is None or control == TEXT_ONLY:
            samples = split.samples(sample_ids, self.prompts)
        else:
            samples = blind_samples(split, sample_ids, self.prompts, control)
        samples = corrupt_samples(samples, self.config.corrupt)
        if shortlist is None:
            return samples
        return (replace(s, candidates=shortlist.classes[s.sample_id]) for s in samples)

    @override
    def open_engine(self) -> Engine:
        with stage(f"Loading {self.backbone_name}"):
            return self.kind.open_engine(self, self.lend(self))


class ScorerKind(ABC, Generic[B]):
    """What a run does differently for a denoiser, a classifier and a likelihood."""

    one_draw: ClassVar[bool] = False  # whether an image is scored once, without noise
    batches_cells: ClassVar[bool] = False
    """Whether cells of many images share a batch, whose speed can be measured."""

    def problem(
        self, question: RunQuestion, columns: Columns, levels: Levels | None = None
    ) -> Problem:
        """Return the problem of an image; `levels` is None if unknown yet, or if there are none."""
        n_draws, parents = question.n_draws, question.prompts.parents
        return Problem(
            columns.class_of_column,
            np.arange(n_draws),
            np.ones(n_draws),
            question.config.seed,
            cell_cost=columns.per_column,
            reduction=self.reduction(question),
            parents=None if parents is None else np.array(parents, dtype=np.int64),
        )

    def reduction(self, question: Resolved) -> str:
        """Return how the errors of a text are combined into its score."""
        return MEAN

    def draws_at_random(self, resolved: Resolved) -> bool:
        """Return whether the seed can change a score or a decision."""
        return True

    def check(self, question: RunQuestion) -> None:
        """Raise UserError if settings do not fit the backbone's class."""
        return None

    def check_draws(self, question: RunQuestion) -> None:
        """Raise UserError if levels, weights or noise of the user do not fit the backbone."""
        return None

    @abstractmethod
    def scoring(self, question: RunQuestion) -> ScoringIdentity:
        """Return the identity of a run's errors and draws."""

    @abstractmethod
    def checked(self, question: RunQuestion, backbone: Any) -> B:
        """Return a plugin's backbone with checks of every output."""

    def make(self, question: RunQuestion) -> B:
        """Return the caller's backbone or a new one, whose network may not be loaded yet."""
        backbone = question.loaded
        if backbone is None:
            backbone = make(
                question.backbone,
                question.weights,
                device=pick_device(question.config.device),
                dtype=question.precision.dtype,
                **question.backbone_parameters,
            )
        checked = self.checked(question, backbone)
        checked.key = question.backbone_key
        return checked

    def backbone_of(self, question: RunQuestion, loaded: B | None) -> B:
        """Return the loaded backbone, which must be the run's, or else a new one."""
        backbone = loaded or self.load(question)
        question.check_key(backbone)
        return backbone

    def load(self, question: RunQuestion, others: Iterable[RunQuestion] = ()) -> B:
        """Return the backbone with its network loaded and set up.

        Prompts of the run and of `others` are encoded before, without the network in memory.
        """
        return self.make(question)

    def text_files(self, question: RunQuestion) -> list[Path]:
        """Return the cache files of the run's encoded prompts, if it has any."""
        return []

    @abstractmethod
    def open_engine(self, question: RunQuestion, backbone: B | None = None) -> Engine:
        """Return the engine that scores with `backbone`, by default a new one."""


Opener = Callable[[PreparedRun], OpenRun]
