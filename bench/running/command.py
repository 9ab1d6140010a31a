"""The command that makes a run, for messages: it works as printed."""

from __future__ import annotations

import shlex
from typing import Any

from bench.running.settings import RunConfig
from bench.store.documents import Manifest

FOLDER = "folder"  # the dataset and the backbone of a path
_OWN = {"dataset", "backbone", "strategy", "params", "save_errors", "fresh", "min_accuracy"}
_OF_THE_MACHINE = {"results", "offline", "device", "batch_size", "compile", "layout", "attention"}
_LEFT_OUT = _OWN | _OF_THE_MACHINE | {"shard"}


def recording_command(manifest: Manifest, strategy: str = "full") -> str:
    """Return the command that scores a run's images again and records every error.

    Args:
        manifest: the run's manifest.
        strategy: a strategy that scores every prompt on every draw.
    """
    given = manifest.config.plain()
    words = ["bench", "run", _name(given, "dataset", "data_dir")]
    if given.get("backbone"):
        words += ["--backbone", _name(given, "backbone", "weights")]
    words += ["--strategy", strategy, "--save-errors"]
    for name, field in RunConfig.model_fields.items():
        value = given.get(name)
        if name not in _LEFT_OUT and value is not None and value != field.default:
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)


def run_command(config: RunConfig) -> list[str]:
    """Return the words after `bench` that make a run with these settings, wherever they are from.

    `--shard`, `--fresh` and `--min-accuracy` are left out.
    """
    words = ["run", config.dataset]
    for name, field in RunConfig.model_fields.items():
        value, flag = getattr(config, name), "--" + name.replace("_", "-")
        if name == "params":
            words += [word for key, one in value.items() for word in ("--set", f"{key}={one}")]
        elif name not in ("dataset", "shard", "fresh", "min_accuracy") and value != field.default:
            values = value if isinstance(value, list) else [value]
            words += [flag] if value is True else [w for v in values for w in (flag, str(v))]
    return words


def _name(given: dict[str, Any], kind: str, path: str) -> str:
    """Return a dataset's or backbone's name; of a folder its path, which is then no option."""
    if given[kind] == FOLDER and given.get(path):
        return str(given.pop(path))
    return str(given[kind])
