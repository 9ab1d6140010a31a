"""Tests of the questions that end a run, and of their answers."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import UserError
from bench.stats.questions import Results, StopQuestion, answer, class_weights, parse_question
from bench.stats.sequential import anytime_interval
from bench.store.questions import AskedQuestion, QuestionAnswer, Verdict, ending_answer


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("differs from a-1", StopQuestion("differs", "differs from a-1", "a-1")),
        ("better than a", StopQuestion("better", "better than a", "a")),
        ("better than  a by .02", StopQuestion("better", "better than a by .02", "a", 0.02)),
        ("within 0.02 of a", StopQuestion("within", "within 0.02 of a", "a", 0.02)),
        ("width 0.05", StopQuestion("width", "width 0.05", None, 0.05)),
        (
            "differs from a on this split",
            StopQuestion("differs", "differs from a on this split", "a", whole_split=True),
        ),
    ],
)
def test_questions_are_read(text: str, question: StopQuestion) -> None:
    assert parse_question(text) == question


@pytest.mark.parametrize(
    "text",
    ["", "better", "best", "within 2 of a", "width 0", "width x", "differs from", "width -1"],
)
def test_what_is_no_question_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--until"):
        parse_question(text)


def results(values: np.ndarray, total: int = 5000) -> Results:
    """Results of two runs with these differences; of one run where none is negative."""
    return Results(np.maximum(values, 0.0), np.maximum(-values, 0.0), total)


def ask(text: str, values: np.ndarray, total: int = 5000) -> QuestionAnswer:
    given = results(values, total)
    question = parse_question(text)
    return answer(question, given._replace(baseline=None) if question.run is None else given)


def pairs(wins: int, losses: int, ties: int, seed: int = 0) -> np.ndarray:
    values = np.array([1.0] * wins + [-1.0] * losses + [0.0] * ties)
    return np.random.default_rng(seed).permutation(values)


@pytest.mark.parametrize(
    ("text", "values", "verdict"),
    [
        ("differs from a", pairs(60, 20, 120), "better"),
        ("differs from a", pairs(20, 60, 120), "worse"),
        ("differs from a", pairs(20, 20, 160), "open"),
        ("better than a", pairs(60, 20, 120), "better"),
        ("better than a", pairs(20, 60, 120), "worse"),
        ("better than a by 0.1", pairs(120, 20, 60), "better"),
        ("better than a by 0.1", pairs(20, 60, 120), "outside"),
        ("within 0.1 of a", pairs(10, 10, 980), "within"),
        ("within 0.1 of a", pairs(100, 10, 90), "outside"),
        ("width 0.3", (pairs(150, 50, 0) + 1) / 2, "narrow"),
        ("width 0.01", (pairs(150, 50, 0) + 1) / 2, "open"),
    ],
)
def test_answers(text: str, values: np.ndarray, verdict: str) -> None:
    result = ask(text, values)
    assert result.verdict == verdict
    assert (result.n == len(values)) == (verdict == "open")
    again = ask(text, values[: result.n])
    assert again == result, "later images change nothing"
    if verdict not in ("open", "narrow"):  # widths are looked at in steps
        fewer = ask(text, values[: result.n - 1])
        assert fewer.verdict == "open"


def test_the_interval_is_of_the_images_up_to_the_stop() -> None:
    values = pairs(60, 20, 120)
    result = ask("differs from a", values)
    assert result.difference_anytime_ci95 == anytime_interval(values[: result.n])
    assert result.p is not None and result.p <= 0.05


def test_the_width_is_that_of_the_accuracy() -> None:
    right = (pairs(150, 50, 0) + 1) / 2
    result = ask("width 0.25", right)
    low, high = result.anytime_ci95
    assert high - low <= 0.25 and low < right[: result.n].mean() < high


def test_the_whole_split_is_answered_once_all_is_seen() -> None:
    values = pairs(11, 10, 79)
    assert ask("differs from a", values, 100).verdict == "open"
    whole = ask("differs from a on this split", values, 100)
    assert (whole.verdict, whole.whole_split) == ("better", True)


def test_weights_make_the_mean_over_classes() -> None:
    labels = np.repeat([0, 1], [90, 10])
    weights = class_weights(np.bincount(labels).astype(float))[labels]
    right = np.where(labels == 1, 1.0, 0.5)
    assert (right * weights).mean() == pytest.approx(0.75)
    rng = np.random.default_rng(0)
    order = rng.integers(0, 100, 3000)
    values = (rng.random(3000) < right[order]).astype(float)
    low, high = answer(
        parse_question("width 0.2"), Results(values, None, 3000, weights[order], weights.max())
    ).anytime_ci95
    assert low < 0.75 < high


def test_an_answer_does_not_depend_on_the_weights_of_later_images() -> None:
    """The scale of the bets is a constant of the split, whichever classes were seen so far."""
    question = parse_question("differs from a in balanced accuracy")
    right, wrong, weights = np.ones(60), np.zeros(60), np.full(60, 0.8)
    decided = answer(question, Results(right, wrong, 5000, weights, 1.5))
    weights[-1] = 1.5
    assert answer(question, Results(right, wrong, 5000, weights, 1.5)) == decided
    assert decided.verdict == "better" and decided.n < 59
    ends = anytime_interval(np.full(decided.n, 0.8 / 1.5))
    assert decided.difference_anytime_ci95 == pytest.approx([1.5 * end for end in ends])


def test_a_weighted_question_errs_rarely_however_often_it_is_asked() -> None:
    """With equal models, of 300 runs of 300 images, at most 5 % differ; 10 % would be 30 runs."""
    question = parse_question("differs from a in balanced accuracy")
    rng, different = np.random.default_rng(0), 0
    weights = class_weights(np.array([270.0, 30.0]))
    for _ in range(300):
        labels = rng.permutation(np.repeat([0, 1], [270, 30]))
        right, wrong = rng.integers(0, 2, (2, 300)).astype(float)
        results = Results(right, wrong, 300, weights[labels], weights.max())
        different += answer(question, results).verdict != "open"
    assert different <= 0.05 * 300 + 2 * (300 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(
    ("question", "verdict", "claim"),
    [
        ("differs from a on this split", "worse", "worse than a on this split"),
        ("Better than a", "worse", "worse than a"),
        ("better than a by 0.02", "better", "better than a by 0.02"),
        ("better than a by 0.02", "outside", "not better than a by 0.02"),
        ("within 0.02 of a", "within", "within 0.02 of a"),
        ("width 0.05", "narrow", "width 0.05"),
    ],
)
def test_an_answer_says_what_is_shown(question: str, verdict: Verdict, claim: str) -> None:
    ends = (0.0, 1.0)
    result = QuestionAnswer(
        question=question, verdict=verdict, n=212, total=2100, anytime_ci95=ends
    )
    assert result.label == f"stopped at 212 of 2,100 images: {claim} (anytime-valid, 5 %)"


def test_the_interval_of_the_accuracy_is_there_for_every_question() -> None:
    right = np.random.default_rng(0).binomial(1, 0.8, 60).astype(float)
    plain = answer(parse_question("width 0.1"), Results(right, None, 80))
    split = answer(parse_question("width 0.1 on this split"), Results(right, None, 80))
    weights = np.where(np.arange(60) % 2, 1.5, 0.5)
    balanced = answer(
        parse_question("width 0.1 in balanced accuracy"), Results(right, None, 80, weights, 1.5)
    )
    assert plain.accuracy_anytime_ci95 is None
    for other in (split, balanced):
        assert other.anytime_ci95 != plain.anytime_ci95
        assert other.interval == pytest.approx(plain.interval)


def test_only_an_answer_after_these_images_ended_the_run() -> None:
    right = np.ones(60)
    result = answer(parse_question("width 0.3"), Results(right, None, 80))
    asked = AskedQuestion(question="width 0.3", asked_at="", decided_before=0, answer=result)
    assert ending_answer([asked], result.n) == result
    assert ending_answer([asked], result.n + 1) is None
    assert ending_answer([asked.model_copy(update={"answer": None})], result.n) is None
    still_open = result.model_copy(update={"verdict": "open"})
    assert ending_answer([asked.model_copy(update={"answer": still_open})], result.n) is None
