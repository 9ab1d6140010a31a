"""The command that makes a run, for messages: it works as printed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Set
from typing import Any

from bench.discovery.loading import exhaustive, load_plugins
from bench.inputs.data import FOLDER
from bench.running.settings import RunConfig
from bench.store.documents import Manifest
from bench.store.identity import StrategyIdentity

UNIFORM = "uniform"
_OWN = {"dataset", "backbone", "strategy", "params", "risk", "save_errors", "again", "fresh"}
_OWN |= {"min_accuracy"}
_OF_THE_MACHINE = {"results", "offline", "device", "batch_size", "compile", "layout", "attention"}
_OF_THE_MACHINE |= {"executor", "workers", "ray_address"}
_LEFT_OUT = _OWN | _OF_THE_MACHINE | {"shard"}


def recording_command(manifest: Manifest, strategy: str | None = None) -> str:
    """Return the command that scores a run's images again and records every error.

    Args:
        manifest: the run's manifest.
        strategy: one that scores every prompt on every draw; None: the exhaustive one.
    """
    given = manifest.config.plain()
    kept = _kept(given, manifest)
    words = [*_subject(given), "--strategy", strategy or exhaustive(), *kept, "--save-errors"]
    return shlex.join([*words, *_options(given, _LEFT_OUT)])


def reproducing_command(manifest: Manifest) -> str:
    """Return the command that makes a run again: the same images, decided in the same way.

    A run with a stated risk needs the calibration that it was made with in its results folder.
    """
    given = manifest.config.plain()
    params = given.get("params")
    params = params if isinstance(params, dict) else {}
    chosen = ["--strategy", manifest.strategy.name]
    if (stated := manifest.identity.calibrated) is not None:
        chosen += ["--risk", f"{stated.risk:g}"]
    elif not manifest.replayed_from:
        params = {**_not_default(manifest.strategy), **params}
    chosen += [word for key, value in params.items() for word in ("--set", f"{key}={_text(value)}")]
    if manifest.replayed_from:
        more = ["--limit", str(given["limit"])] if given.get("limit") else []
        own = manifest.identity.scoring.weighting or UNIFORM
        if own != (given.get("weighting") or UNIFORM) and not own.startswith("sha256 "):
            more += ["--weighting", own]  # another one than the recording's
        return shlex.join(["bench", "replay", manifest.replayed_from, *chosen, *more])
    errors = ["--save-errors"] if given.get("save_errors") is True else []
    return shlex.join([*_subject(given), *chosen, *errors, *_options(given, _LEFT_OUT)])


def other_images_command(manifest: Manifest, *more: str) -> str:
    """Return the command that scores other images of a run's dataset with its settings.

    Args:
        manifest: the run's manifest. Where it is of the default split, another has to be named.
        more: further words, such as a strategy.
    """
    given = manifest.config.plain()
    split = [] if given.get("split") else ["--split", "OTHER"]
    kept = _kept(given, manifest)
    options = [*split, *more, *kept, *_options(given, _LEFT_OUT | {"split", "limit"})]
    return shlex.join([*_subject(given), *options])


def _kept(given: Mapping[str, object], manifest: Manifest) -> list[str]:
    """Return the parameters that any strategy's run must share: the draws, and the backbone's."""
    params, backbones = given.get("params"), load_plugins().backbones
    name = manifest.backbone.name
    shared = {"draws", *(backbones.get(name).parameters if name in backbones else {})}
    chosen = params.items() if isinstance(params, dict) else ()
    return [w for key, value in chosen if key in shared for w in ("--set", f"{key}={_text(value)}")]


def _not_default(strategy: StrategyIdentity) -> dict[str, object]:
    """Return the parameters that are not at the strategy's default: a backbone may set some."""
    known = load_plugins().strategies
    defaults = known.get(strategy.name).parameters if strategy.name in known else {}
    return {
        name: value
        for name, value in strategy.params.items()
        if name not in defaults
        or defaults[name].default != (tuple(value) if isinstance(value, list) else value)
    }


def _subject(given: dict[str, object]) -> list[str]:
    """Return the words that name dataset and backbone; takes them from the settings."""
    words = ["bench", "run", _name(given, "dataset", "data_dir")]
    if given.get("backbone"):
        words += ["--backbone", _name(given, "backbone", "weights")]
    return words


def _options(given: Mapping[str, object], left_out: Set[str]) -> list[str]:
    """Return the options of settings that are not at their default."""
    words: list[str] = []
    for name, field in RunConfig.model_fields.items():
        value, flag = given.get(name), "--" + name.replace("_", "-")
        if name not in left_out and value is not None and value != field.default:
            values = value if isinstance(value, list) else [value]
            words += [flag] if value is True else [w for v in values for w in (flag, str(v))]
    return words


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def run_command(config: RunConfig) -> list[str]:
    """Return the words after `bench` that make a run with these settings, wherever they are from.

    `--shard`, `--fresh` and `--min-accuracy` are left out.
    """
    params = [w for key, one in config.params.items() for w in ("--set", f"{key}={one}")]
    given = {name: getattr(config, name) for name in RunConfig.model_fields}
    left_out = {"dataset", "params", "shard", "fresh", "min_accuracy"}
    return ["run", config.dataset, *params, *_options(given, left_out)]


def _name(given: dict[str, object], kind: str, path: str) -> str:
    """Return a dataset's or backbone's name; of a folder its path, which is then no option."""
    if given[kind] == FOLDER and given.get(path):
        return str(given.pop(path))
    return str(given[kind])
