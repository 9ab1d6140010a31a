"""`questions.json`: the questions that were to end a run, and what its images answered."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bench.machine.files import write_atomically
from bench.store.fields import Count, Document, Interval, Share, read_document, to_json

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
    difference_anytime_ci95: tuple[float, float] | None = None
    """95 % interval of the difference to the other run, valid at any n; None for a width."""
    whole_split: bool = False  # whether all images of this split are meant
    post_hoc: bool = False  # whether images were decided when the question was asked

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

    question: str
    asked_at: str  # time, ISO 8601
    decided_before: Count  # number of images that were decided when it was asked
    answer: QuestionAnswer | None = None  # None: scoring was interrupted


class StoredQuestions(Document):
    """The questions of a run, in the order in which they were asked."""

    format: Count
    questions: list[AskedQuestion]


def read_questions(path: Path) -> list[AskedQuestion]:
    """Return the questions of the run in a folder.

    Raises:
        UserError: the file is damaged.
    """
    if not (path / QUESTIONS).exists():
        return []
    what = "a run's questions"
    return read_document(
        StoredQuestions, path, QUESTIONS, what=what, newest=QUESTIONS_FORMAT
    ).questions


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
    _write(
        path,
        [
            entry.model_copy(update={"answer": answer})
            if entry.question == answer.question
            else entry
            for entry in read_questions(path)
        ],
    )


def _write(path: Path, questions: list[AskedQuestion]) -> None:
    document = StoredQuestions(format=QUESTIONS_FORMAT, questions=questions)
    write_atomically(path / QUESTIONS, to_json(document.plain()))
