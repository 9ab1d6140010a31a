"""What is kept of a run, and where."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from bench.running.parts.setting import WITH_DRAWS, Chapter, Text, setting


class KeepSettings(Chapter):
    """The results of a run."""

    title = "What is kept"

    results: Text = setting("results", "The folder that runs are stored in.", classify=True)
    save_errors: bool = setting(False, "Keep the error of every cell evaluated.")
    again: int | None = setting(
        None,
        "Decide N of the images, chosen at random, again with other noise: measures how many"
        " answers it would change. No record changes.",
        WITH_DRAWS,
        gt=0,
        lt=2**31,
    )
    fresh: bool = setting(False, "Start over instead of resuming a stored run.")
    min_accuracy: float | None = setting(
        None, "Exit with 4 when the accuracy is lower.", ge=0, le=1
    )

    @field_validator("again")
    @classmethod
    def _has_other_noise(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("noise"):
            raise ValueError("there is no other noise, where --noise gives it")
        if value is not None and info.data.get("shard"):
            raise ValueError("a shard is a part of a run: merge the parts first")
        return value
