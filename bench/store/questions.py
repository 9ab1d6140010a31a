"""`questions.json`: the stopping rules of a run (`--until`, called questions) and their results.

A question is a claim, such as "better than RUN by 0.02". It ends the run once images in random
order confirm or refute it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bench.store.fields import Count, Document, Interval, Share, read_document, write_document

QUESTIONS, QUESTIONS_FORMAT = "questions.json", 1
Verdict = Literal["better", "worse", "within", "outside", "narrow", "open"]


class QuestionAnswer(Document):
    """The result of anytime-valid tests on images in random order."""

    question: str  # text of the question
    verdict: Verdict
    """What was shown, `open` if nothing. `outside` refutes "within" and "better by", and `narrow`
    means that the interval has the width of the question."""
    n: Count  # number of images up to the verdict, or of all so far if it is `open`
    total: Count  # number of images of the split
    p: Share | None = None
    """Anytime-valid p-value of the null hypothesis after these n images; None for a width."""
    anytime_ci95: Interval  # anytime-valid 95 % interval of the accuracy or the question's metric
    accuracy_anytime_ci95: Interval | None = None
    """Anytime-valid 95 % interval of the accuracy over all images like these, None if it is
    `anytime_ci95`."""
    difference_anytime_ci95: tuple[float, float] | None = None
    """Anytime-valid 95 % interval of the difference from the other run; None for a width."""
    whole_split: bool = False  # whether the claim is about this split only
    post_hoc: bool = False  # whether images had been decided when the question was asked

    @property
    def claim(self) -> str:
        """What the verdict shows, such as “better than RUN”; it must not be `open`."""
        if self.verdict in ("better", "worse"):
            verb = "^(differs from|better than)"
            return re.sub(verb, f"{self.verdict} than", self.question, flags=re.IGNORECASE)
        return f"not {self.question}" if self.verdict == "outside" else self.question

    @property
    def label(self) -> str:
        """Label of a run that ended with this answer, for tables."""
        return f"stopped at {self.n:,} of {self.total:,} images: {self.claim} (anytime-valid, 5 %)"

    def ended(self, images: int) -> bool:
        """Return whether this answer ended a run with `images` decided images."""
        return self.verdict != "open" and self.n == images < self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Anytime-valid 95 % interval of the accuracy over all images like these."""
        return self.accuracy_anytime_ci95 or self.anytime_ci95

    @property
    def sentence(self) -> str:
        """The answer in words."""
        note = " It was asked after images were decided." if self.post_hoc else ""
        difference = ""
        if self.difference_anytime_ci95 is not None:
            low, high = self.difference_anytime_ci95
            difference = f"; difference {low:+.4f} to {high:+.4f}"
        words = {"open": "not answered", "outside": "no", "narrow": "reached"}
        verdict = words.get(self.verdict, self.verdict)
        return (
            f"“{self.question}”: {verdict} after {self.n:,} of {self.total:,} images (valid at any"
            f" number of images, 5 %{difference}).{note}"
        )


class AskedQuestion(Document):
    """One question of a run."""

    question: str  # text of the question
    asked_at: str  # time in ISO 8601
    decided_before: Count  # number of images that had been decided when it was asked
    answer: QuestionAnswer | None = None  # None if scoring was interrupted


class StoredQuestions(Document):
    """The questions of a run, in the order in which they were asked."""

    format: Count  # format version
    questions: list[AskedQuestion]  # the questions


def read_questions(path: Path) -> list[AskedQuestion]:
    """Return the questions of the run in the folder `path`, [] if it has none.

    Raises UserError if the file is damaged or of a newer format.
    """
    if not (path / QUESTIONS).exists():
        return []
    stored = read_document(
        StoredQuestions, path, QUESTIONS, what="a run's questions", newest=QUESTIONS_FORMAT
    )
    return stored.questions


def ending_answer(questions: Iterable[AskedQuestion], images: int) -> QuestionAnswer | None:
    """Return the answer that ended a run with `images` decided images, None if none did."""
    answers = (entry.answer for entry in questions)
    return next((answer for answer in answers if answer and answer.ended(images)), None)


def ask_question(path: Path, question: str, decided: int) -> AskedQuestion:
    """Store a question, unless asked before, with the number of decided images, and return it."""
    earlier = read_questions(path)
    for entry in earlier:
        if entry.question == question:
            return entry
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = AskedQuestion(question=question, asked_at=now, decided_before=decided)
    _write(path, [*earlier, entry])
    return entry


def write_answer(path: Path, answer: QuestionAnswer) -> None:
    """Write the answer to a question that `ask_question` wrote before."""
    entries = [
        entry.model_copy(update={"answer": answer}) if entry.question == answer.question else entry
        for entry in read_questions(path)
    ]
    _write(path, entries)


def _write(path: Path, questions: list[AskedQuestion]) -> None:
    document = StoredQuestions(format=QUESTIONS_FORMAT, questions=questions)
    write_document(path / QUESTIONS, document)
