"""The settings of a run: the parts together, each setting defined once.

The command line's options, the `BENCH_*` variables, the config file, the manifest and the docs
are all made from `RunConfig`. Precedence: option > variable > file > default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.contracts.specs import BackboneSpec, Scorer
from bench.errors import UserError, did_you_mean, quoted
from bench.machine.files import read_toml
from bench.running.parts.data import DataSettings
from bench.running.parts.decision import DecisionSettings, QuestionSettings
from bench.running.parts.keep import KeepSettings
from bench.running.parts.measure import MeasureSettings
from bench.running.parts.place import PlaceSettings
from bench.running.parts.scorer import ScorerSettings
from bench.running.parts.setting import Chapter, DeclaredSetting, Share, setting_of

WHY = {
    "denoiser": "is a denoiser",
    "classifier": "is a classifier, which scores images directly",
    "likelihood": "is a likelihood, which returns errors itself",
}


class RunConfig(
    KeepSettings,
    PlaceSettings,
    DecisionSettings,
    MeasureSettings,
    ScorerSettings,
    QuestionSettings,
    DataSettings,
):
    """The settings of a run, as they were read."""


# pydantic lists the fields of the last base first, and so does help.
CHAPTERS: tuple[type[Chapter], ...] = RunConfig.__bases__[::-1]

SETTINGS: dict[str, DeclaredSetting] = {
    name: setting_of(field) for name, field in RunConfig.model_fields.items()
}


def chapters() -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the settings of each chapter of help, the most used first."""
    yield "Most used", [name for name in SETTINGS if SETTINGS[name].most_used]
    for part in CHAPTERS:
        names = [name for name in part.model_fields if not SETTINGS[name].most_used]
        yield part.title, [name for name in names if name != "dataset"]


def changed(config: RunConfig) -> dict[str, Any]:
    """Return the settings that are not at their default."""
    return {
        name: value
        for name, field in RunConfig.model_fields.items()
        if (value := getattr(config, name)) != field.get_default(call_default_factory=True)
    }


def identity_share(config: RunConfig, *shares: Share) -> dict[str, Any]:
    """Return the settings, defaults left out, that enter a part of the identity by their value."""
    return {
        name: value for name, value in changed(config).items() if SETTINGS[name].identity in shares
    }


def unread(config: RunConfig, scorer: Scorer) -> list[str]:
    """Return the settings that are not at their default and that a kind of backbone ignores."""
    return [name for name in changed(config) if scorer not in SETTINGS[name].scorers]


def check_scope(config: RunConfig, spec: BackboneSpec, name: str) -> None:
    """Refuse settings other than their default that the backbone `name` ignores (UserError)."""
    for setting in unread(config, spec.scorer):
        raise UserError(
            f"--{setting.replace('_', '-')} is for {SETTINGS[setting].scope}. Backbone {name!r}"
            f" {WHY[spec.scorer]}."
        )


def without_unread(
    config: RunConfig, scorer: Scorer, scorers: Set[Scorer]
) -> tuple[RunConfig, list[str]]:
    """Return a run's settings without those that only others of its study read, and their names.

    `scorers` are the kinds of backbones of all runs of the study.
    """
    left_out = [
        name
        for name in unread(config, scorer)
        if SETTINGS[name].shared and not scorers.isdisjoint(SETTINGS[name].scorers)
    ]
    defaults = {name: RunConfig.model_fields[name].default for name in left_out}
    return config.model_copy(update=defaults), left_out


def make_config(settings: Mapping[str, Any]) -> RunConfig:
    """Validate settings (UserError); None stands for the default."""
    for key in settings:
        if key not in RunConfig.model_fields:
            raise UserError(
                f"Unknown setting {key!r}.{did_you_mean(key, RunConfig.model_fields)}"
                " `bench run --help-all` shows all of them."
            )
    try:
        return RunConfig(**{key: value for key, value in settings.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "--" + str(first["loc"][0]).replace("_", "-")
        problem = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise UserError(f"{name}: {problem} (given: {quoted(first['input'], 60)}).") from None


def read_config_file(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, parameters in a table `[params]` (UserError)."""
    if not path.is_file():
        raise UserError(f"--config: there is no file {path}.")
    settings = read_toml(path, "--config")
    for key in settings:
        if key not in RunConfig.model_fields:
            raise UserError(
                f"--config: {path} has the unknown setting {key!r}."
                f"{did_you_mean(key, RunConfig.model_fields)}"
            )
    return settings
