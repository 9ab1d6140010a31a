"""`questions.jsonl`: the stopping rules of a run (`--until`, called questions) and their results.

A question is a claim, such as "better than RUN by 0.02". It ends the run once images in random
order confirm or refute it. A line is appended when it is asked, and another one with its answer.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bench.contracts.metric_spec import points
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Count, Document, Interval, Share
from bench.store.formats.identity import digest
from bench.store.locking import locked
from bench.store.sidecar import Sidecar

Verdict = Literal["better", "worse", "tied", "within", "outside", "narrow", "open"]


class QuestionAnswer(Document):
    """The result of anytime-valid tests on images in random order, or of counting a whole split."""

    question: str  # text of the question
    verdict: Verdict
    """What was shown, `open` if nothing. `outside` refutes "within" and "better by", `narrow` means
    that the interval has the width of the question, and `tied` that the difference on the split is
    exactly the number of the question (0 if it has none)."""
    n: Count  # number of images up to the verdict, or of all so far if it is `open`
    total: Count  # number of images of the split
    p: Share | None = None
    """Anytime-valid p-value of the null hypothesis after these n images; None for a width."""
    anytime_ci95: Interval | None = None
    """Anytime-valid 95 % interval of the accuracy or the question's metric. None, as all intervals
    and p, if the question is about the split and all its images were counted."""
    accuracy_anytime_ci95: Interval | None = None
    """Anytime-valid 95 % interval of the accuracy of all such images; None: `anytime_ci95`."""
    difference_anytime_ci95: tuple[float, float] | None = None
    """Anytime-valid 95 % interval of the difference from the other run; None for a width."""
    difference: float | None = None  # exact difference on the split, if all images were counted
    whole_split: bool = False  # whether the claim is about this split only
    post_hoc: bool = False
    """Whether images were decided before the first question on this run, metric and population."""
    level: Share | None = None
    """Largest probability that any verdict about this difference (or width) is false, in both
    directions and at any margin, because all are read off one confidence sequence. None if images
    were counted, and before format 3, when each verdict had a test of its own at 5 %."""

    @property
    def claim(self) -> str:
        """What the verdict shows, such as “better than RUN”; it must not be `open`."""
        if self.verdict in ("better", "worse"):
            verb = "^(differs from|better than)"
            return re.sub(verb, f"{self.verdict} than", self.question, flags=re.IGNORECASE)
        if self.verdict == "tied":
            return f"exactly at the limit of “{self.question}”"
        return f"not {self.question}" if self.verdict == "outside" else self.question

    @property
    def label(self) -> str:
        """Label of a run that ended with this answer, for tables."""
        return f"stopped at {self.n:,} of {self.total:,} images: {self.claim} (anytime-valid, 5 %)"

    def ended(self, images: int) -> bool:
        """Return whether this answer ended a run with `images` decided images."""
        return self.verdict != "open" and self.n == images < self.total

    def warning(self, run_id: str) -> str:
        """Return a warning for other statistics of a run that ended with this answer."""
        return f"{run_id} was {self.label}: other p-values and intervals do not allow for that."

    @property
    def interval(self) -> tuple[float, float]:
        """Anytime-valid 95 % interval of the accuracy over all such images, (0, 1) if none."""
        return self.accuracy_anytime_ci95 or self.anytime_ci95 or (0.0, 1.0)

    @property
    def sentence(self) -> str:
        """The answer in words, with the difference in points."""
        words = {"open": "not answered", "outside": "no", "narrow": "reached"}
        so_many = "all" if self.n == self.total else f"{self.n:,} of"
        difference = ""
        if self.difference is not None:
            difference = f"; the difference is {points(self.difference)} points"
        elif self.difference_anytime_ci95 is not None:
            low, high = map(points, self.difference_anytime_ci95)
            difference = f"; the difference is between {low} and {high} points"
        verdict = words.get(self.verdict, self.verdict)
        return f"“{self.question}”: {verdict} after {so_many} {self.total:,} images{difference}."

    @property
    def promise(self) -> str:
        """What holds of the answer, in a sentence, and whether it was asked after a look."""
        note = " It was asked after images were decided." if self.post_hoc else ""
        if self.level is None:
            if self.anytime_ci95:  # before format 3
                return f"Valid at any number of images, 5 %.{note}"
            return f"All images of the split were counted, not tested.{note}"
        wrong, margins = "an interval without the truth", ""
        if self.difference_anytime_ci95 is not None:
            wrong, margins = "any false answer about this pair", " and any margin"
        over = "orders of the split's images" if self.whole_split else "samples of images"
        return f"Valid at any number of images{margins}: at most 5 % of {over} give {wrong}.{note}"


class AskedQuestion(Document):
    """A line of `questions.jsonl`: one question of a run."""

    question: str  # text of the question
    asked_at: str  # time in ISO 8601
    decided_before: Count  # number of images that had been decided when it was asked
    answer: QuestionAnswer | None = None  # None while images are scored


class StoredQuestions(Document):
    """`questions.json`, which earlier versions wrote: the questions of a run.

    In format 1, every answer has an interval; before format 3, none has a `level`.
    """

    questions: list[AskedQuestion]  # the questions, in the order in which they were asked


ADVICE = "The same `bench run … --until` answers again."
QUESTIONS = Sidecar(
    "questions.jsonl",
    AskedQuestion,
    "a question",
    ADVICE,
    accepts_unsealed=lambda line, settings: False,  # `questions.json` had the unsealed ones
)
EARLIER_QUESTIONS = Sidecar("questions.json", StoredQuestions, "a run's questions", ADVICE)


def read_questions(path: Path, manifest: Manifest) -> list[AskedQuestion]:
    """Return the questions of the run in the folder `path`, with their latest answers."""
    settings = digest(manifest.identity)
    earlier = EARLIER_QUESTIONS.read(path, settings)
    entries = [*(earlier.questions if earlier else ()), *QUESTIONS.entries(path, settings)]
    return [*{entry.question: entry for entry in entries}.values()]


def ending_answer(questions: Iterable[AskedQuestion], images: int) -> QuestionAnswer | None:
    """Return the answer that ended a run with `images` decided images, None if none did."""
    answers = (entry.answer for entry in questions)
    return next((answer for answer in answers if answer and answer.ended(images)), None)


def keep_question(
    path: Path,
    manifest: Manifest,
    question: str,
    decided: int,
    answer: QuestionAnswer | None = None,
) -> AskedQuestion:
    """Store a question, unless it was asked before, and its answer; return the stored question.

    `decided` is the number of images decided so far. Raises as `locked`, unless all is stored.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = AskedQuestion(question=question, asked_at=now, decided_before=decided)

    def entry_among(stored: Iterable[AskedQuestion]) -> AskedQuestion:
        entry = next((entry for entry in stored if entry.question == question), new)
        return entry.model_copy(update={"answer": answer}) if answer else entry

    stored = read_questions(path, manifest)
    if (entry := entry_among(stored)) not in stored:
        with locked(path) as folder:
            stored = read_questions(path, manifest)
            if (entry := entry_among(stored)) not in stored:
                QUESTIONS.append(folder, digest(manifest.identity), entry)
    return entry
