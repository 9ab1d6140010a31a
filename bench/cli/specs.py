"""What `bench list` says of each spec: one row per kind of plugin, with the names that JSON has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from bench.contracts.protocols import ProtocolSpec
from bench.contracts.specs import BackboneSpec, DatasetSpec, Parameter, Spec
from bench.inputs.weights import locate

LAST = ("version", "summary", "runs")  # every row ends with these, after the parameters


@dataclass(frozen=True, kw_only=True)
class Row:
    """What every kind of spec has."""

    name: str
    parameters: Mapping[str, Parameter]
    version: int
    summary: str

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """Return the row of a spec."""
        return cls._made(spec)

    @classmethod
    def _made(cls, spec: Spec, **other: Any) -> Self:
        """Return a row of the spec's own fields, and of others that are not called as there."""
        names = [field.name for field in fields(cls) if hasattr(spec, field.name)]
        return cls(**{**{name: getattr(spec, name) for name in names}, **other})

    def plain(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        content = {field.name: _as_json(getattr(self, field.name)) for field in fields(self)}
        parameters = content.pop("parameters")
        last = {name: content.pop(name) for name in LAST if name in content}
        return {
            **content,
            "parameters": {name: each.default for name, each in parameters.items()},
            "help": {name: each.help for name, each in parameters.items()},
            **last,
        }


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


class StrategyRow(Row):
    """A strategy, or views of an image."""


@dataclass(frozen=True, kw_only=True)
class CollectionRow(Row):
    """A collection."""

    datasets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Row):
    """A dataset.

    Attributes:
        classes: how many there are; None: read from the data.
        evaluated: the split that is, unless the user names another.
        template: None of items, which have texts of their own.
        templates: how many templates each set has.
    """

    classes: int | None
    splits: Mapping[str, int | None]
    evaluated: str | None
    items: bool
    template: str | None
    backbone: str | None
    homepage: str
    source: str | None
    unverified: bool
    templates: Mapping[str, int]
    groups: tuple[str, ...]
    licence: str
    citation: str

    @classmethod
    def of_dataset(cls, spec: DatasetSpec) -> Self:
        """Return the row of a dataset."""
        return cls._made(
            spec,
            classes=len(spec.classes) if spec.classes else None,
            evaluated=spec.split,
            template=None if spec.items else spec.template,
            templates={name: len(texts) for name, texts in spec.templates.items()},
        )


@dataclass(frozen=True, kw_only=True)
class BackboneRow(Row):
    """A backbone; `weights` is the Hub id, or the absolute local folder."""

    kind: str
    weights: str | None
    revision: str | None
    trained_on: str | None
    family: str | None
    size: float | None
    encoder_size: float | None
    licence: str | None
    gated: bool
    resolution: int | None
    dtype: str
    flops: float | None
    template: str | None
    exposure: str | None
    telling: str | None
    requires: str | None
    pipelines: tuple[str, ...]
    plan: str
    strategy: str | None
    strategy_parameters: Mapping[str, Any]

    @classmethod
    def of_backbone(cls, spec: BackboneSpec) -> Self:
        """Return the row of a backbone."""
        weights = locate(spec.weights) if spec.weights else None
        return cls._made(spec, kind=spec.scorer, weights=weights)


@dataclass(frozen=True, kw_only=True)
class ProtocolRow(Row):
    """A protocol; `runs` are stored runs that repeat it."""

    settings: Mapping[str, Any]
    metric: str
    published: float | None
    images: int | None
    source: str
    differs: tuple[str, ...]
    runs: list[str]

    @classmethod
    def of_protocol(cls, spec: ProtocolSpec, runs: list[str]) -> Self:
        """Return the row of a protocol."""
        return cls._made(spec, runs=runs)
