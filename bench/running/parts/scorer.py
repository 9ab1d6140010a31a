"""What scores it: the backbone, its weights and its precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.contracts.specs import ANY_PIPELINE, UNKNOWN, BackboneSpec, DatasetSpec
from bench.discovery.loading import Plugins
from bench.discovery.registry import Registry
from bench.errors import AbsentError, UserError
from bench.inputs.data import FOLDER, slug
from bench.inputs.weights import find_file, locate, read_object, resolve
from bench.machine.environment import has_bfloat16, pick_device
from bench.machine.offline import as_settings_say
from bench.running.parts.setting import Chapter, Text, default_of, is_path, registered, setting

INDEX = "model_index.json"
AUTO = "auto"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ScorerSettings(Chapter):
    """The backbone of a run."""

    title = "What scores it"

    backbone: Text | None = setting(
        "A registered backbone, or a pipeline folder (default: the dataset's).",
        identity="content",
        classify=True,
        most_used=True,
    )
    weights: Text | None = setting(
        "A Hub id or a folder, instead of the backbone's own weights.",
        identity="content",
        classify=True,
    )
    revision: Text | None = setting(
        "The Hub revision of the weights.", identity="content", classify=True
    )
    dtype: Dtype | None = setting(
        "The model's dtype; errors are float32 always. auto: bfloat16 where the model"
        " was trained in it and the GPU has it, else float32 (default: the backbone's, mostly"
        " float32).",
        identity="resolved",
        classify=True,
    )
    fit_split: Text | None = setting(
        "The split that a backbone which learns is fitted on (default: train).", identity="content"
    )


@dataclass(frozen=True)
class BackboneSource:
    """The backbone of a run, and the weights that the user named."""

    spec: BackboneSpec
    weights: str | None  # a Hub id or a folder; None: the backbone's own

    @property
    def name(self) -> str:
        """Name in the run: the spec's, or that of its folder."""
        by_weights = self.weights and (self.spec.takes_folders or self.spec.objects)
        return slug(str(self.weights)) if by_weights else self.spec.name

    @property
    def trained_on(self) -> str | None:
        """`dataset/split`, None for zero-shot, `unknown` for weights of the user's own."""
        return self.spec.trained_on if self.weights is None else UNKNOWN


@as_settings_say
def find_backbone(
    settings: ScorerSettings, dataset: DatasetSpec | None, plugins: Plugins
) -> BackboneSource:
    """Find the backbone: the user's, the dataset's, or the default one."""
    name, weights = settings.backbone, settings.weights
    name = name or (dataset.backbone if dataset else None) or default_of(plugins.backbones).name
    if is_path(name):
        if weights:
            raise UserError("--weights goes with a registered backbone, not with a folder.")
        weights = name
        name = family_of(name, settings.revision, plugins.backbones) or FOLDER
    spec = registered(plugins.backbones, name)
    if spec.takes_folders and not weights:
        raise UserError(f"Backbone {name!r} needs --weights FOLDER; or name the folder itself.")
    return BackboneSource(spec, weights)


def family_of(weights: str, revision: str | None, registry: Registry[BackboneSpec]) -> str | None:
    """Return the backbone that loads a folder or Hub id (UserError); None: no class is named."""
    location = locate(weights)
    if Path(location).is_absolute():
        path = find_file(Path(location), INDEX)
    else:
        try:
            path = resolve(weights, revision).find(INDEX)
        except AbsentError:  # the error is raised where the weights are located
            return None
    pipeline = read_object(path, f"{weights}: {INDEX}").get("_class_name") if path else None
    if not isinstance(pipeline, str):
        return None
    backbones = {name: spec for spec in registry if spec.takes_folders for name in spec.pipelines}
    spec = backbones.get(pipeline) or backbones.get(ANY_PIPELINE)
    if spec is None:
        raise UserError(
            f"{weights}: {INDEX} says _class_name {pipeline!r:.100}, which no backbone loads."
            f" Folders of these are loaded: {', '.join(sorted(backbones))}."
        )
    return spec.name


def resolve_dtype(dtype: str | None, backbone: BackboneSpec, device: str | None) -> str:
    """Return the dtype of the backbone on a device: the user's, or the spec's (None).

    `auto` is bfloat16 where the model was trained in it and the device has it, else float32.
    """
    if dtype != AUTO:
        return dtype or backbone.dtype
    half = backbone.dtype == "bfloat16" and has_bfloat16(pick_device(device))
    return "bfloat16" if half else "float32"
