"""Tests of the questions that end a run, and of their answers."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from helpers.matrix import matrix
from helpers.refusals import refused

from bench.stats.sequential.betting import anytime_interval
from bench.stats.sequential.stopping_rules import (
    QuestionKind,
    Results,
    StoppingRule,
    answer,
    class_weights,
    decided_at,
    parse_question,
)
from bench.store.questions import AskedQuestion, QuestionAnswer, ending_answer


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("differs from a-1", StoppingRule("differs", "differs from a-1", "a-1")),
        ("better than a", StoppingRule("better", "better than a", "a")),
        (
            "better than  a by .02",
            StoppingRule("better", "better than a by .02", "a", Decimal("0.02")),
        ),
        ("within 0.02 of a", StoppingRule("within", "within 0.02 of a", "a", Decimal("0.02"))),
        ("width 0.05", StoppingRule("width", "width 0.05", None, Decimal("0.05"))),
        (
            "differs from a on this split",
            StoppingRule("differs", "differs from a on this split", "a", whole_split=True),
        ),
    ],
)
def test_questions_are_read(text: str, question: StoppingRule) -> None:
    assert parse_question(text) == question


@pytest.mark.parametrize(
    "text",
    ["", "better", "best", "within 2 of a", "width 0", "width x", "differs from", "width -1"],
)
def test_what_is_no_question_is_refused(text: str) -> None:
    with refused("--until"):
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


def test_the_width_is_that_of_the_accuracy() -> None:
    right = (pairs(150, 50, 0) + 1) / 2
    result = ask("width 0.25", right)
    low, high = result.interval
    assert high - low <= 0.25 and low < right[: result.n].mean() < high


def read_off(kind: QuestionKind, margin: Decimal, low: float, high: float) -> str:
    """The verdict that an interval of the difference shows."""
    if kind == "within":
        if -margin < low and high < margin:
            return "within"
        return "outside" if low > margin or high < -margin else "open"
    refuted = "outside" if margin else "worse"
    return "better" if low > margin else refuted if high < margin else "open"


BOUNDARIES = [
    ("differs from a", 0.0),
    ("better than a", 0.0),
    ("better than a by 0.1", 0.1),
    ("within 0.2 of a", 0.2),
    ("within 0.2 of a", 0.0),
]


@pytest.mark.parametrize("split", ["", " on this split"])
@pytest.mark.parametrize(("text", "difference"), matrix(BOUNDARIES, BOUNDARIES[2:4]))
def test_the_verdict_and_p_are_those_of_the_interval(
    text: str, difference: float, split: str
) -> None:
    """At and near the margin, in mixed orders and in those that drift, at several numbers."""
    question = parse_question(text + split)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        values = rng.choice([1.0, -1.0, 0.0], 150, p=[0.3 + difference, 0.3, 0.4 - difference])
        if seed % 3 == 0:
            values[:60] = np.sort(values[:60])[:: (-1) ** seed]
        for n in (20, 60, 149):
            known = answer(question, results(values, 150).first(n))
            low, high = known.difference_anytime_ci95 or (1, 0)
            assert known.verdict == read_off(question.kind, question.margin, low, high)
            margin = question.margin
            excluded = not low <= margin <= high
            if question.kind == "within":
                excluded = -margin < low and high < margin
            assert known.p is not None and (known.p <= 0.05) == excluded
            assert known.level == 0.05


@pytest.mark.parametrize(("text", "difference"), matrix(BOUNDARIES[:4], BOUNDARIES[2:4]))
def test_all_verdicts_on_a_pair_are_false_together_in_at_most_5_percent(
    text: str, difference: float
) -> None:
    """Of 400 pairs at the margin, where every verdict is false, none more than chance allows."""
    question, false = parse_question(text), 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        values = rng.choice([1.0, -1.0, 0.0], 300, p=[0.2 + difference, 0.2, 0.6 - difference])
        false += decided_at(question, results(values))[0] != "open"
    assert false <= 0.05 * 400


@pytest.mark.parametrize(
    ("text", "values", "verdict", "sentence"),
    [
        (
            "differs from a",
            pairs(11, 10, 79),
            "better",
            "all 100 images; the difference is +1.0 ",
        ),
        ("differs from a", pairs(10, 11, 79), "worse", "the difference is −1.0 points."),
        ("differs from a", np.array([1.0, -1.0]), "tied", "tied after all 2 images"),
        ("better than a by 0.07", pairs(17, 10, 73), "tied", "the difference is +7.0 points."),
        ("within 0.07 of a", pairs(3, 10, 87), "tied", "the difference is −7.0 points."),
        ("width 0.001", np.ones(60), "narrow", "reached after all 60 images."),
    ],
)
def test_all_images_of_the_split_are_counted_and_not_tested(
    text: str, values: np.ndarray, verdict: str, sentence: str
) -> None:
    whole = ask(f"{text} on this split", values, len(values))
    assert (whole.verdict, whole.n, whole.whole_split) == (verdict, len(values), True)
    assert sentence in whole.sentence and "counted, not tested" in whole.promise
    intervals = (whole.anytime_ci95, whole.accuracy_anytime_ci95, whole.difference_anytime_ci95)
    assert whole.p is None and intervals == (None, None, None)
    assert whole.difference == (None if text.startswith("width") else pytest.approx(values.mean()))
    tested = ask(text, values, len(values))
    assert tested.anytime_ci95 is not None and tested.difference is None


def counted_verdict(kind: QuestionKind, difference: Fraction, margin: Fraction) -> str:
    """The verdict on a split whose difference is known."""
    if kind == "within":
        sides = ("within", "tied", "outside")
        difference = abs(difference)
    else:
        sides = ("outside" if margin else "worse", "tied", "better")
    return sides[1 + (difference > margin) - (difference < margin)]


def class_orders(sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the class of each image in every order of one or two classes of these sizes."""
    for places in combinations(range(sum(sizes)), sizes[0]):
        classes = np.ones(sum(sizes), int)
        classes[list(places)] = 0
        yield classes


def runs_of(classes: np.ndarray, values: np.ndarray, sizes: tuple[int, ...]) -> Results:
    """Results of two runs on the first images of a split with so many images per class."""
    weights = class_weights(np.array(sizes, float))
    scored = results(values, sum(sizes))
    if len(sizes) == 1:
        return scored
    return scored._replace(weights=weights[classes[: len(values)]], max_weight=weights.max())


def asked_of(sizes: tuple[int, ...]) -> list[tuple[QuestionKind, Fraction, StoppingRule]]:
    """All questions on a split with each difference that two runs can have there as the margin."""
    sums = {Fraction(0)}
    for n in sizes:
        sums = {s + Fraction(k, n * len(sizes)) for s in sums for k in range(-n, n + 1)}
    asked: list[tuple[QuestionKind, Fraction]] = [("differs", Fraction(0)), ("better", Fraction(0))]
    asked += [(kind, m) for m in sums if 0 < m < 1 for kind in ("better", "within")]
    return [
        (kind, m, StoppingRule(kind, "", "a", Decimal(m.numerator) / m.denominator, True))
        for kind, m in asked
    ]


ONE_CLASS = [(n,) for n in range(2, 9)]
TWO_CLASSES = [(1, 1), (1, 3), (2, 3)]
LARGER = [(a, n - a) for n in (6, 7) for a in range(1, n // 2 + 1)]  # minutes


@pytest.mark.parametrize(
    "sizes",
    [
        *ONE_CLASS[:4],
        *TWO_CLASSES[:2],
        *(pytest.param(s, marks=pytest.mark.matrix) for s in (*ONE_CLASS[4:], TWO_CLASSES[2])),
        *(pytest.param(s, marks=pytest.mark.slow) for s in LARGER),
    ],
)
def test_few_of_all_orders_of_a_split_give_a_false_verdict(sizes: tuple[int, ...]) -> None:
    """At most 5 % of the orders, for all wins and losses in each class, at every margin.

    The last image is left out, since a verdict that counts it is always true. For two classes, the
    margins are those that the difference equals, at which any verdict is false.
    """
    n, asked = sum(sizes), asked_of(sizes)
    orders: Counter[object] = Counter()
    false: Counter[tuple[QuestionKind, Fraction, object]] = Counter()
    for classes in class_orders(sizes):
        for values in product((1.0, 0.0, -1.0), repeat=n - 1):
            scored = runs_of(classes, np.array(values), sizes)
            splits = {}
            for last in (1.0, 0.0, -1.0):
                counts = Counter(zip(classes.tolist(), (*values, last), strict=True))
                sums = [
                    Fraction(counts[c, 1.0] - counts[c, -1.0], size) for c, size in enumerate(sizes)
                ]
                splits[frozenset(counts.items())] = sum(sums, Fraction(0)) / len(sizes)
            orders.update(list(splits))
            for kind, margin, question in asked:
                if len(sizes) > 1 and margin not in map(abs, splits.values()):
                    continue
                verdict, _ = decided_at(question, scored)
                for split, difference in splits.items():
                    if verdict not in ("open", counted_verdict(kind, difference, margin)):
                        false[kind, margin, split] += 1
    shares = [count / orders[split] for (_, _, split), count in false.items()]
    assert max(shares, default=0) <= 0.05


@pytest.mark.parametrize(
    "sizes",
    [
        *ONE_CLASS[:4],
        *TWO_CLASSES[:2],
        *(pytest.param(s, marks=pytest.mark.matrix) for s in (ONE_CLASS[4], TWO_CLASSES[2])),
    ],
)
def test_the_verdict_on_all_images_is_that_of_counting(sizes: tuple[int, ...]) -> None:
    classes = next(class_orders(sizes))
    for values in product((1.0, 0.0, -1.0), repeat=sum(sizes)):
        of_class = [
            sum(int(v) for v, c in zip(values, classes, strict=True) if c == label)
            for label in range(len(sizes))
        ]
        sums = (Fraction(total, size) for total, size in zip(of_class, sizes, strict=True))
        difference = sum(sums, Fraction(0)) / len(sizes)
        for kind, margin, question in asked_of(sizes):
            verdict = counted_verdict(kind, difference, margin)
            assert decided_at(question, runs_of(classes, np.array(values), sizes)) == (
                verdict,
                sum(sizes),
            )


@pytest.mark.parametrize("sizes", [(40,), (4, 36)])
@pytest.mark.parametrize("text", ["differs from a", "differs from a on this split"])
def test_every_interval_is_in_order_and_possible(text: str, sizes: tuple[int, ...]) -> None:
    """Also in orders in which the first images weigh most, and those that are lost come last."""
    question, classes = parse_question(text), next(class_orders(sizes))
    for wins, losses in ((8, 16), (20, 10), (39, 1), (40, 0)):
        values = np.repeat([1.0, 0.0, -1.0], [wins, 40 - wins - losses, losses])
        scored = runs_of(classes, values, sizes)
        for seen in (1, 4, 20, 30, 38, 39):
            known = answer(question, scored.first(seen))
            used = scored.first(known.n)
            weights = np.ones(known.n) if used.weights is None else used.weights
            total, rest = (values[: known.n] * weights).sum(), 40 - weights.sum()
            reach = (-1, 1)
            if question.whole_split:
                reach = ((total - rest) / 40 - 1e-9, (total + rest) / 40 + 1e-9)
            low, high = known.difference_anytime_ci95 or (1, 0)
            assert max(reach[0], -1) <= low <= high <= min(reach[1], 1)
            low, high = known.anytime_ci95 or (1, 0)
            assert 0 <= low <= high <= 1


def test_weights_make_the_mean_over_classes() -> None:
    labels = np.repeat([0, 1], [90, 10])
    weights = class_weights(np.bincount(labels).astype(float))[labels]
    right = np.where(labels == 1, 1.0, 0.5)
    assert (right * weights).mean() == pytest.approx(0.75)
    rng = np.random.default_rng(0)
    order = rng.integers(0, 100, 3000)
    values = (rng.random(3000) < right[order]).astype(float)
    balanced = Results(values, None, 3000, weights[order], weights.max())
    low, high = answer(parse_question("width 0.2"), balanced).anytime_ci95 or (1, 0)
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
    assert decided.difference_anytime_ci95 == pytest.approx((1.5 * ends[0], 1.0))
    assert 1.5 * ends[1] > 1


def test_a_weighted_question_errs_rarely_however_often_it_is_asked() -> None:
    """With equal models, of 300 runs of 300 images, at most 5 % differ; 10 % would be 30 runs."""
    question = parse_question("differs from a in balanced accuracy")
    rng, different = np.random.default_rng(0), 0
    weights = class_weights(np.array([270.0, 30.0]))
    for _ in range(300):
        labels = rng.permutation(np.repeat([0, 1], [270, 30]))
        right, wrong = rng.integers(0, 2, (2, 300)).astype(float)
        results = Results(right, wrong, 300, weights[labels], weights.max())
        different += decided_at(question, results)[0] != "open"
    assert different <= 0.05 * 300 + 2 * (300 * 0.05 * 0.95) ** 0.5


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
