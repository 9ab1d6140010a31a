"""What is kept of a run, and where."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from bench.errors import UserError
from bench.running.parts.setting import WITH_DRAWS, Chapter, Text, setting
from bench.stats.questions import parse_question


class KeepSettings(Chapter):
    """The results of a run."""

    title = "What is kept"

    results: Text = setting(default="results", classify=True)
    """The folder that runs are stored in."""
    note: Text | None = setting()
    """A sentence about the run, shown with it; it changes no number."""
    tag: Text | list[Text] | None = setting()
    """A word by which runs are found (`bench runs --tag`); repeat for more."""
    save_errors: bool = setting(default=False)
    """Keep the error of every cell evaluated."""
    again: int | None = setting(WITH_DRAWS, gt=0, lt=2**31)
    """Decide N of the images, chosen at random, again with other noise: measures how many answers
    it would change. No record changes."""
    audit: int | None = setting(WITH_DRAWS, gt=0, lt=2**31)
    """Also sweep N images, chosen at random among those with fewer evaluations, with every prompt
    on every draw: measures how many decisions are the full sweep's. No record changes."""
    until: Text | None = setting()
    """Score images in random order until this is answered: "differs from RUN", "better than RUN by
    0.02", "within 0.02 of RUN" or "width 0.05"."""
    fresh: bool = setting(default=False)
    """Start over instead of resuming a stored run."""
    min_accuracy: float | None = setting(ge=0, le=1)
    """Exit with 4 when the accuracy is lower."""

    @field_validator("until")
    @classmethod
    def _is_question(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        try:
            parse_question(value)
        except UserError as error:
            raise ValueError(str(error).removeprefix("--until ")) from None
        for name, why in (
            ("shard", "a shard does not know what the others have decided"),
            ("limit", "the question ends the run, not a number of images"),
        ):
            if info.data.get(name) is not None:
                raise ValueError(f"does not go with --{name}: {why}")
        return value

    @field_validator("again")
    @classmethod
    def _has_other_noise(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("noise"):
            raise ValueError("there is no other noise, where --noise gives it")
        if value is not None and info.data.get("shard"):
            raise ValueError("a shard is a part of a run: merge the parts first")
        return value
