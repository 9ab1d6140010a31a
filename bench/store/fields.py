"""Stored JSON: the base of documents, their kinds of values, and how files are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import from_json

from bench.contracts.metrics import METRICS
from bench.errors import UserError
from bench.machine.files import read_bytes, regular_file

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
Model = TypeVar("Model", bound=BaseModel)


class Figures:
    """A document with the metrics of the registry, which are its attributes too."""

    def figure(self, metric: str) -> float | None:
        """Return the value of a metric; None: it has none."""
        value: float | None = getattr(self, metric, None)
        return value


def with_metrics(required: bool) -> Callable[[type[Model]], type[Model]]:
    """Return a decorator that adds a field for each metric that a document does not declare.

    If `required`, metrics that every summary has are required.
    """

    def decorate(model: type[Model]) -> type[Model]:
        fields: dict[str, Any] = {}
        for name, metric in METRICS.items():
            low, high = metric.range
            value = Annotated[float, Field(strict=True, ge=low, le=high, allow_inf_nan=False)]
            if name in model.model_fields:
                continue
            if required and metric.required:
                fields[name] = (value, Field(description=metric.meaning))
            else:
                fields[name] = (value | None, Field(None, description=metric.meaning))
        return create_model(
            model.__name__,
            __base__=model,
            __module__=model.__module__,
            __doc__=model.__doc__,
            **fields,
        )

    return decorate


def without_none(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: a document leaves out what does not apply."""
    return {name: value for name, value in fields.items() if value is not None}


def to_json(value: Any) -> str:
    """Return indented JSON that ends with a newline."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def first_problem(error: ValidationError) -> str:
    """Return the first problem in one line, such as `dataset.n_total: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def read_json(root: Path, name: str, most: int = MAX_JSON_BYTES) -> Any:
    """Return the content of the JSON file `name` in a folder.

    UserError: it is absent, not a regular file inside the folder, larger than `most` bytes, or not
    JSON, which has no NaN and no infinity.
    """
    file = regular_file(root, name)
    if file is None:
        raise UserError(f"There is no file {root / name}.")
    try:
        return from_json(read_bytes(file, most), allow_inf_nan=False)
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
