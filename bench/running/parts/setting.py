"""Declarations of settings on their fields, and look-ups of registered names.

Help, scope checks, the options of `bench classify` and the identity of a run are derived from these
declarations, so that a setting appears only where it is defined and where it is used.
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


@dataclass(frozen=True)
class DeclaredSetting:
    """The declaration of a setting."""

    scorers: tuple[Scorer, ...] = ALL  # the kinds of backbones that use it
    identity: IdentityRole | None = None  # how it enters the identity; None if it does not
    shared: bool = False
    """Whether a study may set it for runs whose backbones do not use it; they ignore it with a
    note. Only settings of how a network runs, which do not change the result."""
    classify: bool = False  # whether it is an option of `bench classify`
    most_used: bool = False  # whether help lists it under "Most used"
    needs: str | None = None  # the setting without which it has no effect
    ability: str | None = None  # what strategies have that use it; others are refused

    @property
    def scope(self) -> str:
        """Kinds of backbones that use it, as text for messages and help."""
        return " and ".join(f"{scorer}s" for scorer in self.scorers)


class Chapter(BaseModel):
    """Base class of the settings of one help chapter: strict, frozen, docstrings become help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
    title: ClassVar[str]  # heading in help and documentation


def setting(
    scorers: tuple[Scorer, ...] = ALL,
    *,
    default: Any = None,
    identity: IdentityRole | None = None,
    shared: bool = False,
    classify: bool = False,
    most_used: bool = False,
    needs: str | None = None,
    ability: str | None = None,
    **limits: Any,
) -> Any:
    """Return a pydantic field with its declaration; `limits` are constraints such as `gt=0`."""
    declared = DeclaredSetting(scorers, identity, shared, classify, most_used, needs, ability)
    extra: Any = {DECLARED_KEY: declared}
    return Field(default, json_schema_extra=extra, **limits)


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


def default_of(registry: Registry[SpecT]) -> SpecT:
    """Return the registry's default spec."""
    if (spec := registry.default()) is not None:
        return spec
    kind = registry.spec_class.kind
    raise UserError(f"No plugin registers a default {kind}; choose one with --{kind}.")
