"""Results of a run: `summary.json`, `again.json` and `audit.jsonl`.

`summary.json` has metrics and cost. `again.json` reports how many decisions change with other
noise. `audit.jsonl` has the full sweep of images that the run decided with fewer evaluations.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from typing_extensions import TypedDict

from bench.errors import warn_user
from bench.store.formats.decisions import Decisions, read_decisions
from bench.store.formats.documents import BackboneInfo, Data, Fitted, GenerationCost, Manifest
from bench.store.formats.fields import (
    Amount,
    Count,
    Document,
    Interval,
    MetricFields,
    Positive,
    RunId,
    Share,
    without_none,
)
from bench.store.formats.identity import StrategyIdentity, digest
from bench.store.formats.journal import JOURNAL, Evaluations, Summed, has_changed_decisions
from bench.store.locking import locked
from bench.store.questions import QuestionAnswer
from bench.store.sidecar import Sidecar


class ScoredData(Data):
    """The images that a summary covers."""

    n_samples: Positive  # number of images decided


class Group(Document):
    """Accuracy on the images of one group."""

    group: str  # name of the group
    n: Positive  # number of images
    accuracy: Share
    accuracy_ci95: Interval  # 95 % interval of this group's accuracy, for one group at a time


class WorstGroup(Group):
    """The group of images with the lowest accuracy. Its own interval forgets that it was chosen."""

    groups: Positive | None = None  # number of groups; None in summaries of early versions
    lowest_ci95: Interval | None = None
    """95 % interval of the lowest accuracy of all groups, whichever has it; None as above."""


class Metrics(MetricFields, Document):
    """Metrics of the decisions. Versions before the first release wrote no macro averages."""

    every_run = True

    accuracy: Share  # share of images whose prediction is right; failed images count as wrong
    accuracy_ci95: Interval
    """95 % interval of the accuracy: Wilson's, or that of a score test over `about_images`"""
    about_images: Count | None = None
    """Number of images that items are about, if several items are about the same one"""
    anytime_ci95: Interval | None = None
    """Anytime-valid 95 % interval of the accuracy, for a run that ended by a stopping rule."""
    chance: Share | None = None  # accuracy of guessing
    text_score: Share | None = None  # share of items with the right text for every image (accuracy)
    image_score: Share | None = None  # share of items with the right image for every text
    image_score_ci95: Interval | None = None
    image_chance: Share | None = None  # image score of guessing
    group_score: Share | None = None  # share of items in which both are right
    group_score_ci95: Interval | None = None
    group_chance: Share | None = None  # group score of guessing
    worst_group: WorstGroup | None = None  # group with the lowest accuracy


class Cost(Document):
    """The cost of the decisions.

    In evaluation equivalents, a linearised draw counts as the evaluations that its forward and
    backward pass cost. Without linearisations, they equal evaluations, and early summaries lack
    them.
    """

    evaluations: Count  # number of forward passes of the network, one per cell
    evaluations_per_image: Amount  # mean number of evaluations per image
    linearisations: Count = 0  # number of draws for which a gradient was taken
    evaluation_equivalents: Amount | None = None  # evaluations plus gradients in evaluations
    evaluation_equivalents_per_image: Amount | None = None  # mean per image, the cost in tables
    linearisation_cost: Amount | None = None  # evaluations per linearised draw, None if timed
    flop_per_image: Amount | None = None
    """Mean floating-point operations per image: equivalents times those of an evaluation; for a
    classifier, those of an image. None if unknown."""
    seconds: Amount | None  # scoring time
    images_per_second: Amount | None  # images per second of scoring time
    total_seconds: Amount | None  # time including loading and preparing
    peak_memory_bytes: Count | None = None  # peak memory of the device

    @property
    def timed(self) -> bool:
        """Whether equivalents depend on measured time, and so on the machine."""
        return self.linearisations > 0 and self.linearisation_cost is None

    @property
    def equivalents_per_image(self) -> float:
        """Mean evaluation equivalents per image."""
        equivalents = self.evaluation_equivalents_per_image
        return self.evaluations_per_image if equivalents is None else equivalents

    def per_image(self, classifier: bool) -> float:
        """Return the cost per image for tables: 1 for a classifier, which encodes an image once."""
        return 1.0 if classifier else self.equivalents_per_image

    def passes_per_image(self, classifier: bool) -> float:
        """Return the forward passes per image for tables, without gradients; 1 for a classifier."""
        return 1.0 if classifier else self.evaluations_per_image

    def in_words(self, classifier: bool) -> str:
        """Return the cost per image with its unit."""
        if classifier:
            return "1 pass per image"
        return f"{self.equivalents_per_image:,.1f} evaluation equivalents per image"


class Ends(Document):
    """Number of images by the reason why scoring ended, for a strategy that reports it."""

    bound: Count = 0  # images for which a test left one class
    ceiling: Count = 0
    """Images for which a limit on the cost ended all or some prompts, so that no bound holds."""
    exhausted: Count = 0  # images that used all draws
    sweep: Count = 0  # images that were swept to calibrate a risk
    tie: Count = 0
    """Images whose best classes are tied, in votes or within the strategy's `tie`."""


class Summary(Document):
    """`summary.json`: metrics and cost. `--json` prints it with the run's folder."""

    run_id: RunId
    status: str  # `complete`, `failed_samples`, or `incomplete` if some images are undecided
    dataset: ScoredData
    backbone: BackboneInfo
    strategy: StrategyIdentity
    metrics: Metrics  # metrics of the decisions
    cost: Cost  # cost of the decisions
    failed_samples: Count  # number of images that could not be scored
    decided_by: Ends | None = None  # number of images by the reason why scoring ended
    replayed_from: str | None = None
    fitted: Fitted | None = None
    warnings: list[str] | None = None  # that model and texts do not fit; None: none
    results_dir: str | None = None  # folder in which the run was made
    cleared: list[str] | None = None
    """Errata that no longer touch the run since this was computed again from records, or None."""

    @property
    def generation(self) -> GenerationCost | None:
        """What generating images to learn from took; None if none were generated."""
        return self.fitted.generated if self.fitted else None

    def ended_by(self, answer: QuestionAnswer | None) -> Self:
        """Return a copy with `anytime_ci95` if `answer` ended the run, otherwise the summary."""
        if answer is None or not answer.ended(self.dataset.n_samples):
            return self
        metrics = self.metrics.model_copy(update={"anytime_ci95": answer.interval})
        return self.model_copy(update={"metrics": metrics})

    def with_folder_and_fit(self, folder: Path, fitted: Fitted | None) -> Self:
        """Return a copy with the run's folder and, if not None, the report of the fit."""
        update = without_none(results_dir=str(folder.resolve()), fitted=fitted)
        return self.model_copy(update=update)


class Repeated(Document):
    """`again.json`: which decisions on randomly chosen images changed with other noise."""

    of: Positive  # number of decided images that the images were chosen from
    images: Positive  # number of images decided again
    changed: list[str]  # ids of the images that were decided differently
    expected: Amount  # estimated number of the run's decisions that change with other noise
    expected_ci95: tuple[Amount, Amount]  # exact 95 % interval over the choice of images and noise
    seed: Count  # seed of the second noise, which is different for each image
    evaluations: Count  # number of forward passes of the network
    evaluation_equivalents: Amount  # cost, with gradients measured in evaluations
    seconds: Amount  # scoring time


SUMMARY = Sidecar(
    "summary.json", Summary, "a run's summary", "The same `bench run` writes it again."
)
AGAIN = Sidecar(
    "again.json",
    Repeated,
    "a report of decisions made again",
    "The same `bench run … --again` makes it again.",
)


def read_summary(path: Path, manifest: Manifest) -> Summary | None:
    """Return the summary of a run; None if it has none, or a false one, with a warning.

    None also if failed images were decided since, by a run that was killed before its end, or,
    with a warning, if the decision of an image was changed since.
    """
    summary = SUMMARY.read(path, digest(manifest.identity))
    if summary and (covered := SUMMARY.covered(path)) is not None:
        grown = covered < (path / JOURNAL).stat().st_size
        if grown and has_changed_decisions(path, len(manifest.classes)):
            warn_user(
                f"Left out: {path / SUMMARY.name} is stale: records were added that change the"
                f" decisions that it is about. {SUMMARY.advice}"
            )
            return None
    if summary and summary.failed_samples:
        failed = read_decisions(path, manifest).failed
        if len(failed) == summary.dataset.n_samples and failed.sum() != summary.failed_samples:
            return None
    return summary


def read_again(path: Path, manifest: Manifest, decided: Decisions) -> Repeated | None:
    """Return a run's `again.json`; None if absent, false (with a warning), or of other images."""
    again = AGAIN.read(path, digest(manifest.identity))
    return again if again and again.of == int((~decided.failed).sum()) else None


def write_again(path: Path, manifest: Manifest, again: Repeated, decided: Decisions) -> Repeated:
    """Write `again.json`, unless one of as many images exists; return it. Raises as `locked`."""
    with locked(path) as folder:
        stored = read_again(path, manifest, decided)
        if stored is None or stored.images < again.images:
            AGAIN.write(folder, digest(manifest.identity), again)
            return again
    return stored


class Swept(TypedDict):
    """A line of `audit.jsonl`: an image of the run, with every prompt evaluated on every draw."""

    sample_id: str  # id of the image
    prediction: Count | None  # class predicted by the full sweep, None if the sweep failed
    regret: Amount | None
    """Score of the run's class minus the lowest score, over all draws; None if the sweep failed."""
    evaluations: Evaluations  # number of forward passes of the sweep
    equivalents: Summed  # cost of the sweep in evaluation equivalents
    seconds: Summed  # scoring time


AUDIT = Sidecar(
    "audit.jsonl",
    Swept,
    "a swept image",
    "The same `bench run … --audit` sweeps again what is missing.",
    covers_records=False,  # each line is about one image, and more are scored later
)


def read_swept(path: Path, manifest: Manifest) -> dict[str, Swept]:
    """Return a run's swept images by sample id, without false lines, which a warning names."""
    lines = AUDIT.entries(path, digest(manifest.identity))
    return {line["sample_id"]: line for line in lines}


def permuted(sample_ids: Iterable[str], identity: str) -> list[str]:
    """Return the ids in a random order fixed by the digest `identity`, in a shard as in the run."""
    return sorted(sample_ids, key=lambda i: hashlib.sha256(f"{identity} {i}".encode()).digest())
