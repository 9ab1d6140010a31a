"""What `bench list` says of each spec: one row per kind of plugin, with the names that JSON has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bench.contracts.specs import Parameter, Spec
from bench.inputs.weights import locate

LAST = ("version", "summary", "runs")  # every row ends with these, after the parameters

Number = int | float  # as the plugin wrote it


def _sizes(templates: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    return {name: len(texts) for name, texts in templates.items()}


class Row(BaseModel):
    """What every kind of spec has."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    name: str
    parameters: Mapping[str, Parameter]
    version: int
    summary: str

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """Return the row of a spec."""
        return cls.model_validate(spec)

    def plain(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        content = self.model_dump(exclude={"parameters"})
        last = {name: content.pop(name) for name in LAST if name in content}
        return {
            **content,
            "parameters": {name: each.default for name, each in self.parameters.items()},
            "help": {name: each.help for name, each in self.parameters.items()},
            **last,
        }


class StrategyRow(Row):
    """A strategy, or views of an image."""


class CollectionRow(Row):
    """A collection."""

    datasets: list[str]


class DatasetRow(Row):
    """A dataset."""

    classes: Annotated[int | None, BeforeValidator(lambda names: len(names) if names else None)]
    """How many there are; None: read from the data."""
    splits: dict[str, int | None]
    evaluated: str | None = Field(validation_alias="split")
    items: bool
    template: str | None
    """None of items, which have texts of their own."""
    backbone: str | None
    homepage: str
    source: str | None
    unverified: bool
    templates: Annotated[dict[str, int], BeforeValidator(_sizes)]
    """How many templates each set has."""
    groups: list[str]
    licence: str
    citation: str

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """Return the row of a dataset."""
        row = super().of(spec)
        return row.model_copy(update={"template": None}) if row.items else row


class BackboneRow(Row):
    """A backbone."""

    kind: str = Field(validation_alias="scorer")
    weights: Annotated[str | None, BeforeValidator(lambda said: locate(said) if said else None)]
    """The Hub id, or the absolute local folder."""
    revision: str | None
    trained_on: str | None
    family: str | None
    size: Number | None
    encoder_size: Number | None
    licence: str | None
    gated: bool
    resolution: int | None
    dtype: str
    flops: Number | None
    template: str | None
    exposure: str | None
    telling: str | None
    requires: str | None
    pipelines: list[str]
    plan: str
    strategy: str | None
    strategy_parameters: dict[str, Any]


class ProtocolRow(Row):
    """A protocol."""

    settings: dict[str, Any]
    metric: str
    published: Number | None
    images: int | None
    source: str
    differs: list[str]
    runs: list[str] = []
    """Stored runs that repeat it."""
