"""Stored JSON: the base of documents, their kinds of values, and how files are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, from_json

from bench.discovery.loading import metric_specs
from bench.errors import UserError
from bench.machine.files import read_bytes, regular_file, write_atomically

MAX_INT = 2**63 - 1  # the largest int64, as columns hold them
MAX_JSON_BYTES = 500_000_000  # a manifest of a million samples has about 50 million

Int = Annotated[int, Field(strict=True, ge=-MAX_INT, le=MAX_INT)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_INT)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MAX_INT)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("the lower end comes first")
    return ends


def _folder_name(name: str) -> str:
    if name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError("a run's id is the name of one folder")
    return name


Interval = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
RunId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_folder_name)]


class Document(BaseModel):
    """An immutable document, or a part of one. Unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    def plain(self) -> dict[str, Any]:
        """Return the content for JSON: every field that was set, and no other."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class FullDocument(Document):
    """A document whose JSON holds every field, defaults included."""

    def plain(self) -> dict[str, Any]:
        """Return the content for JSON: every field."""
        return self.model_dump(mode="json")


AnyDocument = TypeVar("AnyDocument", bound=Document)


class Figures(BaseModel):
    """A document with the metrics of the registry, which are its attributes too.

    Those that it does not declare stand after its `accuracy_ci95`.
    """

    every_run: ClassVar[bool] = False  # whether it has what the summary of every run has
    model_config = ConfigDict(frozen=True, extra="allow")

    def figure(self, metric: str) -> float | None:
        """Return the value of a metric; None: it has none."""
        value: float | None = getattr(self, metric, None)
        return value

    def summary_figures(self) -> dict[str, float | None]:
        """Return the value of every metric that summaries hold."""
        return {n: self.figure(n) for n, metric in metric_specs().items() if metric.in_summaries}

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        extra = self.__pydantic_extra__ or {}
        for name, metric in metric_specs().items():
            value, (low, high) = self.figure(name), metric.range
            problem = None
            if value is None and self.every_run and metric.required:
                problem = f"{name}: a number is needed"
            elif value is not None and not (_is_number(value) and low <= value <= high):
                problem = f"{name}={value!r} is not a number from {low:g} to {high:g}"
            if problem:
                raise PydanticCustomError("metric", "{problem}", {"problem": problem})
        if unknown := [name for name in extra if self.refuses(name)]:
            problem = f"{unknown[0]} is no field and no metric"
            raise PydanticCustomError("metric", "{problem}", {"problem": problem})
        return self

    @classmethod
    def refuses(cls, name: str) -> bool:
        """Return whether a field that is not declared is refused."""
        return False

    @model_serializer(mode="wrap")
    def _in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        full = isinstance(self, FullDocument)
        figures = {
            name: content.pop(name, None)
            for name, metric in metric_specs().items()
            if name not in type(self).model_fields
            and (name in content or (full and metric.in_summaries))
        }
        return after(content, "accuracy_ci95", figures)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema of the declared fields and the metrics, for the documentation."""
        core: dict[str, Any] = dict(core_schema)
        core["schema"] = {k: v for k, v in core["schema"].items() if k != "serialization"}
        reference = handler(cast("CoreSchema", core))
        schema = handler.resolve_ref_schema(reference)
        figures = {}
        for name, metric in metric_specs().items():
            if name in schema["properties"] or not metric.in_summaries:
                continue
            low, high = metric.range
            number = {"type": "number", "minimum": low, "maximum": high}
            needed = cls.every_run and metric.required
            kind = number if needed else {"anyOf": [number, {"type": "null"}], "default": None}
            figures[name] = {**kind, "description": metric.summary}
            if needed:
                schema["required"].append(name)
        schema["properties"] = after(schema["properties"], "accuracy_ci95", figures)
        return reference


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def after(content: Mapping[str, Any], name: str, added: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with fields added behind the field `name`."""
    ordered: dict[str, Any] = {}
    for field, value in content.items():
        ordered[field] = value
        if field == name:
            ordered |= added
    return {**ordered, **added}


def without_none(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: a document leaves out what does not apply."""
    return {name: value for name, value in fields.items() if value is not None}


def to_json(value: Any) -> str:
    """Return indented JSON that ends with a newline."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_document(path: Path, document: Document, durable: bool = True) -> None:
    """Write a document into a file at once (OSError); see `write_atomically`."""
    write_atomically(path, to_json(document.plain()), durable)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def is_valid(value: Any, kind: Any) -> bool:
    """Tell whether a value is valid as a type, such as a typed dictionary."""
    try:
        _adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def first_problem(error: ValidationError) -> str:
    """Return the first problem in one line, such as `dataset.n_total: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def read_json(root: Path, name: str) -> Any:
    """Return the content of the JSON file `name` in a folder.

    UserError: it is absent, not a regular file inside the folder, larger than 500 MB, or not JSON,
    which has no NaN and no infinity.
    """
    file = regular_file(root, name)
    if file is None:
        raise UserError(f"There is no file {root / name}.")
    try:
        return from_json(read_bytes(file, MAX_JSON_BYTES), allow_inf_nan=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{root / name} cannot be read: {error}.") from None


def read_document(
    model: type[AnyDocument],
    root: Path,
    name: str,
    *,
    what: str,
    newest: int | None = None,
    advice: str = "",
    migrated: Callable[[dict[str, Any]], Any] = dict,
) -> AnyDocument:
    """Return the document in the file `name` of a folder.

    `what` is what the file should be, for the message: `a study`; `newest` the highest format that
    is known, None if the document has none; `advice` a sentence after the problem; `migrated`
    brings the content of an earlier format to today's. UserError: as `read_json`; or the content is
    invalid, or of a newer format.
    """
    try:
        content = read_json(root, name)
    except UserError as error:
        raise UserError(f"{error} {advice}".rstrip()) from None
    if isinstance(content, dict):
        written = content.get("format")
        if newest is not None and isinstance(written, int) and written > newest:
            raise UserError(
                f"{root / name} was written by a newer version of the toolkit (format {written},"
                f" this one knows {newest}). Update with: pip install -U diffusion-classifier-bench"
            )
        content = migrated(content)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        message = f"{root / name} is not {what}: {first_problem(error)}. {advice}"
        raise UserError(message.rstrip()) from None
