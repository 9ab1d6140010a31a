"""Records: the lines of `samples.jsonl`, one per image."""

import math
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic reads no other before Python 3.12
)

from pydantic import Field
from typing_extensions import TypedDict

from bench.contracts.decision import Decided
from bench.store.fields import Amount, Count, Number, Share, is_valid

MAX_EVALUATIONS = 2**40  # per image; the sum over millions of images fits into int64
MAX_ERROR = 1e39  # larger than any float32
MAX_SECONDS = 1e12  # per image; also the maximum of evaluation equivalents
SWEEP = "sweep"  # `decided_by` of an image that was swept for the calibration of its own run
TOP_CLASSES = 10  # classes kept per record, so that 200,000 samples × 1,000 classes stay small

Evaluations = Annotated[Count, Field(le=MAX_EVALUATIONS)]
Error = Annotated[Number, Field(ge=-MAX_ERROR, le=MAX_ERROR)]
StandardError = Annotated[Amount, Field(le=MAX_ERROR)]
Summed = Annotated[Amount, Field(le=MAX_SECONDS)]
TopClass = tuple[Count, Error | None, Evaluations]


class Record(TypedDict):
    """A decided or failed image. Fields without a star are in every line."""

    sample_id: str  # id of the image within its split
    label: Count  # true class; for an item, the index of the right answer
    prediction: Count | None  # predicted class, None if the image failed
    score: Error | None  # mean error of the winner; lower is better
    margin: Error | None  # runner-up's score minus the winner's, on the draws that both have
    margin_stderr: StandardError | None  # standard error of the margin
    confidence: Share | None
    """Phi(margin / margin_stderr), the normal probability that the winner's expected error is below
    the runner-up's. It is too high if a strategy stopped at a significant difference."""
    evaluations: Evaluations  # number of forward passes of the network
    linearisations: NotRequired[Evaluations]  # number of draws for which a gradient was taken
    equivalents: NotRequired[Summed]  # evaluations plus gradients measured in evaluations
    top: list[TopClass]  # [class, score, draws] of the ten best classes, the best first
    seconds: Summed  # share of the scoring time
    error: str | None  # reason of the failure, None if the image was decided
    decided_by: NotRequired[Literal["bound", "ceiling", "exhausted", "tie", "sweep"]]
    """Why scoring ended, if the strategy reports it: a test left one class (`bound`), the cost
    reached a limit (`ceiling`), all draws were used (`exhausted`), or the best classes are tied
    (`tie`). `sweep` if the full sweep decided the image, for the calibration of this run."""
    in_candidates: NotRequired[bool]  # whether the true class was a candidate
    group: NotRequired[str]  # group of the sample
    shape: NotRequired[list[Count]]  # [images, texts] of an item
    pairs: NotRequired[list[list[Error | None]]]  # score of each image with each text of an item
    image_right: NotRequired[bool]  # whether every text of the item was matched with its image
    group_right: NotRequired[bool]  # whether all images and all texts of the item were matched


def is_record(value: Any, n_classes: int) -> bool:
    """Return whether a line's value is a valid record of a run with `n_classes` classes."""
    if not is_valid(value, Record):
        return False
    classes = [value["label"], *(entry[0] for entry in value["top"])]
    if value["prediction"] is not None:
        classes.append(value["prediction"])
    elif value["error"] is None:
        return False  # neither decided nor failed
    return bool(max(classes) < n_classes)


def make_record(decided: Decided, seconds: float) -> Record:
    """Return the record of a decided image; `seconds` is its share of the scoring time."""
    outcome = decided.outcome
    record = Record(
        sample_id=decided.sample.sample_id,
        label=decided.sample.label,
        prediction=int(outcome.ranking[0]) if outcome else None,
        score=finite(outcome.scores[outcome.ranking[0]]) if outcome else None,
        margin=finite(outcome.margin) if outcome else None,
        margin_stderr=finite(outcome.margin_stderr) if outcome else None,
        confidence=finite(outcome.confidence) if outcome else None,
        evaluations=decided.evaluations,
        linearisations=decided.linearisations,
        equivalents=round(decided.equivalents, 2),
        top=[],
        seconds=round(seconds, 4),
        error=decided.error,
    )
    if outcome is not None:
        scores, draws, best = outcome.scores, outcome.draws, outcome.ranking[:TOP_CLASSES]
        record["top"] = [(int(c), finite(scores[c]), int(draws[c])) for c in best]
    if outcome is not None and outcome.decided_by is not None:
        record["decided_by"] = outcome.decided_by  # type: ignore[typeddict-item]  # the engine checks that it is in DECIDED_BY
    sample = decided.sample
    if sample.candidates is not None:
        record["in_candidates"] = sample.label in sample.candidates
    if sample.group is not None:
        record["group"] = sample.group
    if sample.item is not None:
        record["shape"] = list(sample.item.shape)
    if decided.pairs is not None:
        record["pairs"] = [[finite(score) for score in row] for row in decided.pairs]
        record["image_right"] = bool(decided.image_right)
        record["group_right"] = bool(decided.group_right)
    return record


def finite(value: float) -> float | None:
    """Return the value as a float, or None if it is not finite, because JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
