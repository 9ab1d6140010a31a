"""`audit.jsonl`: what the full sweep decides of images that a run had decided for less."""

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
    """A line of `audit.jsonl`: an image of the run on which every prompt met every draw."""

    sample_id: str  # id of the image
    prediction: Count | None  # class that the full sweep decides; None: the sweep failed
    regret: Amount | None
    """Mean error, over all draws, of the run's class less that of the best; None: it failed."""
    evaluations: Evaluations  # forward passes of the sweep
    equivalents: Summed  # the same, in evaluation equivalents
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
    """Return the swept images of the run in a folder, by id; damaged lines are left out."""
    lines = read_lines(path / AUDIT, _is_swept)
    return {line["sample_id"]: Swept(**line) for _, _, line in lines}  # type: ignore[typeddict-item]


def permuted(sample_ids: Iterable[str], identity: str) -> list[str]:
    """Return ids in an order that is random and the run's own.

    The order of some ids does not depend on the others, so shards and whole runs agree on it.
    `identity` is the digest of the run's identity.
    """
    return sorted(
        sample_ids, key=lambda name: hashlib.sha256(f"{identity} {name}".encode()).digest()
    )
