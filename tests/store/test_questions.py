"""Questions of a run: asked once, answered later, and kept with the time they were asked."""

from pathlib import Path

import pytest
from helpers.refusals import warned
from helpers.runs import store

from bench.store.folder import read_manifest
from bench.store.questions import (
    EARLIER_QUESTIONS,
    QUESTIONS,
    QuestionAnswer,
    Verdict,
    ending_answer,
    keep_question,
    read_questions,
)


def answer(question: str, verdict: Verdict, n: int = 20) -> QuestionAnswer:
    ends = (0.5, 0.9)
    return QuestionAnswer(question=question, verdict=verdict, n=n, total=100, anytime_ci95=ends)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return store(tmp_path, [0, 1], [0, 1])


def test_a_question_is_asked_once_and_answered_in_place(run: Path) -> None:
    assert read_questions(run, read_manifest(run)) == []
    first = keep_question(run, read_manifest(run), "differs from b", 0)
    keep_question(run, read_manifest(run), "width 0.1", 7)
    assert keep_question(run, read_manifest(run), "differs from b", 30) == first
    keep_question(run, read_manifest(run), "differs from b", 30, answer("differs from b", "better"))
    entries = read_questions(run, read_manifest(run))
    assert [(entry.question, entry.decided_before) for entry in entries] == [
        ("differs from b", 0),
        ("width 0.1", 7),
    ]
    assert entries[0].answer == answer("differs from b", "better") and entries[1].answer is None


def test_an_answer_ends_the_run_that_has_as_many_images(run: Path) -> None:
    keep_question(run, read_manifest(run), "differs from b", 0, answer("differs from b", "worse"))
    entries = read_questions(run, read_manifest(run))
    assert ending_answer(entries, 20) == entries[0].answer and ending_answer(entries, 21) is None


@pytest.mark.parametrize(
    ("question", "verdict", "claim"),
    [
        ("differs from b", "worse", "worse than b"),
        ("Better than b", "better", "better than b"),
        ("within 0.02 of b", "outside", "not within 0.02 of b"),
        ("within 0.02 of b", "within", "within 0.02 of b"),
        ("differs from b", "tied", "exactly at the limit of “differs from b”"),
    ],
)
def test_what_an_answer_claims(question: str, verdict: Verdict, claim: str) -> None:
    assert answer(question, verdict).claim == claim


OF_FORMAT_1 = """{"format": 1, "questions": [{"question": "differs from b on this split",
 "asked_at": "2026-10-02T07:06:40+00:00", "decided_before": 0, "answer": {
  "question": "differs from b on this split", "verdict": "better", "n": 100, "total": 100, "p": 0.0,
  "anytime_ci95": [0.9, 0.9], "accuracy_anytime_ci95": [0.7, 0.97],
  "difference_anytime_ci95": [0.01, 0.01], "whole_split": true}}]}"""


def test_an_answer_of_an_earlier_format_is_read_and_kept(run: Path) -> None:
    (run / EARLIER_QUESTIONS.name).write_text(OF_FORMAT_1)
    [earlier] = read_questions(run, read_manifest(run))
    assert earlier.answer and earlier.answer.p == 0.0 and earlier.answer.interval == (0.7, 0.97)
    assert "between +1.0 and +1.0 points" in earlier.answer.sentence
    assert earlier.answer.promise == "Valid at any number of images, 5 %."
    keep_question(run, read_manifest(run), "width 0.1", 7)
    assert read_questions(run, read_manifest(run))[0] == earlier
    assert (run / EARLIER_QUESTIONS.name).read_text() == OF_FORMAT_1
    assert len((run / QUESTIONS.name).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        '{"format": 1, "questions": [{"question": 3}]}',
        OF_FORMAT_1.replace('"format": 1', '"format": 4'),
        OF_FORMAT_1.replace('"format": 1', '"format": 9'),
    ],
)
def test_a_damaged_file_is_named(content: str, run: Path) -> None:
    (run / EARLIER_QUESTIONS.name).write_text(content)
    with warned(EARLIER_QUESTIONS.name):
        assert read_questions(run, read_manifest(run)) == []
