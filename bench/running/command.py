"""Commands that make a run, for messages: they work as printed."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Mapping, Set
from contextlib import suppress
from typing import Any

from bench.discovery.loading import exhaustive, load_plugins
from bench.inputs.data import FOLDER
from bench.running.settings import RunConfig
from bench.store.documents import Manifest
from bench.store.identity import StrategyIdentity

UNIFORM = "uniform"
# Settings of an object in memory, which are not those of `bench.run`.
OF_HANDING_OVER = ("backbone", "weights", "dtype", "resolution", "normalize")
_OWN = {"dataset", "backbone", "strategy", "params", "risk", "save_errors", "again", "audit"}
_OWN |= {"fresh", "min_accuracy", "note", "tag"}
_OF_THE_MACHINE = {"results", "offline", "device", "batch_size", "compile", "layout", "attention"}
_OF_THE_MACHINE |= {"executor", "workers", "ray_address"}
_LEFT_OUT = _OWN | _OF_THE_MACHINE | {"shard"}


def recording_command(manifest: Manifest, strategy: str | None = None) -> str:
    """Return the command that records every error of a run's images, by default exhaustively."""
    settings = _settings(manifest)
    shared = _shared_params(settings, manifest)
    words = [*_subject(settings), "--strategy", strategy or exhaustive(), *shared, "--save-errors"]
    return _typed(manifest, [*words, *_options(settings, _LEFT_OUT)])


def reproducing_command(manifest: Manifest) -> str:
    """Return the command that repeats a run: the same images, decided in the same way.

    A run with a risk that was calibrated on other images needs this calibration in the results
    folder.
    """
    settings = _settings(manifest)
    params = settings.get("params")
    params = params if isinstance(params, dict) else {}
    chosen = ["--strategy", manifest.strategy.name]
    if (stated := manifest.identity.calibrated) is not None:
        if stated.of is not None:  # where no setting passed, another strategy decided
            named = settings.get("strategy")
            chosen = ["--strategy", str(named)] if named else []
        chosen += ["--risk", f"{stated.risk:g}"]
    elif not manifest.replayed_from:
        params = {**_not_default(manifest.strategy), **params}
    chosen += [word for key, value in params.items() for word in ("--set", f"{key}={_text(value)}")]
    if manifest.replayed_from:
        more = ["--limit", str(settings["limit"])] if settings.get("limit") else []
        own = manifest.identity.scoring.weighting or UNIFORM
        if own != (settings.get("weighting") or UNIFORM) and not own.startswith("sha256 "):
            more += ["--weighting", own]  # another one than the recording's
        return shlex.join(["bench", "replay", manifest.replayed_from, *chosen, *more])
    errors = ["--save-errors"] if settings.get("save_errors") is True else []
    words = [*_subject(settings), *chosen, *errors, *_options(settings, _LEFT_OUT)]
    return _typed(manifest, words)


def other_images_command(manifest: Manifest, *more: str) -> str:
    """Return the command that scores other images of a run's dataset; `more`: further words."""
    settings = _settings(manifest)
    split = [] if settings.get("split") else ["--split", "OTHER"]
    shared = _shared_params(settings, manifest)
    options = [*split, *more, *shared, *_options(settings, _LEFT_OUT | {"split", "limit"})]
    return _typed(manifest, [*_subject(settings), *options])


def _typed(manifest: Manifest, words: list[str]) -> str:
    """Return a command; of a backbone that was in memory, what to call in Python with it."""
    if (thing := manifest.backbone.in_memory) is None:
        return shlex.join(words)
    arguments: dict[str, Any] = {}
    options = iter(words[3:])
    for word in options:
        name = word.removeprefix("--").replace("-", "_")
        if name == "set":
            key, _, value = next(options).partition("=")
            arguments.setdefault("params", {})[key] = _literal(value)
        elif isinstance(RunConfig.model_fields[name].default, bool):
            arguments[name] = True
        elif (value := next(options)) and name not in OF_HANDING_OVER:
            arguments[name] = _literal(value)
    called = "".join(f", {name}={value!r}" for name, value in arguments.items())
    source = f" from {thing['source']}" if thing.get("source") else ""
    chosen = "".join(f", {k}={v!r}" for k, v in (thing.get("handed_over_with") or {}).items())
    pipe = f"bench.load_backbone(pipe{chosen})" if chosen else "pipe"
    return f"bench.run({words[2]!r}, backbone={pipe}{called})  # pipe: {thing.get('class')}{source}"


def _literal(text: str) -> Any:
    with suppress(ValueError, SyntaxError):  # a text stays one
        return ast.literal_eval(text)
    return text


def stored_settings(manifest: Manifest) -> dict[str, Any]:
    """Return a run's settings without what is of its strategy alone, or of its machine.

    `params` has all parameters that the user named.
    """
    settings = _settings(manifest)
    _subject(settings)
    kept = {"dataset", "backbone", "params", *(set(RunConfig.model_fields) - _LEFT_OUT)}
    return {name: value for name, value in settings.items() if name in kept}


def _settings(manifest: Manifest) -> dict[str, Any]:
    """Return a run's settings; of a version without `guidance_null`, what it then did."""
    settings, scoring = manifest.config.plain(), manifest.identity.scoring
    if scoring.guidance is not None and scoring.guidance_null is None:
        settings["guidance_null"] = "cell"
    return settings


def _shared_params(settings: Mapping[str, object], manifest: Manifest) -> list[str]:
    """Return the parameters that a run of any strategy must share: draws, and the backbone's."""
    params, backbones = settings.get("params"), load_plugins().backbones
    name = manifest.backbone.name
    shared = {"draws", *(backbones.get(name).parameters if name in backbones else {})}
    chosen = params.items() if isinstance(params, dict) else ()
    return [w for key, value in chosen if key in shared for w in ("--set", f"{key}={_text(value)}")]


def _not_default(strategy: StrategyIdentity) -> dict[str, object]:
    """Return the parameters that are not at the strategy's default: a backbone may set some."""
    registry = load_plugins().strategies
    if strategy.name not in registry:
        return dict(strategy.params)
    spec, params = registry.get(strategy.name), strategy.params
    return {name: value for name, value in params.items() if not spec.is_default(name, value)}


def _subject(settings: dict[str, object]) -> list[str]:
    """Return the words that name dataset and backbone; a folder's path takes its name's place."""
    for kind, path in (("dataset", "data_dir"), ("backbone", "weights")):
        if settings.get(kind) == FOLDER and settings.get(path):
            settings[kind] = settings.pop(path)
    words = ["bench", "run", str(settings["dataset"])]
    if settings.get("backbone"):
        words += ["--backbone", str(settings["backbone"])]
    return words


def _options(settings: Mapping[str, object], left_out: Set[str]) -> list[str]:
    words: list[str] = []
    for name, field in RunConfig.model_fields.items():
        value, flag = settings.get(name), "--" + name.replace("_", "-")
        if name not in left_out and value is not None and value != field.default:
            values = value if isinstance(value, list) else [value]
            words += [flag] if value is True else [w for v in values for w in (flag, str(v))]
    return words


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def same_options(config: RunConfig, *more: str, **changes: str | None) -> str:
    """Return a command that scores, with the settings of a command that did something else."""
    return shlex.join(["bench", *run_command(config.model_copy(update=changes)), *more])


def run_command(config: RunConfig) -> list[str]:
    """Return the words after `bench` of a run, without `--shard`, `--fresh`, `--min-accuracy`."""
    params = [w for key, value in config.params.items() for w in ("--set", f"{key}={value}")]
    settings = {name: getattr(config, name) for name in RunConfig.model_fields}
    left_out = {"dataset", "params", "shard", "fresh", "min_accuracy"}
    return ["run", config.dataset, *params, *_options(settings, left_out)]
