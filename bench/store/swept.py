"""`audit.jsonl`: results of the full sweep on images that a run decided with fewer evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from bench.store.fields import Amount, Count
from bench.store.journal import read_lines
from bench.store.records import Evaluations, Summed

AUDIT = "audit.jsonl"


class Swept(TypedDict):
    """A line of `audit.jsonl`: an image of the run, with every prompt evaluated on every draw."""

    sample_id: str  # id of the image
    prediction: Count | None  # class that the full sweep predicts; None: the sweep failed
    regret: Amount | None
    """Score of the run's class minus the lowest, over all draws; None: the sweep failed."""
    evaluations: Evaluations  # forward passes of the sweep
    equivalents: Summed  # cost of the sweep, in evaluation equivalents
    seconds: Summed  # scoring time


@cache
def _adapter() -> TypeAdapter[Swept]:
    return TypeAdapter(Swept)


def _is_swept(value: Any) -> bool:
    try:
        _adapter().validate_python(value)
    except ValidationError:
        return False
    return True


def read_swept(path: Path) -> dict[str, Swept]:
    """Return the lines of a run's audit by sample id, without damaged lines; `path`: its folder."""
    lines = read_lines(path / AUDIT, _is_swept)
    return {line["sample_id"]: Swept(**line) for _, _, line in lines}  # type: ignore[typeddict-item]


def permuted(sample_ids: Iterable[str], identity: str) -> list[str]:
    """Return the ids in a pseudo-random order, which `identity` alone decides.

    `identity` is the digest of the run's identity. The order of two ids does not depend on the
    other ids, so a shard has its ids in the same order as the whole run.
    """
    return sorted(
        sample_ids, key=lambda name: hashlib.sha256(f"{identity} {name}".encode()).digest()
    )
