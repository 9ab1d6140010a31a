"""Questions of a run: asked once, answered later, and kept with the time they were asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.store.questions import (
    QUESTIONS,
    QuestionAnswer,
    Verdict,
    ask_question,
    ending_answer,
    read_questions,
    write_answer,
)


def answer(question: str, verdict: Verdict, n: int = 20) -> QuestionAnswer:
    ends = (0.5, 0.9)
    return QuestionAnswer(question=question, verdict=verdict, n=n, total=100, anytime_ci95=ends)


def test_a_question_is_asked_once_and_answered_in_place(tmp_path: Path) -> None:
    assert read_questions(tmp_path) == []
    first = ask_question(tmp_path, "differs from b", 0)
    ask_question(tmp_path, "width 0.1", 7)
    assert ask_question(tmp_path, "differs from b", 30) == first
    write_answer(tmp_path, answer("differs from b", "better"))
    entries = read_questions(tmp_path)
    assert [(entry.question, entry.decided_before) for entry in entries] == [
        ("differs from b", 0),
        ("width 0.1", 7),
    ]
    assert entries[0].answer == answer("differs from b", "better") and entries[1].answer is None


def test_an_answer_ends_the_run_that_has_as_many_images(tmp_path: Path) -> None:
    ask_question(tmp_path, "differs from b", 0)
    write_answer(tmp_path, answer("differs from b", "worse"))
    entries = read_questions(tmp_path)
    assert ending_answer(entries, 20) == entries[0].answer and ending_answer(entries, 21) is None


@pytest.mark.parametrize(
    ("question", "verdict", "claim"),
    [
        ("differs from b", "worse", "worse than b"),
        ("Better than b", "better", "better than b"),
        ("within 0.02 of b", "outside", "not within 0.02 of b"),
        ("within 0.02 of b", "within", "within 0.02 of b"),
    ],
)
def test_what_an_answer_claims(question: str, verdict: Verdict, claim: str) -> None:
    assert answer(question, verdict).claim == claim


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / QUESTIONS).write_text('{"format": 1, "questions": [{"question": 3}]}')
    with pytest.raises(UserError, match=QUESTIONS):
        read_questions(tmp_path)
