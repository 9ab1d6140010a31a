"""Items: from the decisions on single images to the one about the item."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.tables import concluded, make, make_problem, make_table

from bench.contracts.dataset import Item, Sample, answer_of, chance, n_answers, pairing_of
from bench.contracts.decision import Decided
from bench.engine.items import join
from bench.recordings.replay import decide


def decided(errors: Any, shape: tuple[int, int], label: int, strategy: str = "full") -> Decided:
    """Let a strategy decide an item whose errors, [I, T, N], are known."""
    images, texts = shape
    errors = np.asarray(errors, np.float32).reshape(images * texts, -1)
    item = Item((None,) * images, tuple(range(texts)))
    problem = make_problem(errors[:texts])
    made = make(strategy, errors.shape[1])
    return decide(Sample("x", label, {}, item), errors, made, problem)


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2, 3)])
def test_the_chances_are_those_of_random_scores(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).random((200_000, *shape))
    own = np.arange(shape[0])
    text = (scores.argmin(axis=2) == own).all(axis=1)
    image = (scores[:, :, : shape[0]].argmin(axis=1) == own).all(axis=1)
    expected = chance(*shape)
    for value, drawn in ((expected.answer, text), (expected.image, image)):
        assert value == pytest.approx(drawn.mean(), abs=0.005)
    assert expected.group == pytest.approx((text & image).mean(), abs=0.005)


def test_answers_are_pairings() -> None:
    for images, texts in ((1, 4), (2, 2), (3, 4)):
        for answer in range(n_answers(images, texts)):
            assert answer_of(pairing_of(answer, images, texts), texts) == answer
    assert pairing_of(1, 2, 2) == (0, 1) and n_answers(3, 1) == 3


@pytest.mark.parametrize("right", [0, 1])
def test_a_tie_is_wrong_wherever_the_right_text_stands(right: int) -> None:
    row = make_table(1, 9)
    one = decided([row, row, row + 1], (1, 3), right)
    assert concluded(one).ranking[0] == 1 - right and one.pairs is None
    both = decided([[row, row], [row, row]], (2, 2), 1)
    assert concluded(both).ranking[0] != 1
    assert both.image_right is False and both.group_right is False


def test_images_and_texts_are_asked_by_themselves() -> None:
    """Every text wins its image, and one image has the lower error for both texts."""
    errors = np.array([[1.0, 2.0], [4.0, 3.0]])[:, :, None] + np.zeros(5)
    found = decided(errors, (2, 2), answer_of((0, 1), 2))
    assert concluded(found).ranking[0] == 1 and found.image_right is False
    assert found.pairs is not None and found.pairs.tolist() == [[1, 2], [4, 3]]
    assert concluded(found).scores.tolist() == [5, 4, 6, 5] and concluded(found).margin == 1
    right = decided(errors - np.array([0, 3])[:, None, None], (2, 2), 1)
    assert right.image_right is False  # image 2 has the lower error for text 1 by now
    right = decided(errors - np.array([0, 1.5])[:, None, None], (2, 2), 1)
    assert right.image_right and right.group_right


def test_one_text_asks_which_image_fits() -> None:
    table = make_table(3, 40, gap=0.5)
    best = int(table.mean(axis=1).argmin())
    found = decided(table, (3, 1), best)
    assert concluded(found).ranking[0] == best and found.evaluations == 120
    assert "does not compare images" in str(decided(table, (3, 1), best, "race").error)


def test_a_strategy_that_gives_up_texts_serves_the_answer_alone() -> None:
    table = make_table(4, 200, gap=0.5).reshape(2, 2, -1)
    full, race = (decided(table, (2, 2), 0, name) for name in ("full", "race"))
    assert concluded(race).ranking[0] == concluded(full).ranking[0]
    assert race.evaluations < full.evaluations and race.image_right is None


def test_one_image_without_a_decision_fails_the_item() -> None:
    sample = Sample("x", 0, {}, Item((None, None), (0, 1)))
    whole = join(make_problem(make_table(2, 5)), [Decided(sample), Decided(sample)], True)
    assert whole.error == "one of its images was not decided" and whole.outcome is None


def test_one_image_that_fails_fails_the_item() -> None:
    errors = make_table(4, 9).reshape(2, 2, -1)
    errors[1, 0, 3] = np.nan
    found = decided(errors, (2, 2), 0)
    assert found.outcome is None and str(found.error).startswith(
        "image 2: the model's error is nan"
    )
    assert replace(found, error=None).evaluations == 36
