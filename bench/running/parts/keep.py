"""Settings of the results: where they are stored, what is kept and checked."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated

from bench.running.parts.setting import WITH_DRAWS, Chapter, Parsed, Text, setting
from bench.stats.questions import StopQuestion, parse_question


class KeepSettings(Chapter):
    """Settings of the results."""

    title = "What is kept"

    results: Text = setting("machine", default="results")
    """The folder that runs are stored in."""
    note: Text | None = setting("record")
    """A note that is shown with the run; it changes no results."""
    tag: Text | list[Text] | None = setting("record")
    """A tag to find runs by (`bench runs --tag`); repeat for more."""
    save_errors: bool = setting("record", default=False, commands="study")
    """Store the error of every evaluated cell (image, draw, prompt)."""
    again: int | None = setting(
        "one run",
        scorers=WITH_DRAWS,
        excludes={"noise": "the file fixes the noise", "shard": "merge the shards first"},
        gt=0,
        lt=2**31,
    )
    """Decide N randomly chosen images again with other noise, to measure how many decisions change.
    Stored results stay as they are."""
    audit: int | None = setting("one run", scorers=WITH_DRAWS, gt=0, lt=2**31)
    """Also run a full sweep (every prompt on every draw) on N random images among those that took
    fewer evaluations, to measure how many decisions agree. Stored results stay as they are."""
    until: Annotated[StopQuestion, Parsed(parse_question, attrgetter("text"))] | None = setting(
        "one run",
        excludes={
            "shard": "a shard does not see the results of the others",
            "limit": "the question ends the run, not a number of images",
        },
    )
    """Score images in random order until a question is answered: "differs from RUN", "better than
    RUN by 0.02", "within 0.02 of RUN" or "width 0.05"."""
    fresh: bool = setting("one run", default=False)
    """Start over instead of resuming a stored run."""
    min_accuracy: float | None = setting("one run", ge=0, le=1)
    """Exit with code 4 if the accuracy is lower."""
