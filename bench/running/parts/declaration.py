"""The vocabulary in which a field of a chapter declares its setting: `setting(…)` and its types.

Settings themselves stand in the chapters. Help, checks, the options of commands, the identity of a
run, what runs share and what a suggested command repeats are queries over the declarations
(`settings`), so that a setting appears only where it is defined and where it is used.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from bench.contracts.parameters import Parameters, Spec
from bench.contracts.specs import BackboneSpec, Scorer
from bench.errors import UserError

T = TypeVar("T")

DENOISERS: tuple[Scorer, ...] = ("denoiser",)

WITH_DRAWS: tuple[Scorer, ...] = ("denoiser", "likelihood")

ALL: tuple[Scorer, ...] = ("denoiser", "classifier", "likelihood")

DECLARED_KEY = "declared"  # in the `json_schema_extra` of a field

About = Literal[
    "data", "images", "prompts", "network", "score", "strategy", "machine", "record", "one run"
]
"""What a setting decides. Two runs that differ in it alone share all that it does not decide.

    data      which images, labels and class names are read
    images    which of these images are scored, and what is done to their pixels
    prompts   which texts are encoded, and how
    network   which network is loaded, and how
    score     how the score of a class is measured
    strategy  which cells are evaluated
    machine   where the run takes place
    record    what is stored with the run
    one run   what one command does with the run

Runs share a dataset in memory, encoded prompts and a loaded network unless they differ in a setting
about it. A suggested command repeats the first five, and the file of a study has no `one run`.
"""

IdentityRole = Literal["scoring", "run", "precision", "half", "resolved", "content"]
"""How a setting enters the identity of a run.

    scoring    its value, under `scoring`; omitted at the default
    run        its value, at the top level; omitted at the default
    precision  its value, under `backbone`; omitted at the default
    half       as `precision`, but only in half precision: in float32 it changes no decision, only
               the last digits, as the batch size does
    resolved   what it resolves to, such as the registered name and the version
    content    a hash of what it refers to, not its name
"""

Mode = Literal["sweep", "slurm", "memory", "classes", "latents"]
"""What a setting can exclude besides other settings.

    sweep    the sweep that tests a stated risk
    slurm    a script that makes the shards of a run
    memory   a backbone that is an object of this process
    classes  names of classes instead of a dataset, in `bench classify`
    latents  views that are samples of the latent
"""


@dataclass(frozen=True)
class DeclaredSetting:
    """The declaration of a setting."""

    about: tuple[About, ...]  # what it decides; most settings decide one thing
    scorers: tuple[Scorer, ...] = ALL  # the kinds of backbones that use it
    identity: IdentityRole | None = None  # how it enters the identity; None if it does not
    of_split: bool = False  # whether it has an effect only where images of a split are scored
    commands: str = ""  # further commands that have it as an option, such as `study prompts`
    most_used: bool = False  # whether help lists it under "Most used"
    needs: str | None = None  # the setting without which it has no effect
    ability: str | None = None  # what strategies have that use it; others are refused
    passed_to: Literal["dataset", "backbone", "executor"] | None = None
    """The registered part that uses it as a parameter of the same name, if it declares one."""
    of_classes: bool = False  # whether it has no effect on items, which have texts of their own
    learns: bool | None = None
    """Whether it has an effect only on backbones that learn (True), or only on others (False)."""
    excludes: Mapping[str, str] = field(default_factory=dict)
    """Settings and modes that it cannot be combined with → the reason. `setting=value` excludes one
    value only, with parameters (`value:…`) or without."""
    fits: Callable[..., None] | None = None
    """Raises ValueError if it does not fit the settings that are the names of its parameters."""
    methods: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Its value, or "" for any, → the optional method of a backbone's class that it needs."""
    shared: bool = False
    """Whether a study may have it for some of its runs: those that do not use it ignore it with a
    note, provided that others use it or that it is an axis. A single run refuses it."""

    def is_for(self, backbone: BackboneSpec) -> bool:
        """Return whether the kind of a backbone uses it."""
        return backbone.scorer in self.scorers

    @property
    def in_classify(self) -> bool:
        """Whether it has an effect on images without a split, which `bench classify` scores."""
        return not (self.of_split or {"record", "one run"} & {*self.about})

    @property
    def is_resolved(self) -> bool:
        """Whether the identity has what its value stands for instead of the value."""
        return self.identity in ("resolved", "content")

    @property
    def scope(self) -> str:
        """Kinds of backbones that use it, as text for messages and help."""
        return " and ".join(f"{scorer}s" for scorer in self.scorers)


class Chapter(BaseModel):
    """The settings of one part of a run, as the user set them, validated but not resolved.

    The docstring of a subclass is the title of its chapter in help.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, defer_build=True
    )


def setting(*about: About, default: Any = None, **options: Any) -> Any:
    """Return a pydantic field with its declaration.

    `options` are fields of `DeclaredSetting`, and constraints of the value such as `gt=0`.
    """
    own = options.keys() & {field.name for field in fields(DeclaredSetting)}
    declared = DeclaredSetting(about, **{name: options.pop(name) for name in own})
    extra: Any = {DECLARED_KEY: declared}
    return Field(default, json_schema_extra=extra, **options)


def setting_of(field: FieldInfo) -> DeclaredSetting:
    """Return the declaration of a field."""
    extra: Any = field.json_schema_extra
    declared: DeclaredSetting = extra[DECLARED_KEY]
    return declared


def help_of(field: FieldInfo) -> str:
    """Return a field's help; if not all kinds of backbones use it, it names those that do."""
    text, setting = " ".join(str(field.description).split()), setting_of(field)
    return text if setting.scorers == ALL else f"{text} [for {setting.scope}]"


def _from_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _with_slash(value: Any) -> Any:
    """Return the text of a path with a slash in it, so that it is not taken for a name."""
    text = _from_path(value)
    return f"./{text}" if isinstance(value, os.PathLike) and "/" not in text else text


def _is_text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, got an unpaired surrogate") from None
    return value


Text = Annotated[str, BeforeValidator(_from_path), AfterValidator(_is_text)]
NameOrPath = Annotated[str, BeforeValidator(_with_slash), AfterValidator(_is_text)]


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """Marks the type of a setting that is parsed from text once, and written as text again.

    `parse` raises ValueError or UserError for an invalid text; `written` inverts it.
    """

    parse: Callable[[str], T]
    written: Callable[[T], str] = str

    def __get_pydantic_core_schema__(self, kind: Any, handler: Any) -> CoreSchema:
        """Return a schema that accepts the text, or a value that was parsed before."""

        def value_of(value: object) -> object:
            text = _from_path(value)
            if not isinstance(text, str | kind):
                raise ValueError("must be a text")
            return self.parse(_is_text(text)) if isinstance(text, str) else value

        return core_schema.no_info_plain_validator_function(
            value_of,
            serialization=core_schema.plain_serializer_function_ser_schema(self.written),
        )


def option(name: str) -> str:
    """Return the option of a setting: `--data-dir`."""
    return "--" + name.replace("_", "-")


def passed_to(spec: Spec, settings: Chapter) -> Parameters:
    """Return the settings that a dataset, backbone or executor gets as parameters (UserError)."""
    chosen: Parameters = {}
    for name, declared in type(settings).model_fields.items():
        value = getattr(settings, name)
        if setting_of(declared).passed_to == spec.kind and value is not None:
            if name not in spec.parameters:
                kind = spec.kind.capitalize()
                raise UserError(f"{kind} {spec.name!r} does not support {option(name)}.")
            chosen[name] = value
    return chosen
