"""Where a run is stored, what is stored with its decisions, and what one command does with it."""

from importlib.util import find_spec
from operator import attrgetter
from typing import Annotated

from pydantic import AfterValidator

from bench.errors import UserError
from bench.running.parts.declaration import WITH_DRAWS, Chapter, Parsed, Text, setting
from bench.stats.sequential.stopping_rules import StoppingRule, parse_question

TRACKERS = ("trackio", "wandb")  # packages, and extras that install them


def _is_tracker(value: str) -> str:
    if value.partition(":")[0] not in TRACKERS:
        raise ValueError(f"must be {' or '.join(TRACKERS)}, or with a project: wandb:birds")
    return value


Tracker = Annotated[Text, AfterValidator(_is_tracker)]


class RecordSettings(Chapter):
    """What is kept."""

    results: Text = setting("machine", default="results")
    """The folder that runs are stored in."""
    note: Text | None = setting("record")
    """A note that is shown with the run; it changes no results."""
    tag: Text | list[Text] | None = setting("record")
    """A tag to find runs by (`bench runs --tag`); repeat for more."""
    tracker: Tracker | list[Tracker] | None = setting("machine", of_split=True)
    """Log the run with trackio or wandb, as NAME or NAME:PROJECT (default project: bench); repeat
    for both."""
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
    until: Annotated[StoppingRule, Parsed(parse_question, attrgetter("text"))] | None = setting(
        "one run",
        excludes={
            "shard": "a shard does not see the results of the others",
            "limit": "the question ends the run, not a number of images",
            "sweep": "the swept images are not the first in its random order",
        },
    )
    """Score images in random order until a question is answered: "differs from RUN", "better than
    RUN by 0.02", "within 0.02 of RUN" or "width 0.05"."""
    fresh: bool = setting(
        "one run", default=False, excludes={"slurm": "each task of the script would start over"}
    )
    """Start over instead of resuming a stored run."""
    min_accuracy: float | None = setting("one run", ge=0, le=1)
    """Exit with code 4 if the accuracy is lower."""


def check_trackers(config: RecordSettings) -> None:
    """Raise UserError if a tracker of the run is not installed."""
    trackers = [config.tracker] if isinstance(config.tracker, str) else config.tracker or []
    for package in (tracker.partition(":")[0] for tracker in trackers):
        if find_spec(package) is None:
            raise UserError(
                f"--tracker {package}: it is not installed: pip install"
                f" 'diffusion-classifier-bench[{package}]'"
            )
