"""`again.json`: some images of a run, decided again with other noise. It changes no record."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from bench.errors import UserError
from bench.machine.files import write_atomically
from bench.store.decisions import Decisions
from bench.store.fields import Amount, Count, Document, Positive, first_problem
from bench.store.files import read_json
from bench.store.folder import to_json

AGAIN = "again.json"
AGAIN_FORMAT = 1


class Again(Document):
    """Number of decisions that other noise changed, among images chosen at random."""

    format: Count
    """Format version."""
    of: Positive
    """Decided images of the run among which the images were chosen."""
    images: Positive
    """Images decided again."""
    changed: list[str]
    """Ids of the images that were decided otherwise."""
    expected: Amount
    """Estimated number of the run's decisions that an independent run makes otherwise."""
    expected_ci95: tuple[Amount, Amount]
    """Its exact 95 % interval, over the choice of the images and their second noise."""
    seed: Count
    """Seed of the second noise. Each image has noise of its own."""
    evaluations: Count
    """Forward passes of the network that this took."""
    evaluation_equivalents: Amount
    """The same, with gradients counted in evaluations."""
    seconds: Amount
    """Scoring time."""


def read_again(path: Path, decided: Decisions) -> Again | None:
    """Return what a run's folder holds; None where that is not about as many decided images.

    Args:
        path: the folder.
        decided: the images that are asked about.

    Raises:
        UserError: the file is damaged.
    """
    if not (path / AGAIN).exists():
        return None
    try:
        stored = Again.model_validate(read_json(path, AGAIN))
    except ValidationError as error:
        raise UserError(f"{path / AGAIN} is damaged: {first_problem(error)}.") from None
    return stored if stored.of == int((~decided.failed).sum()) else None


def write_again(path: Path, again: Again) -> None:
    """Write it into a run's folder."""
    write_atomically(path / AGAIN, to_json(again.plain()))
