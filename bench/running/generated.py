"""Images that a generative backbone makes of the classes, for a classifier to learn from.

`--fit-split generated:NAME:images=240,steps=1` names the backbone and how it generates. This is the
baseline of GDC (arXiv 2412.12594): the model makes images once, and a classifier of features learns
them, so that a test image costs no evaluation of the model.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.contracts.backbone import Backbone, Denoiser
from bench.contracts.specs import GENERATED, BackboneSpec, DatasetSpec
from bench.discovery.backbones import fact, has_own
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.targets import with_defaults
from bench.errors import PluginError, UserError, quoted
from bench.inputs.class_names import ClassNames
from bench.inputs.pixels import encode
from bench.inputs.prompts import Prompts, from_template, from_templates
from bench.inputs.split import Split
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.libraries import pa
from bench.machine.stages import stage
from bench.running.content import Content
from bench.running.parts.settings import RunConfig, make_config
from bench.store.formats.documents import GenerationCost
from bench.store.formats.fields import without_none
from bench.store.formats.identity import digest
from bench.store.locking import locked

RECIPE_VERSION = 1  # of how images are made from a recipe
# Images of one call: always the same ones, because rounding may depend on their number.
MADE_AT_ONCE = 8
WAIT_FOR_OTHERS = 7 * 24 * 3600.0  # seconds, for another process that makes the same images
SEED_BITS = 63


class GenerationSettings(BaseModel):
    """How images are generated: the settings after the generator's name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    images: int = Field(240, gt=0, le=1_000_000)  # of a class; as published
    steps: int = Field(gt=0, le=10_000)  # of the pipeline's own sampler
    guidance: float = Field(ge=0)
    seed: int = Field(0, ge=0, lt=2**63)
    templates: tuple[str, ...] = ()  # of the prompts; empty for the dataset's own

    @property
    def expected_evaluations(self) -> int:
        """Evaluations for an image, if a step has one, and one more of the null prompt if guided.

        Samplers may take more or fewer: what is made is counted.
        """
        return self.steps * (2 if self.guidance > 1 else 1)


def asks_for_generated(fit_split: str | None) -> bool:
    """Return whether a value of `--fit-split` asks for images that are generated."""
    return fit_split is not None and (fit_split + ":").startswith(GENERATED + ":")


def generator_name(fit_split: str, dataset: DatasetSpec) -> str:
    """Return the name of the backbone that `--fit-split` asks to generate images.

    Without a name it is the dataset's own backbone, or else the first zero-shot one that declares
    how it generates. Raises UserError if there is none.
    """
    name = fit_split.split(":")[1] if ":" in fit_split else None
    if name == "":
        raise UserError(f"--fit-split {fit_split}: the name of a backbone is missing after ':'.")
    if name or dataset.backbone:
        return str(name or dataset.backbone)
    for spec in load_plugins().backbones:
        if spec.generation and spec.trained_on is None:
            return spec.name
    raise UserError(f"--fit-split {fit_split}: name a backbone, {GENERATED}:NAME.")


def generator_config(config: RunConfig, dataset: DatasetSpec) -> RunConfig:
    """Return the settings of the backbone that generates images for a run (UserError)."""
    name = generator_name(str(config.fit_split), dataset)
    kept = {setting: getattr(config, setting) for setting in ("device", "offline", "results")}
    return make_config({"dataset": "-", "backbone": name, **kept})


def read_settings(fit_split: str, spec: BackboneSpec) -> GenerationSettings:
    """Return the settings in a value of `--fit-split`; the backbone's spec declares the others."""
    _, _, text = fit_split.removeprefix(f"{GENERATED}:").partition(":")
    stated: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key in stated or key == "templates":
            raise UserError(
                f"--fit-split {fit_split}: expected settings such as images=240,steps=20,"
                f"guidance=3,seed=0, each once, got {quoted(part)}."
            )
        stated[key] = value
    try:
        return GenerationSettings.model_validate({**spec.generation, **stated})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise UserError(
                f"--fit-split {fit_split}: backbone {spec.name!r} does not declare how it generates"
                f" images. State it: {GENERATED}:NAME:steps=50,guidance=7.5"
            ) from None
        raise UserError(
            f"--fit-split {fit_split}: {name}: {first['msg']} (got {quoted(first['input'])})."
        ) from None


def check_generator(generator: Content, dataset: DatasetSpec) -> None:
    """Raise UserError unless a backbone can make images of a dataset's classes."""
    name = generator.names.source.name
    if dataset.items:
        raise UserError(
            f"--fit-split {GENERATED}: dataset {dataset.name!r} has items with texts of their own,"
            " and no classes to generate images of."
        )
    if not has_own(generator.names.backbone, Denoiser.generate):
        raise UserError(
            f"--fit-split {GENERATED}: backbone {name!r} cannot generate images. Name a diffusion"
            f" model: {GENERATED}:NAME."
        )


class Request(NamedTuple):
    """What an image is made of."""

    text: str
    seed: int
    label: int  # its class


class MadeBatch(NamedTuple):
    """The images of one call of the generator."""

    images: list[bytes]  # as PNG
    seconds: float  # that the call took
    evaluations: int | None  # of the network; None if its forward is not seen


@dataclass(frozen=True)
class GeneratedImages:
    """Images of classes, made when they are first read. They are the rows of a split.

    The cache holds a file for each batch: an interrupted run continues with the batch under way,
    and runs with the same recipe share their images.
    """

    generator: Content
    settings: GenerationSettings
    prompts: Prompts
    _uncached: dict[int, MadeBatch] = field(default_factory=dict)  # that the cache did not take
    _last: dict[int, MadeBatch] = field(default_factory=dict)  # the one that was read last
    _seconds: dict[int, float] = field(default_factory=dict)  # of the batches that were read
    _evaluations: dict[int, int | None] = field(default_factory=dict)  # of the same

    column_names = ("image",)

    @cached_property
    def requests(self) -> list[Request]:
        """The image of every place; the prompts of a class take turns."""
        texts_of: defaultdict[int, list[str]] = defaultdict(list)
        for text, label in self.prompts.pairs:
            texts_of[label].append(text)
        requests = []
        for label, texts in sorted(texts_of.items()):
            for number in range(self.settings.images):
                text = texts[number % len(texts)]
                seed = int(digest({"of": [self.settings.seed, text, number]})[:16], 16)
                requests.append(Request(text, seed % 2**SEED_BITS, label))
        return requests

    @cached_property
    def _batches(self) -> list[list[Request]]:
        """The requests of each call. A class has its own batches, so that others may be added."""
        images, starts = self.settings.images, range(0, self.settings.images, MADE_AT_ONCE)
        classes = range(0, len(self), images)
        return [
            self.requests[first + start : first + min(start + MADE_AT_ONCE, images)]
            for first in classes
            for start in starts
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that determines the images, without making one."""
        prompts = [list(pair) for pair in self.prompts.pairs]
        settings = {"images": self.settings.images, "seed": self.settings.seed}
        return digest({**self._recipe, **settings, "prompts": prompts})

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        names, weights = self.generator.names, self.generator.weights
        return {
            "version": RECIPE_VERSION,
            "backbone": [names.backbone.name, names.backbone.version],
            "weights": weights.fingerprint if weights else None,
            "parameters": names.backbone.recorded(names.backbone_parameters),
            "precision": names.precision.network,
            "steps": self.settings.steps,
            "guidance": self.settings.guidance,
        }

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, place: int) -> Mapping[str, Any]:
        label, number = divmod(place, self.settings.images)
        batch, within = divmod(number, MADE_AT_ONCE)
        number = label * ceil(self.settings.images / MADE_AT_ONCE) + batch
        if number not in self._last:
            self._last.clear()
            self._last[number] = self._read(number)
        return {"image": {"bytes": self._last[number].images[within], "path": None}}

    def make(self) -> None:
        """Make the images that are not in the cache."""
        if self.missing:
            with locked(cache_dir(GENERATED), wait=WAIT_FOR_OTHERS):
                self._make_missing()

    @property
    def took(self) -> GenerationCost:
        """What making the images took. All of them must have been read.

        Early versions kept no number of evaluations with a batch. It is that of the others, or that
        of the first one, which is made again if it is needed.
        """
        counted = {n: count for n, count in self._evaluations.items() if count is not None}
        if not counted and len(self._batches):
            counted = {0: self._generated(self._model(), self._batches[0]).evaluations or 0}
        asked, made = sum(counted.values()), sum(len(self._batches[n]) for n in counted)
        each = asked / made if asked else self.settings.expected_evaluations
        evaluations, flop = round(each * len(self)), self.flop_per_evaluation
        return GenerationCost(
            images=len(self),
            evaluations=evaluations,
            flop=None if flop is None else flop * evaluations,
            seconds=round(sum(self._seconds.values()), 3),
        )

    @property
    def missing(self) -> int:
        """Number of images that are not in the cache. No file is read."""
        return sum(len(self._batches[number]) for number in self._missing_batches())

    def _missing_batches(self) -> list[int]:
        return [
            number
            for number in range(len(self._batches))
            if number not in self._uncached and not self._path(number).exists()
        ]

    @cached_property
    def flop_per_evaluation(self) -> float | None:
        """Operations of the network for an evaluation; None if they are unknown."""
        names, weights = self.generator.names, self.generator.weights
        declared = names.backbone.flops if names.source.weights is None else None
        if declared is None and weights is not None:
            return fact(names.backbone, Backbone.evaluation_flops, weights)
        return declared

    def _make_missing(self) -> None:
        """Make the batches that no process has made."""
        missing = self._missing_batches()
        if not missing:  # another process was quicker
            return
        model = self._model()
        with stage("Generating images", self.missing) as generating:
            for number in missing:
                self._keep(number, self._generated(model, self._batches[number]))
                generating.done += len(self._batches[number])

    def _model(self) -> Denoiser:
        """Load the generator."""
        backbone = self.generator.kind.make(self.generator).backbone
        model: Denoiser = with_defaults(backbone, Denoiser)
        return model

    def _generated(self, model: Denoiser, requests: Sequence[Request]) -> MadeBatch:
        """Return the images of some requests. Raises PluginError if there are others."""
        who = self.generator.names.backbone.label
        with guard(who, "network"):
            network = getattr(model, "network", None)
        started = time.perf_counter()
        with guard(who, "generate()"), counted_forwards(network) as rows:
            images = model.generate(
                [request.text for request in requests],
                [request.seed for request in requests],
                self.settings.steps,
                self.settings.guidance,
            )
        if len(images) != len(requests) or not all(isinstance(i, Image) for i in images):
            raise PluginError(who, f"generate() did not return {len(requests)} images of PIL")
        spent, pictures = time.perf_counter() - started, [encode(image) for image in images]
        return MadeBatch(pictures, spent, sum(rows) or None)

    def _path(self, number: int) -> Path:
        batch = [[request.text, request.seed] for request in self._batches[number]]
        return cache_dir(GENERATED) / digest({**self._recipe, "batch": batch})

    def _read(self, number: int) -> MadeBatch:
        """Return a batch; make it again if it is damaged, or was removed meanwhile."""
        batch = self._stored(number)
        if batch is None:
            self.make()
            batch = self._stored(number)
            assert batch is not None, "what the cache does not take stays in memory"
        self._seconds[number], self._evaluations[number] = batch.seconds, batch.evaluations
        return batch

    def _stored(self, number: int) -> MadeBatch | None:
        """Return a batch from memory or the cache; None if it is in neither."""
        if number in self._uncached:
            return self._uncached[number]
        if (content := read_cached(self._path(number))) is None:
            return None
        table = pa.ipc.open_stream(content).read_all()
        facts = table.schema.metadata
        counted = facts.get(b"evaluations")
        return MadeBatch(
            table["image"].to_pylist(),
            float(facts[b"seconds"]),
            None if counted is None else int(counted),
        )

    def _keep(self, number: int, batch: MadeBatch) -> None:
        """Write a batch to the cache, or keep it in memory if that fails."""
        table = pa.table({"image": pa.array(batch.images, pa.binary())})
        facts = without_none(seconds=batch.seconds, evaluations=batch.evaluations)
        table = table.replace_schema_metadata({name: repr(fact) for name, fact in facts.items()})
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        write_cached(self._path(number), stream.getvalue().to_pybytes())
        if not self._path(number).exists():
            self._uncached[number] = batch


@contextmanager
def counted_forwards(network: Any) -> Iterator[list[int]]:
    """Give a list that grows by the number of samples of each call of a torch module.

    It stays empty for anything else. The samples are those of the first tensor, or of the first
    list of them, among the arguments.
    """
    rows: list[int] = []

    def count(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        batches = (v for v in values if isinstance(v, list) or getattr(v, "shape", None))
        rows.append(len(next(batches, [])))

    hook = getattr(network, "register_forward_pre_hook", None)
    if hook is None:
        yield rows
        return
    handle = hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def generated_split(
    fit_split: str, generator: Content, dataset: DatasetSpec, classes: ClassNames
) -> Split:
    """Return the images of the classes as a split to learn from; none is made yet (UserError)."""
    check_generator(generator, dataset)
    spec, source = generator.names.backbone, generator.names.source
    settings = read_settings(fit_split, spec)
    if settings.templates:
        prompts = from_templates(settings.templates, classes.names, dataset.phrases)
    else:
        prompts = from_template(dataset.template, classes.names, dataset.phrases)
    images = GeneratedImages(generator, settings, prompts)
    labels = tuple(request.label for request in images.requests)
    return Split(
        name=dataset.name,
        version=spec.version,
        split=f"{GENERATED}:{source.name}:images={settings.images},steps={settings.steps},"
        f"guidance={settings.guidance:g},seed={settings.seed}",
        class_names=classes,
        sample_ids=tuple(f"{label}-{n % settings.images}" for n, label in enumerate(labels)),
        labels=labels,
        rows=images,
        survey=("" if generator.absent else images.fingerprint, True),
    )
