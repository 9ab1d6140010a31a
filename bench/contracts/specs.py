"""Specs: what a plugin says of a dataset, a backbone or a strategy without importing it.

A spec is a few strings and numbers, so that listing and planning cost nothing. The class behind
it, named by `target`, is imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite, isnan
from types import UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from bench.errors import UserError, did_you_mean

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a strategy or backbone: its default, its type and a line of help."""

    default: Any
    help: str = ""
    type: type | None = None

    def parse(self, value: Any) -> Any:
        """Convert `value` (text from a command line, or a Python value) to the parameter's type.

        Raises:
            ValueError: `value` does not fit.
        """
        if value is None or value == self.default:
            return self.default
        if isinstance(self.default, tuple):
            items = value.split(",") if isinstance(value, str) else list(value)
            element = type(self.default[0]) if self.default else str
            return tuple(element(item.strip() if isinstance(item, str) else item) for item in items)
        wanted = self.type or (str if self.default is None else type(self.default))
        if wanted is bool and isinstance(value, str):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                value.lower()
            ]
        if wanted is int and isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{value} is not a whole number")
        converted = wanted(value)
        if isinstance(converted, float) and isnan(converted):
            raise ValueError("nan is no number")
        return converted


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every registration says.

    Attributes:
        name: the word on the command line: lower case letters, digits, `.`, `_`, `-`.
        target: `"package.module:Class"`, imported on first use.
        summary: one line for listings.
        version: raise it when results change; it enters the identity of every run.
        extra: the pip extra that the target needs, if any, for the message when it is missing.
        parameters: name → default value or `Parameter`.
        owner: the plugin that registered it, for messages; filled in by the toolkit.

    Raises:
        ValueError: a field is of another type, or makes no sense.
    """

    kind: ClassVar[str]

    name: str
    target: str
    summary: str = ""
    version: int = 1
    extra: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    owner: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for declared in fields(self):
            value = getattr(self, declared.name)
            if not _fits(value, types[declared.name]):
                raise ValueError(
                    f"{self.kind} {self.name!r}: {declared.name}={value!r} is not of the type"
                    f" {declared.type}"
                )
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.kind} name {self.name!r}: use lower case letters, digits, '.', '_' and '-'"
            )
        if not _TARGET.fullmatch(self.target):
            raise ValueError(
                f"{self.kind} {self.name!r}: target {self.target!r} is not 'package.module:Class'"
            )
        parameters = {
            key: value if isinstance(value, Parameter) else Parameter(value)
            for key, value in self.parameters.items()
        }
        object.__setattr__(self, "parameters", parameters)

    @property
    def label(self) -> str:
        """What a message calls it, its plugin included."""
        return f"{self.kind} {self.name!r}" + (f" ({self.owner})" if self.owner else "")

    def resolve_parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return every parameter with its value: the given ones, converted, over the defaults.

        Raises:
            UserError: a parameter that is unknown or does not convert.
        """
        values = {key: parameter.default for key, parameter in self.parameters.items()}
        for key, value in given.items():
            if key not in self.parameters:
                known = ", ".join(sorted(self.parameters)) or "none"
                raise UserError(
                    f"{self.kind} {self.name!r} has no parameter {key!r}."
                    f"{did_you_mean(key, self.parameters)} It has: {known}."
                )
            try:
                values[key] = self.parameters[key].parse(value)
            except (ValueError, TypeError, KeyError, OverflowError):
                default = self.parameters[key].default
                raise UserError(
                    f"{self.kind} {self.name!r}: {key}={value!r} does not fit;"
                    f" a value like {_as_text(default)} is wanted."
                ) from None
        return values


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset: its classes and splits, and how its images are described in words.

    Attributes:
        classes: readable class names in label order; None: read from the data.
        phrases: class name → what stands for `{class}` in a template, such as `an airplane`.
        template: the prompt template.
        splits: split name → number of images (None where unknown).
        split: the split that is evaluated unless the user names another.
        backbone: the default backbone's name.
        homepage: where the data comes from.
    """

    kind: ClassVar[str] = "dataset"

    classes: tuple[str, ...] | None = None
    phrases: Mapping[str, str] = field(default_factory=dict)
    template: str = "a photo of a {class}"
    splits: Mapping[str, int | None] = field(default_factory=dict)
    split: str | None = None
    backbone: str | None = None
    homepage: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.classes, list):
            object.__setattr__(self, "classes", tuple(self.classes))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(Spec):
    """A backbone: what it is, where its weights lie, what it has seen.

    Attributes:
        scorer: `denoiser` (a diffusion model) or `classifier` (scores directly, as CLIP does).
        weights: a Hub id, `package:folder` inside an installed package, or None: the user's.
        revision: the Hub revision.
        trained_on: `dataset/split` that the weights were trained on; None: zero-shot.
        strategy: the default strategy's name; None: the toolkit's.
        strategy_parameters: its parameters.
        plan: its draw plan: the noise levels at which it tells prompts apart.
        flops: floating-point operations of one evaluation, for the plan.
        default: used where neither the user nor the dataset names a backbone.
    """

    kind: ClassVar[str] = "backbone"

    scorer: Literal["denoiser", "classifier"] = "denoiser"
    weights: str | None = None
    revision: str | None = None
    trained_on: str | None = None
    strategy: str | None = None
    strategy_parameters: Mapping[str, Any] = field(default_factory=dict)
    plan: str = "grid"
    flops: float | None = None
    default: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flops is not None and not (self.flops > 0 and isfinite(self.flops)):
            raise ValueError(f"{self.kind} {self.name!r}: flops={self.flops} is not above 0")


@dataclass(frozen=True, kw_only=True)
class StrategySpec(Spec):
    """A strategy; `default` marks the one that is used where nobody names another."""

    kind: ClassVar[str] = "strategy"

    default: bool = False


def _fits(value: Any, wanted: Any) -> bool:
    """Tell whether a value is of a field's type, which is one of the few that specs use."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(item, inner[1]) for key, item in value.items()
        )
    if wanted is Any:
        return True
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, int | float if wanted is float else wanted)


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
