"""`questions.json`: the questions that were to end a run, and what its images answered."""

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
    """What images in random order answer, however often somebody looked."""

    question: str  # as it was asked
    verdict: Verdict
    """What is shown; "open": nothing yet. "outside" denies "within" and "better by"."""
    n: Count  # number of images that the answer takes: where it was decided, or all so far
    total: Count  # number of images of the split
    p: Share | None = None
    """p of what the question denies after these n images, valid at any n; None for a width."""
    anytime_ci95: Interval  # of the accuracy, or of the metric asked about; valid at any n
    accuracy_anytime_ci95: Interval | None = None
    """Interval of the accuracy over all images like these; None: `anytime_ci95` is that."""
    difference_anytime_ci95: tuple[float, float] | None = None
    """95 % interval of the difference to the other run, valid at any n; None for a width."""
    whole_split: bool = False  # whether all images of this split are meant
    post_hoc: bool = False  # whether images were decided when the question was asked

    @property
    def claim(self) -> str:
        """What an answered question shows: “better than RUN”."""
        if self.verdict in ("better", "worse"):
            verb = "^(differs from|better than)"
            return re.sub(verb, f"{self.verdict} than", self.question, flags=re.IGNORECASE)
        return f"not {self.question}" if self.verdict == "outside" else self.question

    @property
    def mark(self) -> str:
        """What tells a run that this answer ended from others."""
        return f"stopped at {self.n:,} of {self.total:,} images: {self.claim} (anytime-valid, 5 %)"

    def ended(self, images: int) -> bool:
        """Return whether a run of so many images ended by this answer."""
        return self.verdict != "open" and self.n == images < self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the accuracy over all images like these, valid at any number of images."""
        return self.accuracy_anytime_ci95 or self.anytime_ci95

    @property
    def sentence(self) -> str:
        """The answer in words."""
        note = " It was asked after images were decided." if self.post_hoc else ""
        ends = ""
        if self.difference_anytime_ci95 is not None:
            low, high = self.difference_anytime_ci95
            ends = f"; difference {low:+.4f} to {high:+.4f}"
        words = {"open": "not answered", "outside": "no", "narrow": "reached"}
        verdict = words.get(self.verdict, self.verdict)
        return (
            f"“{self.question}”: {verdict} after {self.n:,} of {self.total:,} images (valid at any"
            f" number of images, 5 %{ends}).{note}"
        )


class AskedQuestion(Document):
    """One question of a run."""

    question: str  # as it was asked
    asked_at: str  # time, ISO 8601
    decided_before: Count  # number of images that were decided when it was asked
    answer: QuestionAnswer | None = None  # None: scoring was interrupted


class StoredQuestions(Document):
    """The questions of a run, in the order in which they were asked."""

    format: Count  # format version
    questions: list[AskedQuestion]  # the questions


def read_questions(path: Path) -> list[AskedQuestion]:
    """Return the questions of the run in a folder; UserError: the file is damaged."""
    if not (path / QUESTIONS).exists():
        return []
    stored = read_document(
        StoredQuestions, path, QUESTIONS, what="a run's questions", newest=QUESTIONS_FORMAT
    )
    return stored.questions


def ending_answer(questions: Iterable[AskedQuestion], images: int) -> QuestionAnswer | None:
    """Return the answer that ended a run after so many images; None: none did."""
    answers = (entry.answer for entry in questions)
    return next((answer for answer in answers if answer and answer.ended(images)), None)


def ask_question(path: Path, question: str, decided: int) -> AskedQuestion:
    """Write a question into a run's folder, unless it was asked before; return its entry.

    `decided` is the number of images that are decided now.
    """
    earlier = read_questions(path)
    for entry in earlier:
        if entry.question == question:
            return entry
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = AskedQuestion(question=question, asked_at=now, decided_before=decided)
    _write(path, [*earlier, entry])
    return entry


def write_answer(path: Path, answer: QuestionAnswer) -> None:
    """Write the answer of a question that was asked before."""
    entries = [
        entry.model_copy(update={"answer": answer}) if entry.question == answer.question else entry
        for entry in read_questions(path)
    ]
    _write(path, entries)


def _write(path: Path, questions: list[AskedQuestion]) -> None:
    document = StoredQuestions(format=QUESTIONS_FORMAT, questions=questions)
    write_document(path / QUESTIONS, document)
