"""What the parts share: what is declared of a setting on its field, and names of registered things.

Help, refusals, the options of `bench classify` and the share of a setting in a run's identity are
derived from here, so that a setting is written down where it is defined and where it is used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from bench.contracts.specs import Scorer
from bench.discovery.registry import Registry, SpecT
from bench.errors import UserError
from bench.machine.files import path_exists

DENOISERS: tuple[Scorer, ...] = ("denoiser",)
WITH_DRAWS: tuple[Scorer, ...] = ("denoiser", "likelihood")
ALL: tuple[Scorer, ...] = ("denoiser", "classifier", "likelihood")
DECLARED_KEY = "declared"  # in the `json_schema_extra` of a field

Share = Literal["scoring", "run", "precision", "half", "resolved", "content"]
"""How a setting enters the identity of a run.

    scoring    its value, in the part about errors; left out at the default
    run        its value, beside the parts; left out at the default
    precision  its value, in the part about the backbone; left out at the default
    half       as `precision`, but only in half precision: in float32 it moves the last digits, as
               the batch size does, and no decision
    resolved   what it stands for, which the run's parts say
    content    the content of what it names, not its name
"""


@dataclass(frozen=True)
class DeclaredSetting:
    """The declaration of a setting."""

    scorers: tuple[Scorer, ...] = ALL  # the kinds of backbones that read it
    identity: Share | None = None  # how it enters the identity; None: not at all
    shared: bool = False
    """Whether a study may give it to runs that do not read it, which ignore it with a note: it
    changes how a network runs, and not the result."""
    classify: bool = False  # whether `bench classify` has it
    most_used: bool = False  # whether help shows it first

    @property
    def scope(self) -> str:
        """Kinds of backbones that read it, in words."""
        return " and ".join(f"{scorer}s" for scorer in self.scorers)


class Chapter(BaseModel):
    """The settings of one chapter, each above its help; never changed after they are read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
    title: ClassVar[str]  # title in help and documents


def setting(
    scorers: tuple[Scorer, ...] = ALL,
    *,
    default: Any = None,
    identity: Share | None = None,
    shared: bool = False,
    classify: bool = False,
    most_used: bool = False,
    **limits: Any,
) -> Any:
    """Return a field with its declaration and pydantic's limits on its value."""
    declared = DeclaredSetting(scorers, identity, shared, classify, most_used)
    extra: Any = {DECLARED_KEY: declared}
    return Field(default, json_schema_extra=extra, **limits)


def setting_of(field: FieldInfo) -> DeclaredSetting:
    """Return the declaration of a field."""
    extra: Any = field.json_schema_extra
    declared: DeclaredSetting = extra[DECLARED_KEY]
    return declared


def help_of(field: FieldInfo) -> str:
    """Return a field's help, with the kinds of backbones that read it."""
    text, setting = " ".join(str(field.description).split()), setting_of(field)
    return text if setting.scorers == ALL else f"{text} [for {setting.scope}]"


def _from_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain the character NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not text: it contains half of a surrogate pair") from None
    return value


Text = Annotated[str, BeforeValidator(_from_path), AfterValidator(_is_text)]


def is_path(name: str) -> bool:
    """Return whether a name is a path: it has a slash, or is `.` or `..`."""
    return "/" in name or "\\" in name or name in (".", "..")


def registered(registry: Registry[SpecT], name: str) -> SpecT:
    """Return the spec of a name; the error shows how to write a file of that name."""
    try:
        return registry.get(name)
    except UserError as error:
        if path_exists(name):
            raise UserError(
                f"{error}\nFor the folder or file of that name, write ./{name}"
            ) from None
        raise


def default_of(registry: Registry[SpecT]) -> SpecT:
    """Return the default spec of a kind."""
    if (spec := registry.default()) is not None:
        return spec
    kind = registry.kind.kind
    raise UserError(f"No {kind} is marked as the default; name one with --{kind}.")
