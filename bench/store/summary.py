"""`summary.json`, `again.json` and `audit.jsonl`: how right a run is, and how repeatable.

`audit.jsonl` has the full sweep of images that the run decided with fewer evaluations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from typing_extensions import TypedDict

from bench.store.decisions import Decisions
from bench.store.documents import BackboneInfo, Data, Fitted
from bench.store.fields import (
    Amount,
    Count,
    Document,
    Interval,
    MetricFields,
    Positive,
    RunId,
    Share,
    is_valid,
    read_document,
    without_none,
    write_document,
)
from bench.store.identity import StrategyIdentity
from bench.store.journal import read_lines
from bench.store.questions import QuestionAnswer
from bench.store.records import Evaluations, Summed

AGAIN = "again.json"
AGAIN_FORMAT = 1


class ScoredData(Data):
    """The images that a summary covers."""

    n_samples: Positive  # number of images decided


class Group(Document):
    """The samples of one group."""

    group: str  # name of the group
    n: Positive  # number of its images
    accuracy: Share  # share of its images decided rightly
    accuracy_ci95: Interval


class Metrics(MetricFields, Document):
    """How right the decisions were. Versions before the first release wrote no macro averages."""

    every_run = True

    accuracy: Share  # share of images whose prediction is right; failed images count as wrong
    accuracy_ci95: Interval  # 95 % Wilson interval of the accuracy
    anytime_ci95: Interval | None = None
    """95 % interval of the accuracy of a run that a question ended, valid at any n; others None."""
    chance: Share | None = None  # accuracy of guessing
    text_score: Share | None = None  # share of items whose images all have their text: the accuracy
    image_score: Share | None = None  # share of items whose texts all have their image
    image_score_ci95: Interval | None = None
    image_chance: Share | None = None  # image score of guessing
    group_score: Share | None = None  # share of items in which both are right
    group_score_ci95: Interval | None = None
    group_chance: Share | None = None  # group score of guessing
    worst_group: Group | None = None  # group with the lowest accuracy, of a dataset with groups


class Cost(Document):
    """What the decisions took.

    A linearised draw counts in evaluation equivalents as its forward and backward pass cost in
    evaluations. Without linearisations, equivalents are evaluations, and early summaries have none.
    """

    evaluations: Count  # number of forward passes of the network, one per cell
    evaluations_per_image: Amount  # mean number of evaluations per image
    linearisations: Count = 0  # number of draws of which a gradient was taken
    evaluation_equivalents: Amount | None = None  # evaluations, and gradients counted in them
    evaluation_equivalents_per_image: Amount | None = None  # mean per image: the cost in tables
    linearisation_cost: Amount | None = None  # evaluations per linearised draw; None: timed
    seconds: Amount | None  # scoring time
    images_per_second: Amount | None  # images per second of scoring time
    total_seconds: Amount | None  # time including loading and preparing
    peak_memory_bytes: Count | None = None  # peak memory of the device

    @property
    def timed(self) -> bool:
        """Whether the equivalents depend on measured time, so on one machine and one day."""
        return self.linearisations > 0 and self.linearisation_cost is None

    @property
    def equivalents_per_image(self) -> float:
        """Evaluation equivalents per image."""
        equivalents = self.evaluation_equivalents_per_image
        return self.evaluations_per_image if equivalents is None else equivalents

    def per_image(self, classifier: bool) -> float:
        """Return the cost in tables: a classifier's is one pass, which encodes the image once."""
        return 1.0 if classifier else self.equivalents_per_image

    def in_words(self, classifier: bool) -> str:
        """Return the cost per image with its unit."""
        if classifier:
            return "1 pass per image"
        return f"{self.equivalents_per_image:,.1f} evaluation equivalents per image"


class Ends(Document):
    """Number of images by what ended them, of a strategy that reports it."""

    bound: Count = 0  # images whose test left one class
    ceiling: Count = 0
    """Images that a limit on the cost ended, or some of their prompts: no bound holds for them."""
    exhausted: Count = 0  # images that used all draws
    sweep: Count = 0  # images that were swept to calibrate a risk on them
    tie: Count = 0
    """Images whose best classes differed by nothing that counts: votes, or the strategy's `tie`."""


class Summary(Document):
    """`summary.json`: metrics and cost; with its folder, the object that `--json` prints."""

    run_id: RunId
    status: str  # `complete`; `failed_samples`; `incomplete`, where images are still to be decided
    dataset: ScoredData
    backbone: BackboneInfo
    strategy: StrategyIdentity
    metrics: Metrics  # how right the decisions were
    cost: Cost  # what the decisions took
    failed_samples: Count  # number of images that could not be scored
    decided_by: Ends | None = None  # number of images by what ended them
    replayed_from: str | None = None
    fitted: Fitted | None = None
    results_dir: str | None = None  # folder in which the run was made

    def ended_by(self, answer: QuestionAnswer | None) -> Summary:
        """Return the summary, with the interval that is valid where an answer ended the run."""
        if answer is None or not answer.ended(self.dataset.n_samples):
            return self
        metrics = self.metrics.model_copy(update={"anytime_ci95": answer.interval})
        return self.model_copy(update={"metrics": metrics})

    def with_folder_and_fit(self, folder: Path, fitted: Fitted | None) -> Self:
        """Return a copy with the run's folder and the report of a backbone that learned."""
        update = without_none(results_dir=str(folder.resolve()), fitted=fitted)
        return self.model_copy(update=update)


class Again(Document):
    """`again.json`: decisions that other noise changed, of images chosen at random."""

    format: Count
    of: Positive  # decided images of the run among which the images were chosen
    images: Positive  # images decided again
    changed: list[str]  # ids of the images that were decided otherwise
    expected: Amount  # estimated number of decisions of the run that an independent run changes
    expected_ci95: tuple[Amount, Amount]  # exact, over the choice of images and noise
    seed: Count  # Seed of the second noise. Each image has noise of its own.
    evaluations: Count  # forward passes of the network that this took
    evaluation_equivalents: Amount  # the same, with gradients counted in evaluations
    seconds: Amount  # scoring time


def read_again(path: Path, decided: Decisions) -> Again | None:
    """Return a run's `again.json`; None: there is none, or it is of another number of images."""
    if not (path / AGAIN).exists():
        return None
    again = read_document(Again, path, AGAIN, what="a report of decisions made again")
    return again if again.of == int((~decided.failed).sum()) else None


def write_again(path: Path, again: Again) -> None:
    """Write `again.json` into a run's folder."""
    write_document(path / AGAIN, again)


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


def read_swept(path: Path) -> dict[str, Swept]:
    """Return the lines of a run's audit by sample id, without damaged lines; `path`: its folder."""
    lines = read_lines(path / AUDIT, lambda line: is_valid(line, Swept))
    return {line["sample_id"]: Swept(**line) for _, _, line in lines}  # type: ignore[typeddict-item]


def permuted(sample_ids: Iterable[str], identity: str) -> list[str]:
    """Return the ids in a pseudo-random order, which `identity` alone decides.

    `identity` is the digest of the run's identity. The order of two ids does not depend on the
    other ids, so a shard has its ids in the same order as the whole run.
    """
    return sorted(
        sample_ids, key=lambda name: hashlib.sha256(f"{identity} {name}".encode()).digest()
    )
