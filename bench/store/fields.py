"""What documents are made of: their base, and kinds of numbers, names and intervals."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

MAX_INT = 2**63 - 1  # columns of numbers hold no more

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
    """A document, or a part of one; nobody changes it. Fields it does not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    def plain(self) -> dict[str, Any]:
        """Return what JSON holds of it: every field that was given, and no other."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class FullDocument(Document):
    """A document of which JSON holds every field, also those that were not given."""

    def plain(self) -> dict[str, Any]:
        """Return what JSON holds of it: every field."""
        return self.model_dump(mode="json")


def without_none(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: a document leaves out what does not apply."""
    return {name: value for name, value in fields.items() if value is not None}


def first_problem(error: ValidationError) -> str:
    """Return in one line what does not fit, such as `dataset.n_total: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
