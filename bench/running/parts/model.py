"""Which network or classifier scores the images of a run, and where its checkpoint is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.contracts.parameters import Parameters
from bench.contracts.specs import ANY_PIPELINE, FOLDER, UNKNOWN, BackboneSpec, DatasetSpec
from bench.discovery.backbones import recorded_parameters
from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target
from bench.errors import AbsentError, UserError
from bench.inputs.data import slugify
from bench.inputs.weights import (
    SINGLE_FILE,
    InMemory,
    Lora,
    Weights,
    add_files,
    find_file,
    locate,
    parse_lora,
    read_object,
    resolve,
)
from bench.machine.hub import advise_licence
from bench.machine.offline import offline_if_set
from bench.running.parts.data import is_path, registered
from bench.running.parts.declaration import DENOISERS, Chapter, Text, setting
from bench.store.formats.documents import BackboneInfo
from bench.store.formats.fields import without_none

LARGEST_SIDE = 8192  # pixels; the latents of larger images do not fit into a GPU
_of_weights = partial(setting, "network", "prompts", identity="content")


class ModelSettings(Chapter):
    """What scores it."""

    backbone: Text | None = _of_weights(commands="study prompts", most_used=True)
    """A registered backbone, a pipeline folder, or a single .safetensors file of a pipeline
    (default: the dataset's)."""
    weights: Text | None = _of_weights(commands="study prompts")
    """A Hub id, a folder or a single .safetensors file, instead of the backbone's own weights."""
    lora: Text | list[Text] | None = _of_weights(scorers=DENOISERS)
    """A LoRA to add to the pipeline, PATH or PATH:SCALE (default scale: 1); repeat for more."""
    revision: Text | None = _of_weights(commands="prompts")
    """The Hub revision of the weights."""
    resolution: int | None = setting(
        "network", "prompts", identity="resolved", passed_to="backbone", gt=0, le=LARGEST_SIDE
    )
    """Image side in pixels (default: the model's own)."""
    normalize: Text | None = setting("network", identity="resolved", passed_to="backbone")
    """Pixel normalisation, for a backbone that offers a choice: half or cifar10."""
    fit_split: Text | None = setting("network", identity="content", learns=True)
    """The split that a trainable backbone is fitted on (default: train), or generated[:NAME] for
    images that a diffusion model makes of the classes."""


INDEX = "model_index.json"


@dataclass(frozen=True)
class BackboneSource:
    """The backbone of a run, and the weights that the user named."""

    spec: BackboneSpec
    weights: str | None  # a Hub id or a folder; None for the backbone's own
    file: str | None = None  # a single weights file, loaded with the configs of `weights`
    loras: tuple[Lora, ...] = ()

    @property
    def name(self) -> str:
        """Name in the run: the spec's, or the folder's or file's, with the names of the LoRAs."""
        by_weights = self.weights and (self.spec.takes_folders or self.spec.objects)
        name = slugify(str(self.file or self.weights)) if by_weights else self.spec.name
        return "-".join([name, *(slugify(lora.path) for lora in self.loras)])

    @property
    def trained_on(self) -> str | None:
        """Training data as `dataset/split`; None if zero-shot; `unknown` for the user's weights."""
        return self.spec.trained_on if self.weights is None else UNKNOWN


@offline_if_set
def find_backbone(settings: ModelSettings, dataset: DatasetSpec | None = None) -> BackboneSource:
    """Return the backbone that the user named, else the dataset's, else the default one."""
    backbones = load_plugins().backbones
    name = settings.backbone or (dataset.backbone if dataset else None)
    name, weights, file = _named(name or backbones.require_default().name, settings.weights)
    if is_path(name):
        if weights:
            raise UserError("--weights needs a registered backbone, not a folder.")
        name, weights = family_of(name, settings.revision) or FOLDER, name
    spec = registered(backbones, name)
    if spec.takes_folders and not weights:
        raise UserError(f"Backbone {name!r} needs --weights FOLDER, or --backbone FOLDER instead.")
    if not (spec.denoises and (file or settings.lora)):
        return BackboneSource(spec, weights or file)
    return _altered(spec, weights or spec.weights, file, settings.lora or [])


def _altered(
    spec: BackboneSpec, weights: str | None, file: str | None, loras: str | list[str]
) -> BackboneSource:
    """Return a pipeline with LoRAs, or with the weights of a single file."""
    if spec.family is None or weights is None:
        option = "--lora" if loras else "A single file"
        raise UserError(f"{option} needs a diffusers pipeline, which {spec.name!r} is not.")
    kept = {key: getattr(spec, key) for key in ("dtype", "revision", "template", "plan", "draws")}
    file = None if file is None else str(Path(file).expanduser().absolute())
    texts = [loras] if isinstance(loras, str) else loras
    added = tuple(map(parse_lora, texts))
    return BackboneSource(replace(_any_pipeline(), **kept), weights, file, added)


def _named(name: str, weights: str | None) -> tuple[str, str | None, str | None]:
    """Return the name of a backbone, its weights, and the single weights file if one was named."""
    if not name.endswith(SINGLE_FILE):
        is_file = weights is not None and weights.endswith(SINGLE_FILE)
        return (name, None, weights) if is_file else (name, weights, None)
    if weights:
        raise UserError(
            "--weights needs a registered backbone or a folder of configs, not a weights file."
        )
    return _config_source(name), None, name


def _any_pipeline() -> BackboneSpec:
    for spec in load_plugins().backbones:
        if ANY_PIPELINE in spec.pipelines:
            return spec
    raise UserError("No loaded plugin has a backbone for pipelines of any class.")


def _config_source(file: str) -> str:
    """Return the Hub id of the pipeline whose configs and tokenizers fit a weights file."""
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"The weights file {path} does not exist.")
    source: str = load_target(_any_pipeline()).config_source(path)
    return source


def family_of(weights: str, revision: str | None) -> str | None:
    """Return the name of the backbone that loads a folder or Hub id, by the class it names.

    None if it names no class, or one of transformers that no backbone loads. Raises UserError if no
    backbone loads pipelines of this class.
    """
    backbones = {
        name: spec
        for spec in load_plugins().backbones
        if spec.takes_folders
        for name in spec.pipelines
    }
    index = _read_named(weights, revision, INDEX)
    if not index:
        (model, *_) = _read_named(weights, revision, "config.json").get("architectures") or [None]
        spec = backbones.get(model) if isinstance(model, str) else None
        return spec.name if spec else None
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        return None
    spec = backbones.get(pipeline) or backbones.get(ANY_PIPELINE)
    if spec is None:
        raise UserError(
            f"{weights}: {INDEX} has _class_name {pipeline!r:.100}, which no backbone loads."
            f" Supported classes: {', '.join(sorted(backbones))}."
        )
    return spec.name


def _read_named(weights: str, revision: str | None, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of a folder or Hub id; empty if there is no such file."""
    location = locate(weights)
    if Path(location).is_absolute():
        path = find_file(Path(location), name)
    else:
        try:
            path = resolve(weights, revision).find(name)
        except AbsentError:  # reported when the weights are located
            return {}
    return read_object(path, f"{weights}: {name}") if path else {}


def find_weights(
    config: ModelSettings, source: BackboneSource, parameters: Parameters, loaded: Any = None
) -> Weights | None:
    """Locate the backbone's weights without reading them; None if it needs none.

    Weights of an object in memory are read. Raises AbsentError if they are not on this machine and
    cannot be downloaded.
    """
    if source.spec.objects:
        content: Weights | None = None if loaded is None else loaded.content()
        return content
    weights = source.weights or source.spec.weights
    for name, weights_of_value in source.spec.weights_by.items():
        weights = weights or weights_of_value.get(str(parameters[name]))
    own, spec = config.revision, source.spec
    if own is not None and (weights is None or Path(locate(weights)).is_absolute()):
        raise UserError(
            f"--revision {own} is of weights on the Hub, but these are on this machine."
        )
    if weights is None:
        return None
    with naming_licence(source):
        located = resolve(weights, own or spec.revision)
        return add_files(located, source.loras, source.file)


@contextmanager
def naming_licence(source: BackboneSource) -> Iterator[None]:
    """Say where the licence of a gated backbone is accepted, if its own weights are absent."""
    spec = source.spec
    try:
        yield
    except AbsentError as error:
        page = advise_licence(str(spec.weights))
        if not spec.gated or source.weights or page in str(error):
            raise
        raise AbsentError(f"{error}\n{advise_licence(str(spec.weights), spec.licence)}") from None


def model_identity(
    spec: BackboneSpec, weights: Weights | None, parameters: Parameters
) -> dict[str, Any]:
    """Return the entries of the identity for the backbone, its weights and its parameters."""
    return {
        "name": spec.name,
        "version": spec.version,
        "weights": weights.fingerprint if weights else None,
        "parameters": recorded_parameters(spec, weights, parameters),
    }


def backbone_info(
    source: BackboneSource, weights: Weights | None, dtype: str, trained_on: str | None
) -> BackboneInfo:
    """Return the manifest's entry of the backbone."""
    loras = {lora.name: lora.scale for lora in weights.loras} if weights else None
    return BackboneInfo(
        name=source.name,
        version=source.spec.version,
        weights=weights.location if weights else None,
        revision=weights.revision if weights else None,
        dtype=dtype,
        trained_on=trained_on,
        **without_none(
            in_memory=dict(weights.description) if isinstance(weights, InMemory) else None,
            loras=loras or None,
        ),
    )
