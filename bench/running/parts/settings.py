"""`RunConfig`, all settings of a run, and queries about them.

Each part of a run declares its own. The options of the command line, the `BENCH_*` variables, the
config file, the manifest and the docs are all derived from `RunConfig`. Precedence: option >
variable > file > default.
"""

from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError, did_you_mean, quoted, refusing
from bench.machine.files import read_toml
from bench.running.parts.data import DataSettings
from bench.running.parts.decision import DecisionSettings
from bench.running.parts.declaration import (
    About,
    Chapter,
    DeclaredSetting,
    IdentityRole,
    Mode,
    option,
    setting_of,
)
from bench.running.parts.machine import MachineSettings
from bench.running.parts.measure import MeasureSettings
from bench.running.parts.model import ModelSettings
from bench.running.parts.record import RecordSettings
from bench.running.parts.texts import TextSettings
from bench.store.formats.documents import StoredConfig

SCORER_TEXT = {
    "denoiser": "is a denoiser",
    "classifier": "is a classifier, which scores images directly",
    "likelihood": "is a likelihood, which returns errors itself",
}


class RunConfig(  # in the opposite order of help, because the fields of the last base come first
    RecordSettings,
    MachineSettings,
    DecisionSettings,
    MeasureSettings,
    ModelSettings,
    TextSettings,
    DataSettings,
):
    """All settings of a run."""


PARTS: tuple[type[Chapter], ...] = RunConfig.__bases__[::-1]

SETTINGS: dict[str, DeclaredSetting] = {
    name: setting_of(field) for name, field in RunConfig.model_fields.items()
}
Values = dict[str, Any]  # values of settings by name, not validated
# Settings → their defaults, as stored runs have them.
DEFAULTS: Values = RunConfig(dataset="-").model_dump()

# Setting → its value that only stored runs have; None: the setting itself was removed.
REMOVED: dict[str, str | None] = {"guidance_null": None, "template_rule": "spread"}


def removed_message(name: str, value: object) -> str | None:
    """Return the message about a removed setting, or value of it.

    None if it was not removed, or `value` is None, which means that it is not set.
    """
    if value is None or name not in REMOVED or REMOVED[name] not in (None, value):
        return None
    words = " ".join([option(name), *filter(None, [REMOVED[name]])])
    return (
        f"{words} was removed. Stored runs with it are shown, compared and ranked, but cannot be"
        " resumed."
    )


def check_name(name: str, value: object) -> None:
    """Raise UserError if there is no such setting, or it or this value of it was removed."""
    if message := removed_message(name, value):
        raise UserError(message)
    if name not in SETTINGS:
        raise UserError(
            f"Unknown setting {name!r}.{did_you_mean(name, SETTINGS)} `bench run --help-all` lists"
            " all settings."
        )


def chapters() -> Iterator[tuple[str, list[str]]]:
    """Yield the title of each help chapter and its settings; the most used settings come first."""
    yield "Most used", [name for name in SETTINGS if SETTINGS[name].most_used]
    for part in PARTS:
        names = [name for name in part.model_fields if not SETTINGS[name].most_used]
        yield str(part.__doc__).removesuffix("."), [name for name in names if name != "dataset"]


def about(*subjects: About) -> tuple[str, ...]:
    """Return the settings that decide one of these, in the order of help."""
    return tuple(name for name, setting in SETTINGS.items() if {*subjects} & {*setting.about})


def options_of(command: str) -> tuple[str, ...]:
    """Return the settings that declare a command other than `bench run` as theirs."""
    return tuple(n for n, setting in SETTINGS.items() if command in setting.commands.split())


def loading_settings(config: RunConfig) -> tuple[tuple[str, object], ...]:
    """Return the settings of how a network is loaded, whose values stand for nothing else."""
    names = (name for name in about("network") if not SETTINGS[name].is_resolved)
    return tuple((name, getattr(config, name)) for name in names)


def key_of(config: RunConfig, *subjects: About) -> str:
    """Return a text that is equal for runs with the same settings about these subjects."""
    return repr([getattr(config, name) for name in about(*subjects)])


def changed(config: RunConfig) -> Values:
    """Return the settings that differ from their defaults."""
    return {
        name: value
        for name, field in RunConfig.model_fields.items()
        if (value := getattr(config, name)) != field.get_default(call_default_factory=True)
    }


def identity_settings(config: RunConfig, *roles: IdentityRole) -> Values:
    """Return the settings that enter the identity as `roles` by their value, without defaults."""
    return {
        name: value for name, value in changed(config).items() if SETTINGS[name].identity in roles
    }


def make_config(settings: Mapping[str, Any]) -> RunConfig:
    """Return validated settings; None means the default.

    Raises UserError for an invalid one, or one that has no effect without another.
    """
    for name, value in settings.items():
        check_name(name, value)
    try:
        config = RunConfig(**{key: value for key, value in settings.items() if value is not None})
    except ValidationError as error:
        # The deepest one, because a list that is invalid fits neither a text nor a list.
        first = max(error.errors(include_url=False), key=lambda problem: len(problem["loc"]))
        problem = first["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
        shown = quoted(first["input"], 60)
        raise UserError(f"{option(str(first['loc'][0]))}: {problem} (got {shown}).") from None
    _check_together(config)
    return config


def _check_together(config: RunConfig) -> None:
    """Raise UserError if a setting does not fit another one, or has no effect without another."""
    chosen, texts = changed(config), config.model_dump()
    for name in chosen:
        declared = SETTINGS[name]
        if declared.needs is not None and declared.needs not in chosen:
            raise UserError(f"{option(name)} has no effect without {option(declared.needs)}.")
        for excluded, why in declared.excludes.items():
            other, _, value = excluded.partition("=")
            if other in chosen and value in ("", str(texts[other]).partition(":")[0]):
                words = f"{option(other)} {value}".strip()
                raise UserError(f"{option(name)} and {words} exclude each other: {why}.")
        if declared.fits is not None:
            values = (getattr(config, other) for other in signature(declared.fits).parameters)
            with refusing(f"{option(name)}: ", ValueError):
                declared.fits(*values)


def check_mode(config: RunConfig, mode: Mode, words: str) -> None:
    """Raise UserError if a changed setting excludes a mode, which the message calls `words`."""
    for name in changed(config):
        if (why := SETTINGS[name].excludes.get(mode)) is not None:
            raise UserError(f"{words} and {option(name)} exclude each other: {why}.")


def data_config(stored: StoredConfig) -> RunConfig:
    """Return the settings with which a stored run read its data; others may have been removed."""
    content = stored.plain()
    return make_config({name: content.get(name) for name in (*about("data"), "offline")})


def read_config_file(path: Path) -> Values:
    """Return the settings of a TOML file, not yet validated; parameters are in a table `[params]`.

    Raises UserError if the file does not exist, is not TOML, or has an unknown setting.
    """
    if not path.is_file():
        raise UserError(f"--config: {path} does not exist.")
    settings = read_toml(path, "--config")
    with refusing(f"--config {path}: ", UserError, after=""):
        for name, value in settings.items():
            check_name(name, value)
    return settings
