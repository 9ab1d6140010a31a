"""Base classes and field types of the JSON documents that are stored, and their files."""

import json
from collections.abc import Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeGuard

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError, from_json
from typing_extensions import override

from bench.discovery.queries import metric_specs
from bench.errors import UserError, refusing
from bench.machine.files import read_bytes, regular_file

MAX_INT = 2**63 - 1  # largest int64, since numpy columns hold these values
MAX_JSON_BYTES = 500_000_000  # ten times the manifest of a million samples

Int = Annotated[int, Field(strict=True, ge=-MAX_INT, le=MAX_INT)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_INT)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MAX_INT)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the lower end must come first, got {ends[0]:g} and {ends[1]:g}")
    return ends


def _folder_name(name: str) -> str:
    if name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError("the id of a run must be a valid folder name")
    return name


Interval = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
RunId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_folder_name)]


class Document(BaseModel):
    """An immutable document, or a part of one. Unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, defer_build=True)

    def plain(self) -> dict[str, JsonValue]:
        """Return the content for JSON: only the fields that were set."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class FullDocument(Document):
    """A document whose JSON holds every field, defaults included."""

    @override
    def plain(self) -> dict[str, JsonValue]:
        return self.model_dump(mode="json")


class MetricFields(BaseModel):
    """A document with a field for each registered metric, after the field `accuracy_ci95`."""

    every_run: ClassVar[bool] = False  # whether metrics required of every run must have a value
    model_config = ConfigDict(frozen=True, extra="allow")

    def metric(self, name: str) -> float | None:
        """Return the value of a metric, None if it has none."""
        value: float | None = getattr(self, name, None)
        return value

    def summary_metrics(self) -> dict[str, float | None]:
        """Return the value of each metric that belongs to summaries."""
        metrics = metric_specs().values()
        return {m.name: self.metric(m.name) for m in metrics if m.in_summaries}

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for name, metric in metric_specs().items():
            value, (low, high) = self.metric(name), metric.range
            needed = self.every_run and metric.required and not metric.of_classes
            if value is None and not needed:
                continue
            if not (_is_number(value) and low <= value <= high):
                problem = f"{name} must be a number from {low:g} to {high:g}, got {value!r}"
                raise PydanticCustomError("metric", "{problem}", {"problem": problem})
        if unknown := [n for n in self.__pydantic_extra__ or {} if self.rejects_field(n)]:
            problem = f"{unknown[0]} is neither a field nor a metric"
            raise PydanticCustomError("metric", "{problem}", {"problem": problem})
        return self

    @classmethod
    def rejects_field(cls, name: str) -> bool:
        """Return whether an undeclared field is rejected. By default, all are kept."""
        return False

    @model_serializer(mode="wrap")
    def _in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        content: dict[str, JsonValue] = handler(self)
        full = isinstance(self, FullDocument)
        metrics = {
            name: content.pop(name, None)
            for name, metric in metric_specs().items()
            if name not in type(self).model_fields
            and (name in content or (full and metric.in_summaries))
        }
        return insert_after(content, "accuracy_ci95", metrics)


def insert_after(
    content: dict[str, JsonValue], name: str, more: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Return the content with more entries after the one of this name, else at the end."""
    pairs = list(content.items())
    place = 1 + list(content).index(name) if name in content else len(pairs)
    return dict([*pairs[:place], *more.items(), *pairs[place:]])


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def without_none(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None, because documents omit fields that do not apply."""
    return {name: value for name, value in fields.items() if value is not None}


def to_json(value: Any) -> str:
    """Return indented JSON that ends with a newline."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def validated(value: Any, type_: Any, what: str) -> Any:
    """Return a value as an instance of a type (ValueError "is not `what`", and why)."""
    try:
        return _adapter(type_).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"is not {what}: {first_problem(error)}") from None


def is_valid(value: Any, type_: Any) -> bool:
    """Return whether pydantic accepts a value as an instance of a type, such as a TypedDict."""
    try:
        _adapter(type_).validate_python(value)
    except ValidationError:
        return False
    return True


def first_problem(error: ValidationError) -> str:
    """Return the first problem as one line, such as `dataset.n_total: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def read_json(root: Path, name: str) -> Any:
    """Return the content of the JSON file `name` in the folder `root`.

    Raises UserError if it is absent, not a regular file inside the folder, larger than 500 MB, or
    not valid JSON. NaN and infinity are not valid.
    """
    file = regular_file(root, name)
    if file is None:
        raise UserError(f"There is no file {root / name}.")
    with refusing(f"{root / name} cannot be read: ", OSError, ValueError):
        return from_json(read_bytes(file, MAX_JSON_BYTES), allow_inf_nan=False)


def check_format(content: Any, newest: int, file: Path) -> None:
    """Raise UserError if the content of a file has a newer format than this version supports."""
    written = content.get("format") if isinstance(content, dict) else None
    if isinstance(written, int) and written > newest:
        raise UserError(
            f"{file} was written by a newer version of the toolkit (format {written}; this version"
            f" supports at most {newest}). Update with: pip install -U diffusion-classifier-bench"
        )
