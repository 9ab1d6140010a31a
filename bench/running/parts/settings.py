"""`RunConfig` (all settings of a run), its checks and queries; `Names` (the objects it refers to).

`RunConfig` joins the chapters of the parts. The options of the command line, the `BENCH_*`
variables, the config file, the manifest and the docs are all derived from it. Precedence: option >
variable > file > default.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, DatasetSpec
from bench.contracts.strategy import Ints
from bench.discovery.backbones import code_of
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError, did_you_mean, quoted, refusing
from bench.inputs.data import DataSource
from bench.inputs.draws import DrawPlan
from bench.machine.files import read_toml
from bench.running.parts.data import DataSettings
from bench.running.parts.decision import ConfiguredStrategy, DecisionSettings, StatedRisk
from bench.running.parts.declaration import (
    About,
    Chapter,
    DeclaredSetting,
    IdentityRole,
    Mode,
    option,
    setting_of,
)
from bench.running.parts.machine import MachineSettings, RunPrecision
from bench.running.parts.measure import MeasureSettings, ResolvedViews
from bench.running.parts.model import BackboneSource, ModelSettings
from bench.running.parts.record import RecordSettings
from bench.running.parts.texts import TextSettings, find_template
from bench.store.formats.documents import StoredConfig


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

    def changed(self) -> "Values":
        """Return the settings that differ from their defaults."""
        return {
            name: value
            for name, field in type(self).model_fields.items()
            if (value := getattr(self, name)) != field.get_default(call_default_factory=True)
        }

    def in_identity(self, *roles: IdentityRole) -> "Values":
        """Return the settings that enter the identity as `roles` by value, except at defaults."""
        changed = self.changed()
        return {name: changed[name] for name in changed if SETTINGS[name].identity in roles}

    def loading(self) -> tuple[tuple[str, object], ...]:
        """Return those settings of how a network is loaded that take effect as they are written."""
        names = (name for name in about("network") if not SETTINGS[name].is_resolved)
        return tuple((name, getattr(self, name)) for name in names)

    def key_of(self, *subjects: About) -> str:
        """Return a text that is equal for runs with the same settings about these subjects."""
        return repr([getattr(self, name) for name in about(*subjects)])

    def check_mode(self, mode: Mode, words: str) -> None:
        """Raise UserError if a changed setting excludes a mode, which the message calls `words`."""
        for name in self.changed():
            if (why := SETTINGS[name].excludes.get(mode)) is not None:
                raise UserError(f"{words} and {option(name)} exclude each other: {why}.")

    def check_together(self) -> None:
        """Raise UserError if a setting does not fit another one, or has no effect without one."""
        chosen, texts = self.changed(), self.model_dump()
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
                values = (getattr(self, other) for other in signature(declared.fits).parameters)
                with refusing(f"{option(name)}: ", ValueError):
                    declared.fits(*values)


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


def check_name(name: str, value: object, others: Iterable[str] = ()) -> None:
    """Raise UserError if there is no such setting, or it or this value of it was removed.

    `others` are further names that the user may have meant.
    """
    if message := removed_message(name, value):
        raise UserError(message)
    if name not in SETTINGS:
        close = did_you_mean(name, [*SETTINGS, *others])
        raise UserError(
            f"Unknown setting {name!r}.{close} `bench run --help-all` lists all settings."
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
    config.check_together()
    return config


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


@dataclass(frozen=True, kw_only=True)
class Names:
    """The settings of a run with the specs, strategy and views that they refer to by name.

    No file of images or weights is read for them: enough for a study's grid and most refusals.
    """

    config: RunConfig  # settings as the user set them
    data: DataSource  # where the images are, and how they are read
    source: BackboneSource  # the backbone, and the weights that the user named
    backbone_parameters: Parameters  # all of the backbone's parameters
    precision: RunPrecision  # as far as neither the class nor the files of the weights decide it
    decider: ConfiguredStrategy
    plan: DrawPlan  # noise levels and pairs of the draws
    views: ResolvedViews | None  # views of an image; None for the image alone

    @property
    def dataset(self) -> DatasetSpec:
        """Spec of the dataset."""
        return self.data.spec

    @property
    def backbone(self) -> BackboneSpec:
        """Spec of the backbone."""
        return self.source.spec

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy that decides the images."""
        return self.decider.strategy

    @property
    def backbone_key(self) -> tuple[object, ...]:
        """What is loaded, and how: runs with equal keys can share a backbone.

        Name, version, code, precision, parameters and settings of the loading, and last the
        weights, as the settings name them.
        """
        spec, config = self.backbone, self.config
        return (
            (spec.name, spec.version, code_of(spec), self.precision.options()),
            tuple(sorted((name, repr(v)) for name, v in self.backbone_parameters.items())),
            config.loading(),
            (self.source.weights, config.revision, self.source.file, *self.source.loras),
        )

    @property
    def n_draws(self) -> int:
        """Number of draws, N."""
        return 1 if self.backbone.one_draw else int(self.decider.parameters["draws"])

    @property
    def batch_size(self) -> int | None:
        """The user's batch size; None if it is automatic."""
        return None if self.config.batch_size == "auto" else self.config.batch_size

    def view_of_draw(self) -> Ints | None:
        """Return int64 [N], the view of each draw; None without views; see `of_draws`."""
        return None if self.views is None else self.views.of_draws(self.n_draws, self.plan)

    def without_risk(self) -> RunConfig:
        """Return the settings with `risk` replaced by the strategy and parameters it has chosen."""
        if self.config.risk is None:
            return self.config
        params = {**self.config.params, **self.decider.parameters}
        changes = {"risk": None, "strategy": self.decider.spec.name, "params": params}
        return self.config.model_copy(update=changes)

    def stated_risk(self) -> StatedRisk | None:
        """Return the risk that the settings state for the strategy; None if they do not."""
        config = self.config
        if config.risk is None:
            return None
        return StatedRisk(config.risk, self.decider, config.params, Path(config.results))

    def recorded_settings(self) -> Values:
        """Return the settings for the manifest, with resolved names."""
        return {
            **self.config.model_dump(),
            "dataset": self.data.name,
            "data_dir": self.data.data_dir,
            "backbone": self.source.weights if self.source.file else self.backbone.name,
            "weights": self.source.file or self.source.weights,
            **self.precision.settings(),
            "template": find_template(self.config, self.backbone),
        }
