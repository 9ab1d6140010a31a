"""Settings of the results: where they are stored, what is kept and checked."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from bench.errors import UserError
from bench.running.parts.setting import WITH_DRAWS, Chapter, Text, setting
from bench.stats.questions import parse_question


class KeepSettings(Chapter):
    """Settings of the results."""

    title = "What is kept"

    results: Text = setting(default="results", classify=True)
    """The folder that runs are stored in."""
    note: Text | None = setting()
    """A note that is shown with the run; it changes no results."""
    tag: Text | list[Text] | None = setting()
    """A tag to find runs by (`bench runs --tag`); repeat for more."""
    save_errors: bool = setting(default=False)
    """Store the error of every evaluated cell (image, draw, prompt)."""
    again: int | None = setting(WITH_DRAWS, gt=0, lt=2**31)
    """Decide N randomly chosen images again with other noise, to measure how many decisions change.
    Stored results stay as they are."""
    audit: int | None = setting(WITH_DRAWS, gt=0, lt=2**31)
    """Also run a full sweep (every prompt on every draw) on N random images among those that took
    fewer evaluations, to measure how many decisions agree. Stored results stay as they are."""
    until: Text | None = setting()
    """Score images in random order until a question is answered: "differs from RUN", "better than
    RUN by 0.02", "within 0.02 of RUN" or "width 0.05"."""
    fresh: bool = setting(default=False)
    """Start over instead of resuming a stored run."""
    min_accuracy: float | None = setting(ge=0, le=1)
    """Exit with code 4 if the accuracy is lower."""

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
            ("shard", "a shard does not see the results of the others"),
            ("limit", "the question ends the run, not a number of images"),
        ):
            if info.data.get(name) is not None:
                raise ValueError(f"does not go with --{name}: {why}")
        return value

    @field_validator("again")
    @classmethod
    def _can_be_repeated(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("noise"):
            raise ValueError("does not go with --noise, which fixes the noise")
        if value is not None and info.data.get("shard"):
            raise ValueError("does not go with --shard: merge the shards first")
        return value
