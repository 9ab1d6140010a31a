"""Backbone settings, and the backbone, weights and dtype that they name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.contracts.specs import ANY_PIPELINE, UNKNOWN, BackboneSpec, DatasetSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target
from bench.errors import AbsentError, UserError
from bench.inputs.altered import parse_lora
from bench.inputs.data import FOLDER, slugify
from bench.inputs.weights import (
    SINGLE_FILE,
    Lora,
    find_file,
    locate,
    read_object,
    resolve,
)
from bench.machine.environment import has_bfloat16, pick_device
from bench.machine.offline import offline_if_set
from bench.running.parts.setting import (
    DENOISERS,
    Chapter,
    Text,
    default_of,
    is_path,
    registered,
    setting,
)

INDEX = "model_index.json"
AUTO = "auto"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ScorerSettings(Chapter):
    """Settings of the backbone, its weights and its precision."""

    title = "What scores it"

    backbone: Text | None = setting(
        "network", "prompts", identity="content", commands="study prompts", most_used=True
    )
    """A registered backbone, a pipeline folder, or a single .safetensors file of a pipeline
    (default: the dataset's)."""
    weights: Text | None = setting(
        "network", "prompts", identity="content", commands="study prompts"
    )
    """A Hub id, a folder or a single .safetensors file, instead of the backbone's own weights."""
    lora: Text | list[Text] | None = setting(
        "network", "prompts", scorers=DENOISERS, identity="content"
    )
    """A LoRA to add to the pipeline, PATH or PATH:SCALE (default scale: 1); repeat for more."""
    revision: Text | None = setting("network", "prompts", identity="content", commands="prompts")
    """The Hub revision of the weights."""
    dtype: Dtype | None = setting("network", "prompts", identity="resolved", commands="study")
    """The model's dtype; errors are always float32. auto: bfloat16 if the model was trained in it
    and the GPU supports it, else float32 (default: the backbone's, usually float32)."""
    fit_split: Text | None = setting("network", identity="content", learns=True)
    """The split that a trainable backbone is fitted on (default: train)."""


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
def find_backbone(settings: ScorerSettings, dataset: DatasetSpec | None = None) -> BackboneSource:
    """Return the backbone that the user named, else the dataset's, else the default one."""
    name, weights, file = settings.backbone, settings.weights, None
    backbones = load_plugins().backbones
    name = name or (dataset.backbone if dataset else None) or default_of(backbones).name
    if name.endswith(SINGLE_FILE):
        if weights:
            raise UserError(
                "--weights needs a registered backbone or a folder of configs, not a weights file."
            )
        file, name = name, _config_source(name)
    elif weights and weights.endswith(SINGLE_FILE):
        file, weights = weights, None
    if is_path(name):
        if weights:
            raise UserError("--weights needs a registered backbone, not a folder.")
        weights = name
        name = family_of(name, settings.revision) or FOLDER
    spec = registered(backbones, name)
    if spec.takes_folders and not weights:
        raise UserError(f"Backbone {name!r} needs --weights FOLDER, or --backbone FOLDER instead.")
    if spec.scorer != "denoiser" or not (file or settings.lora):
        return BackboneSource(spec, weights or file)
    texts = [settings.lora] if isinstance(settings.lora, str) else settings.lora or []
    if spec.family is None or not (weights := weights or spec.weights):
        option = "--lora" if texts else "A single file"
        raise UserError(f"{option} needs a diffusers pipeline, which {name!r} is not.")
    any_class = _any_pipeline()
    kept = {key: getattr(spec, key) for key in ("dtype", "revision", "template", "plan", "draws")}
    file = None if file is None else str(Path(file).expanduser().absolute())
    return BackboneSource(
        replace(any_class, **kept), weights, file, tuple(parse_lora(text) for text in texts)
    )


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
    """Return the name of the backbone that loads a pipeline folder or Hub id.

    None if it has no model index, or an index without a pipeline class. Raises UserError if no
    backbone loads pipelines of this class.
    """
    location = locate(weights)
    if Path(location).is_absolute():
        path = find_file(Path(location), INDEX)
    else:
        try:
            path = resolve(weights, revision).find(INDEX)
        except AbsentError:  # reported when the weights are located
            return None
    pipeline = read_object(path, f"{weights}: {INDEX}").get("_class_name") if path else None
    if not isinstance(pipeline, str):
        return None
    takers = (spec for spec in load_plugins().backbones if spec.takes_folders)
    backbones = {name: spec for spec in takers for name in spec.pipelines}
    spec = backbones.get(pipeline) or backbones.get(ANY_PIPELINE)
    if spec is None:
        raise UserError(
            f"{weights}: {INDEX} has _class_name {pipeline!r:.100}, which no backbone loads."
            f" Supported classes: {', '.join(sorted(backbones))}."
        )
    return spec.name


def resolve_dtype(dtype: str | None, backbone: BackboneSpec, device: str | None) -> str:
    """Return the dtype of a backbone on a device; `dtype` None means the spec's.

    `auto` is bfloat16 if the model was trained in it and the device supports it, else float32.
    """
    if dtype != AUTO:
        return dtype or backbone.dtype
    half = backbone.dtype == "bfloat16" and has_bfloat16(pick_device(device))
    return "bfloat16" if half else "float32"
