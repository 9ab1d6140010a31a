"""Shell commands that reproduce, record or vary a stored run, as shown in messages."""

import shlex
from collections.abc import Mapping, Set
from typing import Any

from bench.contracts.parameters import Parameters, as_text
from bench.contracts.specs import FOLDER
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy, non_default_params
from bench.running.parts.decision import make_decider
from bench.running.parts.declaration import option
from bench.running.parts.machine import TF32
from bench.running.parts.settings import (
    DEFAULTS,
    REMOVED,
    SETTINGS,
    RunConfig,
    Values,
    about,
    removed_message,
)
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import without_none

UNIFORM = "uniform"


def recording_command(manifest: Manifest, strategy: str | None = None) -> str:
    """Return the command that scores a run's images, by default in full, and saves the errors."""
    settings, name = _settings(manifest), strategy or exhaustive_strategy()
    chosen = {"strategy": name, "params": _shared_params(settings, manifest)}
    return _command(manifest, settings, **chosen, save_errors=True, candidates_from=None)


def reproducing_command(manifest: Manifest) -> str:
    """Return the command that repeats a run: the same images, decided in the same way.

    If its risk was calibrated on other images, that calibration must be in the results folder.
    """
    settings = _settings(manifest)
    chosen: Values = {"strategy": manifest.strategy.name}
    params = settings["params"]
    if (stated := manifest.identity.calibrated) is not None:
        if stated.of is not None:  # a fallback strategy may have decided
            chosen["strategy"] = settings.get("strategy")
        chosen["risk"] = stated.risk
    elif not manifest.replayed_from:
        strategy = manifest.strategy  # a backbone may have set some of its parameters
        params = {**non_default_params("strategies", strategy.name, strategy.params), **params}
    chosen["params"] = params
    if manifest.replayed_from:
        chosen["limit"] = settings.get("limit")
        own = manifest.identity.scoring.weighting or UNIFORM
        if own != (settings.get("weighting") or UNIFORM) and not own.startswith("sha256 "):
            chosen["weighting"] = own  # it differs from the recording's
        words = option_words(without_none(**chosen))
        return shlex.join(["bench", "replay", manifest.replayed_from, *words])
    chosen |= {"save_errors": settings.get("save_errors") or None, "until": settings.get("until")}
    return _command(manifest, settings, **chosen)


def removed_from(manifest: Manifest) -> str | None:
    """Return the message about a removed setting that a run has; None if it can be resumed."""
    messages = (removed_message(name, value) for name, value in _settings(manifest).items())
    return next(filter(None, messages), None)


def other_images_command(
    manifest: Manifest, params: Mapping[str, Any] | None = None, **chosen: Any
) -> str:
    """Return the command that scores another split of a run's dataset.

    The split is the default one if the run named its own, else the placeholder `OTHER`. `params`
    are added to the run's shared parameters; `chosen` replaces settings.
    """
    settings = _settings(manifest)
    own = {**(params or {}), **_shared_params(settings, manifest)}
    images = {"limit": None, "split": None if settings.get("split") else "OTHER"}
    return _command(manifest, settings, candidates_from=None, **images, **chosen, params=own)


def same_options(config: RunConfig, *more: str, **changes: str | None) -> str:
    """Return the `bench run` command for `config` with `changes` and the options `more`."""
    return shlex.join(["bench", *run_command(config.model_copy(update=changes)), *more])


def run_command(config: RunConfig) -> list[str]:
    """Return the arguments of `bench` for a run, without --shard, --fresh and --min-accuracy."""
    left_out = {"dataset", "params", "shard", "fresh", "min_accuracy"}
    settings = _not_at_default(config.model_dump(), SETTINGS.keys() - left_out)
    return ["run", config.dataset, *option_words({"params": config.params, **settings})]


def stored_settings(manifest: Manifest) -> Values:
    """Return a run's settings, except those of its strategy or machine, but with all `params`."""
    kept = {"params", *_question(manifest)}
    stored = {name: value for name, value in _settings(manifest).items() if name in kept}
    return {name: value for name, value in stored.items() if _is_complete(name, stored)}


def _question(manifest: Manifest) -> set[str]:
    """Return the settings that say what is measured, not how it is decided, where, or stored.

    Those that change only the last digits are included in half precision, as in the identity.
    """
    names = {*about("data", "images", "prompts", "network", "score")} - {*about("machine")}
    exact = manifest.backbone.dtype == "float32"
    half = {name for name in names if exact and SETTINGS[name].identity == "half"}
    return (names - half) | REMOVED.keys()


def _settings(manifest: Manifest) -> Values:
    """Return a run's settings, with the name `folder` replaced by the folder's path.

    A guided run that predicted the null for every cell has the removed setting that did so. A
    classifier draws nothing at random, but earlier versions took a seed for it.
    """
    settings, scoring = manifest.config.plain(), manifest.identity.scoring
    settings.pop("guidance_null", None)
    if manifest.classifier:
        settings.pop("seed", None)
    if scoring.guidance is not None and scoring.guidance_null is None:
        settings["guidance_null"] = "cell"
    if not isinstance(settings.get("params"), dict):
        settings["params"] = {}
    for kind, path in (("dataset", "data_dir"), ("backbone", "weights")):
        if settings.get(kind) == FOLDER and settings.get(path):
            settings[kind] = settings.pop(path)
    return settings


def _shared_params(settings: Mapping[str, Any], manifest: Manifest) -> Parameters:
    """Return the parameters that do not depend on the strategy: `draws` and the backbone's."""
    backbones, name = load_plugins().backbones, manifest.backbone.name
    shared = {"draws", *(backbones.get(name).parameters if name in backbones else {})}
    return {key: value for key, value in settings["params"].items() if key in shared}


def _not_at_default(settings: Mapping[str, Any], names: Set[str]) -> Values:
    """Return the settings of these names that differ from their defaults, in help order.

    Removed settings come first, so that a command says how the run was made.
    """
    return {
        name: settings.get(name)
        for name, default in {**dict.fromkeys(REMOVED), **DEFAULTS}.items()
        if name in names and settings.get(name) not in (None, default)
    }


def _command(manifest: Manifest, settings: Mapping[str, Any], **chosen: Any) -> str:
    """Return the `bench run` command, or the Python call for a backbone handed over in memory."""
    dataset = str(settings["dataset"])
    refining = {name for name, setting in SETTINGS.items() if setting.needs in chosen}
    names = (_question(manifest) | refining) - {"dataset", "backbone", *chosen}
    shared = _not_at_default(settings, names)
    own = _effective(without_none(backbone=settings.get("backbone"), **chosen, **shared))
    if (thing := manifest.backbone.in_memory) is None:
        return shlex.join(["bench", "run", dataset, *option_words(own)])
    called = "".join(
        f", {name}={value!r}"
        for name, value in own.items()
        if value != {} and not (name in about("network") and SETTINGS[name].is_resolved)
    )
    source = f" from {thing['source']}" if thing.get("source") else ""
    arguments = "".join(f", {k}={v!r}" for k, v in (thing.get("handed_over_with") or {}).items())
    pipe = f"bench.load_backbone(pipe{arguments})" if arguments else "pipe"
    return f"bench.run({dataset!r}, backbone={pipe}{called})  # pipe: {thing.get('class')}{source}"


def _effective(settings: Mapping[str, Any]) -> Values:
    """Return the settings without those that have no effect beside the others."""
    registry, strategy = load_plugins().strategies, str(settings.get("strategy"))

    def is_used(ability: str | None) -> bool:
        return ability is None or (
            strategy in registry
            and bool(getattr(make_decider(registry.get(strategy), {}).strategy, ability))
        )

    return {
        name: value
        for name, value in settings.items()
        if name in REMOVED or (_is_complete(name, settings) and is_used(SETTINGS[name].ability))
    }


def _is_complete(name: str, settings: Mapping[str, Any]) -> bool:
    """Return whether the setting that `name` needs, if any, is set."""
    needed = SETTINGS[name].needs if name in SETTINGS else None
    return needed is None or settings.get(needed) is not None


def option_words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as words of a command line: `["--limit", "10"]`."""
    words: list[str] = []
    if settings.get("tf32") and settings.get("dtype") in (None, "float32"):
        settings = {**settings, "dtype": TF32, "tf32": None}
    for name, value in settings.items():
        if name == "params":
            words += [w for key, v in value.items() for w in ("--set", f"{key}={as_text(v)}")]
        elif value is None:
            continue
        elif value is True:
            words.append(option(name))
        else:
            values = value if isinstance(value, list) else [value]
            words += [word for v in values for word in (option(name), str(v))]
    return words
