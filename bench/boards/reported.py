"""Results that others reported, each with its source: `reported.json`."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench.errors import UserError
from bench.store.fields import (
    Amount,
    Interval,
    Positive,
    Share,
    first_problem,
    read_json,
    with_metrics,
)

REPORTED = "reported.json"


def _one_line(text: str) -> str:
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in text):
        raise ValueError("it is one line, without control characters")
    return text


Line = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]


@with_metrics(required=False)
class _ReportedFigures(BaseModel):
    """What was scored, and how right it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Line  # the registered name
    split: Line  # split of the dataset
    version: Positive | None = None  # the version of the dataset's definition
    backbone: Line  # backbone that scored
    trained_on: Line | None = None  # `dataset/split`; null: zero-shot
    strategy: Line  # strategy that decided
    accuracy: Share  # the share of images whose prediction is right
    accuracy_ci95: Interval | None = None  # 95 % interval of the accuracy


class ReportedResult(_ReportedFigures):
    """One result from a paper or a report. Shares are from 0 to 1, never per cent."""

    n_samples: Positive | None = None  # images scored
    n_total: Positive | None = None  # images of the whole split
    evaluations_per_image: Amount | None = Field(None, gt=0)  # forward passes of the network
    source: Line = Field(min_length=10)  # who, where and when: enough to find it


def read_reported(path: Path) -> list[ReportedResult]:
    """Read a file that holds one reported result, or a list of them.

    UserError: it cannot be read, or an entry does not fit; the message names entry and field.
    """
    entries = read_json(path.parent, path.name)
    try:
        content = [entries] if isinstance(entries, dict) else entries
        return TypeAdapter(list[ReportedResult]).validate_python(content)
    except ValidationError as error:
        raise UserError(
            f"{path} does not hold reported results: {first_problem(error)}."
            " results/README.md shows an entry."
        ) from None
