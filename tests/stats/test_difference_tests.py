"""Tests of one difference and of many: against scipy, and by how often studies err."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers.matrix import matrix
from helpers.scores import two_methods
from scipy import stats

from bench.contracts.strategy import Floats
from bench.discovery.queries import metric_specs
from bench.stats.inference import class_metrics
from bench.stats.inference.difference_tests import (
    Answers,
    Basis,
    MethodDifference,
    compare_all,
    compare_over_images,
    compare_over_seeds,
    corrected,
    difference_test,
    holm,
    ranks,
    sign_flips,
)
from bench.stats.inference.paired import Difference, difference_interval
from bench.stats.inference.variance import seed_error

Compare = Callable[..., Difference]


def right_and_wrong(n: int, both: int, one: int = 0, seeds: int = 2) -> tuple[Floats, Floats]:
    """Return a method that is always right, and one that some or all of its seeds get wrong."""
    a = np.ones((seeds, 1, n))
    b = a.copy()
    b[:, :, :both] = 0
    b[:1, :, both : both + one] = 0
    return a, b


def excludes_zero(found: Difference) -> bool:
    return found.interval[0] > 0 or found.interval[1] < 0


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw fewer permutations: their number is no claim of these tests."""
    monkeypatch.setattr(class_metrics, "PERMUTATIONS", 999)


def test_sign_flips_are_scipys_permutations() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, (2, 12)) / 3
    exact = stats.permutation_test(
        (b, a), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=5000
    )
    assert sign_flips(b - a)[0] == pytest.approx(exact.pvalue, abs=0.02)
    assert sign_flips(np.zeros(5))[0] == 1.0


def test_the_interval_of_sign_flips_has_the_means_that_they_do_not_reject() -> None:
    values = np.random.default_rng(2).integers(-2, 4, 40) / 3
    _, (low, high) = sign_flips(values)
    for end, inward in ((low, 1), (high, -1)):
        assert sign_flips(values - end - 0.02 * inward)[0] > 0.05
        assert sign_flips(values - end + 0.02 * inward)[0] <= 0.05


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("test", [compare_over_images, compare_over_seeds])
def test_p_and_interval_agree(test: Compare, seeds: int) -> None:
    if seeds == 1 and test is compare_over_seeds:
        pytest.skip("one seed says nothing of others")
    rng, rejected = np.random.default_rng(3), 0
    for n in rng.integers(5, 300, 60).tolist():
        found = test(*two_methods(rng, float(rng.choice([0.0, 0.1])), n, seeds))
        assert found.significant == excludes_zero(found)
        rejected += found.significant
    assert 3 < rejected < 57


@pytest.mark.parametrize(("seeds", "shift"), matrix([(3, 0.0), (3, 0.05), (5, 0.02)], [(3, 0.05)]))
def test_seeds_that_move_a_method_make_no_difference_over_seeds(seeds: int, shift: float) -> None:
    """Two equal methods, whose few runs do differ: the test over images may say so, often."""
    rng, studies = np.random.default_rng(4), 100
    p = [compare_over_seeds(*two_methods(rng, 0.0, 400, seeds, shift)).p for _ in range(studies)]
    assert np.mean(np.array(p) <= 0.05) <= 0.07
    if shift == 0.05:
        rng = np.random.default_rng(5)
        pairs = [two_methods(rng, 0.0, 1000, 3, shift) for _ in range(40)]
        over_images = [compare_over_images(*pair).p for pair in pairs]
        assert np.mean(np.array(over_images) <= 0.05) > 0.3


def test_a_difference_over_seeds_is_found() -> None:
    rng = np.random.default_rng(6)
    p = [compare_over_seeds(*two_methods(rng, 0.1, 1000, 3, 0.01)).p for _ in range(30)]
    assert np.mean(np.array(p) <= 0.05) > 0.8


def test_the_error_over_seeds_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(7)
    tables = [
        0.03 * rng.normal(size=(4, 1, 1))
        + 0.5 * rng.normal(size=(1, 1, 300))
        + 0.2 * rng.normal(size=(4, 1, 300))
        for _ in range(400)
    ]
    errors = [seed_error(table) for table in tables]
    variance = np.mean([one.of_seeds + one.of_images for one in errors])
    assert variance == pytest.approx(np.var([table.mean() for table in tables]), rel=0.15)
    assert errors[0].tail(errors[0].reach(0.01)) == pytest.approx(0.01)
    assert errors[0].tail(-errors[0].reach(0.01)) == pytest.approx(0.99)


@pytest.mark.long
def test_equality_is_claimed_rarely_where_the_margin_is_passed() -> None:
    rng, margin = np.random.default_rng(3), 0.05

    def claimed(gap: float, n: int, seeds: int, studies: int, test: Compare) -> float:
        found = [test(*two_methods(rng, gap, n, seeds), margin) for _ in range(studies)]
        return float(np.mean([(one.p_equal or 0.0) <= 0.05 for one in found]))

    assert claimed(margin, 900, 1, 200, compare_over_images) <= 0.10
    assert claimed(margin, 300, 3, 100, compare_over_images) <= 0.12
    assert claimed(margin, 300, 3, 100, compare_over_seeds) <= 0.12
    assert claimed(0.0, 4000, 1, 20, compare_over_images) >= 0.8
    assert claimed(0.0, 4000, 4, 20, compare_over_seeds) >= 0.8


@pytest.mark.parametrize("shape", [(2, 1), (1, 4), (3, 2)])
@pytest.mark.parametrize("wrong", [0, 1, 4, 9])
def test_runs_that_agree_on_each_image_are_one_run(wrong: int, shape: tuple[int, int]) -> None:
    a, b = right_and_wrong(36, wrong, seeds=1)
    alone = compare_over_images(a, b, 0.05)
    many_a, many_b = (np.broadcast_to(values, (*shape, 36)) for values in (a, b))
    assert compare_over_images(many_a, many_b, 0.05) == alone
    if wrong == 0:
        assert alone.interval[1] > 0.096 and alone.p_equal and alone.p_equal > 0.05
    if shape[0] > 1:
        over_seeds = compare_over_seeds(many_a, many_b, 0.05)
        assert over_seeds.interval[0] <= alone.interval[0] + 1e-12
        assert over_seeds.interval[1] >= alone.interval[1] - 1e-12
        assert (over_seeds.p_equal or 0) >= (alone.p_equal or 0)


@pytest.mark.parametrize("kind", ["equal", "half", "independent"])
@pytest.mark.parametrize("n", matrix([20, 34, 52, 110, 210], [34]))
def test_exact_tables_of_two_seeds_cover_and_are_rarely_called_equal(kind: str, n: int) -> None:
    """A is always right; a seed of B is wrong on an image with probability d, itself and again.

    The probability of each table is exact. Those left out, together below 0.2 %, count as misses
    and as false.
    """
    tables: dict[tuple[int, int], Difference] = {}
    for d in (0.02, 0.05, 0.1):
        again = {"equal": 1.0, "half": (1 + d) / 2, "independent": d}[kind]
        odds = stats.multinomial(n, [d * again, 2 * d * (1 - again), 1 - 2 * d + d * again])
        covered = false = seen = 0.0
        for both in range(n // 2):
            for one in range(n // 2):
                if (probability := odds.pmf([both, one, n - both - one])) < 1e-5:
                    continue
                if (both, one) not in tables:
                    tables[both, one] = compare_over_images(*right_and_wrong(n, both, one), 0.05)
                tested = tables[both, one]
                low, high = tested.interval
                covered += probability * (low <= -d <= high)
                false += probability * (d >= 0.05 and (tested.p_equal or 0) < 0.05)
                seen += probability
        assert covered >= 0.94 and false + (1 - seen if d >= 0.05 else 0) <= 0.05
        assert seen > 0.998


@pytest.mark.parametrize("n", [1, 3, 200])
@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "auroc"])
def test_no_difference_exceeds_the_range_of_its_metric(name: str, n: int) -> None:
    """Permutations of few images exclude no difference; a normal interval may be too wide.

    There are two seeds, so that means of images are tested by permutations.
    """
    labels = np.arange(n) % 2
    kind: Basis = "influence" if name == "auroc" else "images"
    wrong, right = (
        Answers(str(value), np.tile(answers, (2, 1, 1)), np.full((2, 1, n), value), kind)
        for value, answers in ((0.0, 1 - labels), (1.0, labels))
    )
    tested = difference_test(metric_specs()[name], labels, wrong, right)
    assert tested.estimate == 1 and -1 <= tested.interval[0] <= 1 == tested.interval[1]


@pytest.mark.parametrize("test", [compare_over_images, compare_over_seeds])
def test_images_that_belong_together_are_taken_together(test: Compare) -> None:
    a, b = two_methods(np.random.default_rng(5), 0.1, 60)
    times = [np.repeat(one, 10, axis=2) for one in (a, b)]
    once, apart = test(a, b).p, test(*times).p
    whole = test(*times, clusters=np.repeat(np.arange(60), 10)).p
    assert whole == pytest.approx(once, abs=0.015)
    assert once and apart is not None
    assert apart < once or (test is compare_over_seeds and apart == once)  # seeds alone decide


@pytest.mark.parametrize("sizes", [[4] * 36, [1] * 20 + [5] * 10 + [20] * 4])
def test_clusters_that_agree_are_no_more_than_their_number(sizes: list[int]) -> None:
    """Clusters of one size are as many single images; a few large ones are fewer still."""
    n, clusters = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)
    a, rng = np.ones((2, 1, n)), np.random.default_rng(7)
    low, high = difference_interval(0, 0, len(sizes))
    tied = compare_over_images(a, a, None, clusters).interval
    assert tied[0] <= low + 1e-9 and tied[1] >= high - 1e-9
    assert len({*sizes}) > 1 or tied == pytest.approx((low, high))
    covered = equal = 0
    for _ in range(150):
        wrong = (rng.random(len(sizes)) < 0.1)[clusters]
        tested = compare_over_images(a, a * ~wrong, 0.1, clusters)
        covered += tested.interval[0] <= -0.1 <= tested.interval[1]
        equal += (tested.p_equal or 0) < 0.05
    assert covered >= 0.93 * 150 and equal <= 0.06 * 150


@pytest.mark.parametrize(
    ("images", "method"),
    [(4, "approximate"), (5, "approximate"), (9, "approximate"), (10, "influence")],
)
def test_influence_values_of_few_images_in_a_class_test_nothing(images: int, method: str) -> None:
    """A weighted mean over images has influence values, and no classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [images, 30, 30])
    a, b = (
        Answers(name, labels[None, None], rng.normal(size=(1, 1, len(labels))), "influence")
        for name in "ab"
    )
    for name, tests in (("auroc", images >= 5), ("shape_bias", True)):
        metric = metric_specs()[name]
        pair = compare_all([a, b], labels, metric, margin=0.1)[0]
        tested = corrected([pair])[0]
        assert pair.difference.method == (method if name == "auroc" else "influence")
        values = pair.difference.p, pair.difference.p_equal, tested.p_holm, tested.p_equal_holm
        assert all((value is not None) == tests for value in values)
        assert tests or not (tested.different or tested.equal)


def test_holm_rejects_step_by_step() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(7) ** 2
        adjusted = holm(p)
        for alpha in (0.01, 0.05, 0.2, 0.6):
            rejected = np.zeros(7, bool)
            for step, place in enumerate(np.argsort(p)):
                if p[place] * (7 - step) > alpha:
                    break
                rejected[place] = True
            assert ((adjusted <= alpha) == rejected).all()
    assert holm([]).size == 0


def compare_two(a: Floats, b: Floats, margin: float | None = None) -> list[MethodDifference]:
    """Compare two methods of which is known which images they have right."""
    labels = np.zeros(a.shape[2], dtype=np.int64)
    methods = [right_answers("a", a), right_answers("b", b)]
    return compare_all(methods, labels, metric_specs()["accuracy"], margin)


def right_answers(name: str, right: Floats) -> Answers:
    """Return answers of which is known which are right."""
    return Answers(name, (right < 0.5).astype(np.int64), right)


def test_what_is_not_different_is_not_equal_for_that() -> None:
    a, b = two_methods(np.random.default_rng(4), 0.0, 30)
    found = corrected(compare_two(a, b, margin=0.02))[0]
    assert not found.different and not found.equal and found.p_equal_holm is not None


def test_a_rank_is_a_range_and_one_alone_has_none() -> None:
    better = np.zeros((3, 3), dtype=bool)
    better[0, 2] = True
    assert ranks(better) == [(1, 2), (1, 3), (2, 3)]
    assert ranks(better[:1, :1]) == [None] and ranks(better[:0, :0]) == []
