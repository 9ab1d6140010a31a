"""Find what the settings name: the dataset, the backbone, the draw plan and the views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contracts.parameters import Parameters, Spec
from bench.contracts.specs import (
    ANY_PIPELINE,
    FOLDER,
    UNKNOWN,
    BackboneSpec,
    DatasetSpec,
    ViewsSpec,
)
from bench.contracts.strategy import Ints
from bench.discovery.declared import load_spec
from bench.discovery.loading import Registry, SpecT, load_plugins
from bench.discovery.targets import load_target, make_from
from bench.engine.images import CheckedViews, view_of_draw
from bench.errors import AbsentError, PluginError, UserError
from bench.inputs.data import DataSource, check_data_dir, find_path_reader, find_scheme, slugify
from bench.inputs.draws import DrawPlan, combine_plan, parse_plan
from bench.inputs.weights import (
    SINGLE_FILE,
    Lora,
    find_file,
    locate,
    parse_lora,
    read_object,
    resolve,
)
from bench.machine.files import path_exists, regular_file
from bench.machine.offline import offline_if_set
from bench.running.settings import SETTINGS, RunConfig
from bench.running.settings.declaration import option


def passed_to(spec: Spec, settings: RunConfig) -> Parameters:
    """Return the settings that a dataset or backbone gets as parameters.

    Raises UserError if one is set that it has no parameter for.
    """
    chosen: Parameters = {}
    for name, declared in SETTINGS.items():
        value = getattr(settings, name)
        if declared.passed_to == spec.kind and value is not None:
            if name not in spec.parameters:
                kind = spec.kind.capitalize()
                raise UserError(f"{kind} {spec.name!r} does not support {option(name)}.")
            chosen[name] = value
    return chosen


def is_path(name: str) -> bool:
    """Return whether a name is a path: it has a slash, or is `.` or `..`."""
    return "/" in name or "\\" in name or name in (".", "..")


def registered(registry: Registry[SpecT], name: str) -> SpecT:
    """Return a registered spec; the error for an unknown name hints at a file of that name."""
    try:
        return registry.get(name)
    except UserError as error:
        if path_exists(name):
            raise UserError(
                f"{error}\nTo use the folder or file of that name, write ./{name}"
            ) from None
        raise


DECLARATION = ".toml"


@offline_if_set
def find_dataset(settings: RunConfig) -> DataSource:
    """Return the dataset that the settings name: registered, a URI, a declaration or a folder.

    Raises UserError if the name is unknown or a collection, or the declaration or data invalid.
    """
    name, data_dir, plugins = settings.dataset, settings.data_dir, load_plugins()
    if name.startswith("@"):
        names = plugins.collections.get(name[1:]).datasets
        raise UserError(
            f"{name} is a collection of {len(names)} datasets, but a run takes one of them:"
            f" {', '.join(names)}."
        )
    if (spec := find_scheme(name, plugins.datasets)) is not None:
        return data_source(settings, spec)
    if name.endswith(DECLARATION):
        return data_source(settings, _declared(Path(name)))
    inside = f"dataset{DECLARATION}"
    if is_path(name) and path_exists(name) and regular_file(Path(name), inside) is not None:
        return data_source(settings, _declared(Path(name, inside), in_data=True))
    if is_path(name):
        spec, data_dir = find_path_reader(), name
    else:
        spec = registered(plugins.datasets, name)
    if spec.paths and not data_dir:
        raise UserError(
            f"Dataset {spec.name!r} needs --data-dir FOLDER, or the folder itself as the dataset."
        )
    return data_source(settings, spec, spec.name, data_dir)


def data_source(
    settings: RunConfig, spec: DatasetSpec, name: str | None = None, data_dir: str | None = None
) -> DataSource:
    """Return where a dataset's images are and how they are read.

    `name` and `data_dir` default to the settings' `dataset` and `data_dir`. Raises UserError if the
    dataset lacks an option that was set, or `data_dir` does not fit.
    """
    data_dir = data_dir or settings.data_dir
    check_data_dir(spec, data_dir)
    chosen = passed_to(spec, settings)
    if spec.scheme:
        chosen["source"] = settings.dataset.partition(":")[2]
    words = None if settings.class_names is None else Path(settings.class_names)
    skip, name = settings.skip_unlabelled, name or settings.dataset
    return DataSource(spec, data_dir, chosen, words, skip, name)


def expand_datasets(names: Sequence[str]) -> list[str]:
    """Return the names without duplicates, each collection `@NAME` expanded to its datasets."""
    expanded: list[str] = []
    collections = load_plugins().collections
    for name in names:
        expanded += collections.get(name[1:]).datasets if name.startswith("@") else (name,)
    return list(dict.fromkeys(expanded))


def _declared(file: Path, in_data: bool = False) -> DatasetSpec:
    """Return the dataset that a TOML file declares; `in_data` if the file came with the data."""
    spec = load_spec(file, in_data)
    if spec.name in load_plugins().datasets:
        raise UserError(
            f"{file}: a dataset named {spec.name!r} is already registered. Choose another name, so"
            " that their results are not mixed up."
        )
    return spec


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
def find_backbone(settings: RunConfig, dataset: DatasetSpec | None = None) -> BackboneSource:
    """Return the backbone that the user named, else the dataset's, else the default one."""
    name, weights, file = settings.backbone, settings.weights, None
    backbones = load_plugins().backbones
    name = name or (dataset.backbone if dataset else None) or backbones.require_default().name
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


def find_plan(settings: RunConfig, backbone: BackboneSpec) -> DrawPlan:
    """Return the plan of the draws (their levels and pairs): the user's, else the backbone's."""
    try:
        usual = parse_plan(backbone.plan)
    except ValueError as error:
        raise PluginError(backbone.label, f"its plan: {error}") from None
    return combine_plan(settings.plan, settings.levels, usual)


@dataclass(frozen=True)
class ResolvedViews:
    """The views that `--views` names, with their spec and parameters."""

    spec: ViewsSpec
    parameters: Mapping[str, Any]
    views: CheckedViews

    def of_draws(self, n_draws: int, plan: DrawPlan) -> Ints:
        """Return int64 [N], the view of each draw; draws that share a noise level share a view.

        Raises UserError if there are fewer draws than views.
        """
        count, per_level = self.views.count, 1 if plan.name == "grid" else 2  # consecutive draws
        turns = view_of_draw(n_draws, count, per_level)
        if len(set(turns.tolist())) < count:
            raise UserError(
                f"--views {self.spec.name}: draws={n_draws} cannot see all of its {count} views."
                f" Use --set draws={count * per_level} or more."
            )
        return turns

    @property
    def identity(self) -> str:
        """The entry of the identity for the views."""
        name = ":".join([self.spec.name, *map(str, self.parameters.values())])
        return name if self.spec.version == 1 else f"{name} (version {self.spec.version})"


def resolve_views(text: str) -> ResolvedViews:
    """Make the views `NAME` or `NAME:VALUE`; the value sets their first parameter."""
    name, colon, value = text.partition(":")
    spec = load_plugins().views.get(name)
    first = next(iter(spec.parameters), None)
    if colon and first is None:
        raise UserError(f"--views {text}: the views {name!r} take no value.")
    parameters = spec.resolve_parameters({first: value} if colon and first else {})
    return ResolvedViews(spec, parameters, CheckedViews(make_from(spec, parameters), spec.label))
