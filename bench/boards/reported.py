"""Results that others reported, each with its source: `reported.json`."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench.errors import UserError

REPORTED = "reported.json"


class ReportedResult(BaseModel):
    """One result from a paper or a report. Shares are from 0 to 1, never per cent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(min_length=1)
    split: str = Field(min_length=1)
    version: int | None = Field(None, ge=1)
    backbone: str = Field(min_length=1)
    trained_on: str | None = Field(None, description="dataset/split; null: zero-shot")
    strategy: str = Field(min_length=1)
    accuracy: float = Field(ge=0, le=1)
    accuracy_ci95: tuple[float, float] | None = None
    precision_weighted: float | None = Field(None, ge=0, le=1)
    recall_weighted: float | None = Field(None, ge=0, le=1)
    f1_weighted: float | None = Field(None, ge=0, le=1)
    n_samples: int | None = Field(None, ge=1)
    n_total: int | None = Field(None, ge=1, description="images of the split")
    evaluations_per_image: float | None = Field(None, gt=0)
    source: str = Field(min_length=10, description="who, where, when: enough to find it")


def read_reported(path: Path) -> list[ReportedResult]:
    """Read a file that holds one reported result, or a list of them.

    Raises:
        UserError: it cannot be read, or an entry does not fit; the message names entry and field.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} does not hold reported results: {error}.") from None
    entries = [entries] if isinstance(entries, dict) else entries
    try:
        return TypeAdapter(list[ReportedResult]).validate_python(entries)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path} does not hold reported results: {place}: {first['msg']}."
            " results/README.md shows an entry."
        ) from None
