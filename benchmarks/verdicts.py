"""What questions and studies that stop promise, simulated: how often each of their claims is false.

    python benchmarks/verdicts.py boundary [--runs 2000]
    python benchmarks/verdicts.py interval [--runs 10000]
    python benchmarks/verdicts.py studies [--runs 200]
    python benchmarks/verdicts.py price [--runs 200]
    python benchmarks/verdicts.py table [--runs 500]
    python benchmarks/verdicts.py agreeing
    python benchmarks/verdicts.py groups [--runs 10000]

*boundary*: pairs of runs whose difference is exactly the limit of a question, so that every verdict
is false, looked at after every image; about all images like these, and about one split (*on this
split*) up to its last image but one. *any margin* is the share in which some verdict, at whatever
margin, would have been false: the confidence sequence ever missed the true difference.

*interval*: pairs at and near the limits. The share whose verdict, or p <= 0.05, is not that of the
interval printed beside it.

*studies*: methods whose answers are correlated, on the same 200 images, looked at after every
image. *drops a given best* and *some best*: of equally good methods; *worse*: some best method is
shown to be worse than the best (closed test); *named*: a study that ends names a method that is not
a best one. *images*: the mean of all methods' images to the end, without and with `strict`.

*price*: images to "better" with both ends at 2.5 %, beside one end at 5 %, the rule of before.

*table*: what each question bounds, over what, and in which share of simulations it was false: the
largest share of several cases, all with runs or methods that are tied or exactly at the limit; of
audits it is exact. It is the table of docs/concepts/racing.md.

*agreeing*: exact tables of a study with two seeds of each method. A is always right; a seed of B is
wrong on an image with probability d, and the other one there too: always (*equal*), with
probability d (*independent*), or either in half of the cases (*half*). *cover*: the smallest
probability that the interval has the true difference; *equal*: the largest that equality within d
is claimed.

*groups*: how often an interval has the accuracy of the group that is truly worst: Wilson's of the
group that looks worst, and the one that is stored.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from itertools import combinations, product
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multinomial, norm

from bench.stats.inference import class_metrics
from bench.stats.inference.difference_tests import compare_over_images
from bench.stats.inference.paired import ALPHA
from bench.stats.inference.shares import lowest_interval, wilson
from bench.stats.sequential import betting
from bench.stats.sequential.stopping_rules import (
    Results,
    StoppingRule,
    current_p,
    decided_at,
    parse_question,
)
from bench.store.questions import Verdict

# The question, what is false in at most 5 %, and over what.
BOUNDS = (
    (
        "`differs from RUN`, `better than RUN`, `… by 0.02`, `within 0.02 of RUN`",
        "any answer about this pair of runs in this metric, in both directions, at any margin, or"
        " the interval of the difference",
        "the images, as a sample of all images like these",
    ),
    (
        "… `on this split`",
        "the same about the images of this split; when all are stored, the answer is counted",
        "the random order of the split's images",
    ),
    (
        "`width 0.05`, and the interval of the accuracy beside every answer",
        "the interval; this 5 % is one of its own",
        "the images or, `on this split`, their order",
    ),
    (
        'a study with `stop = "best"`',
        "the method named is not a best one (with a `margin`: nor within it of a best one)",
        "the images, on each dataset",
    ),
    (
        "…",
        "any method is called *worse than the best* although it is a best one; this 5 % is one of"
        " its own",
        "the images, on each dataset",
    ),
    (
        'a study with `stop = "ranked"`',
        "any pair is in the wrong order, or called equal although it differs by the `margin`",
        "the images, on each dataset",
    ),
    (
        "an [audit](../trust.md#an-audit)",
        "the interval of the agreement",
        "the random order of the run's images",
    ),
)
IMAGES, PAIRS = 200, 60  # images per simulated run, and per run whose interval is computed
QUESTIONS = (("differs from a", 0.0), ("better than a by 0.1", 0.1), ("within 0.1 of a", 0.1))
STUDIES: tuple[tuple[float, ...], ...] = (
    *((0.7,) * 2, (0.7,) * 5, (0.7,) * 10),
    *((0.7, 0.5), (0.7, 0.7, 0.5, 0.5, 0.3), (0.7,) * 2 + (0.5,) * 4 + (0.3,) * 4),
)
DISCORDANT = (0.2, 0.5)  # shares of images that exactly one run gets right
AGREEING = {"equal": 1.0, "half": 0.5, "independent": 0.0}
GROUPS = (
    ("10 × 20 | 0.9", [20] * 10, [0.9] * 10),
    ("21 × 10 | 0.97", [10] * 21, [0.97] * 21),
    ("100 × 20 | 0.9", [20] * 100, [0.9] * 100),
    ("4 × 50 | 0.9", [50] * 4, [0.9] * 4),
    ("5, 10, 20, 40, 80, 160 | 0.9", [5, 10, 20, 40, 80, 160], [0.9] * 6),
    ("10 × 20 | one 0.6, others 0.9", [20] * 10, [0.6] + [0.9] * 9),
)
Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float, float], Values]


def drawn(rng: np.random.Generator, size: int, difference: float, discordant: float) -> Values:
    """Draw the differences of two runs, -1, 0 or 1 per image, with this expected difference."""
    better, worse = (discordant + difference) / 2, (discordant - difference) / 2
    return rng.choice([1.0, -1.0, 0.0], size, p=[better, worse, 1 - discordant])


def shuffled(rng: np.random.Generator, size: int, difference: float, discordant: float) -> Values:
    """Return the differences on a split of exactly this difference, in random order."""
    better, worse = (round(size * (discordant + sign * difference) / 2) for sign in (1, -1))
    values = np.repeat([1.0, -1.0, 0.0], [better, worse, size - better - worse])
    return rng.permutation(values)


POPULATIONS: dict[Draw, str] = {drawn: "", shuffled: " on this split"}


def results_of(differences: Values) -> Results:
    """Return the results of two runs with these differences on a whole split."""
    right, other = np.maximum(differences, 0.0), np.maximum(-differences, 0.0)
    return Results(right, other, len(differences))


def at_the_limit(
    question: StoppingRule, draw: Draw, difference: float, discordant: float, runs: int
) -> tuple[float, float]:
    """Return the share of pairs with a false verdict, and with one that is false at some margin."""
    rng, false, missed = np.random.default_rng(0), 0, 0
    for _ in range(runs):
        scored = results_of(draw(rng, IMAGES, difference, discordant)).first(IMAGES - 1)
        false += decided_at(question, scored)[0] != "open"
        missed += misses(scored.differences, difference, question.population(scored))
    return false / runs, missed / runs


def misses(values: Values, truth: float, population: betting.Population | None = None) -> bool:
    """Return whether the confidence sequence of the mean ever excludes the truth."""
    limit = Decimal(str(truth))
    sides = [betting.log_capital(side * values, side * limit, population) for side in (1, -1)]
    return bool((np.array(sides) >= betting.END_LEVEL).any())


def boundary(streams: int) -> None:
    """Print how often verdicts are false at the limit of each kind of question."""
    print(f"{streams:,} pairs of runs at the limit of a question, {IMAGES} images, each looked at")
    print(f"{'question':38} discordant  false verdict  at any margin")
    for text, difference in QUESTIONS:
        for draw, population in POPULATIONS.items():
            question = parse_question(text + population)
            for discordant in DISCORDANT:
                shares = at_the_limit(question, draw, difference, discordant, streams)
                false, missed = (100 * share for share in shares)
                print(
                    f"{text + population:38} {discordant:10}  {false:11.2f} %  {missed:11.2f} %",
                    flush=True,
                )


def interval(streams: int) -> None:
    """Print how often a verdict or p contradicts the interval beside it."""
    with ProcessPoolExecutor() as pool:
        verdicts, contradictions = np.sum(list(pool.map(contradicting, range(streams // 250))), 0)
    print(
        f"{streams:,} pairs at and near the limits, {PAIRS} images: {verdicts:,} verdicts,"
        f" {contradictions} contradict their interval"
    )


def contradicting(seed: int) -> tuple[int, int]:
    """Return how many of 250 pairs have a verdict, and how many contradict their interval."""
    asked = [(text + more, limit) for text, limit in QUESTIONS for more in ("", " on this split")]
    rng, verdicts, contradictions = np.random.default_rng(seed), 0, 0
    for pair in range(250):
        text, limit = asked[pair % len(asked)]
        question, near = parse_question(text), limit + float(rng.choice([-0.2, -0.1, 0.0, 0.1]))
        values = drawn(rng, PAIRS, near, float(rng.uniform(abs(near), 1)))
        scored = results_of(values).first(PAIRS - 1)
        verdict, n = decided_at(question, scored)
        used = scored.first(n)
        ends = betting.anytime_interval(used.differences, question.population(used))
        p = current_p(question, used)
        verdicts += verdict != "open"
        contradictions += contradicts(question, verdict, ends, p)
    return verdicts, contradictions


def contradicts(
    question: StoppingRule, verdict: Verdict, ends: tuple[float, float], p: float | None
) -> bool:
    """Return whether verdict or p is not what the interval of the difference shows."""
    (low, high), margin = ends, float(question.margin)
    if question.kind == "within":
        excluded = -margin < low and high < margin
        shown = {"within": excluded, "outside": low > margin or high < -margin}
    else:
        excluded = low > margin or high < margin
        shown = {"better": low > margin, "outside" if margin else "worse": high < margin}
    expected = [name for name, holds in shown.items() if holds] or ["open"]
    return expected != [verdict] or p is None or (p <= ALPHA) != excluded


class Course(NamedTuple):
    """What a simulated study claimed."""

    given: bool  # a given best method was dropped
    some: bool  # some best method was dropped
    worse: bool  # some best method was shown to be worse than the best
    named: bool  # it ended, and the method named is not a best one
    images: int  # images of all methods


def course(results: dict[str, Values], best: list[str], strict: bool) -> Course:
    """Return what a study claims that is looked at after every image."""
    out = betting.standings(results, "best", strict=strict).out
    ended = len(out) >= len(results) - 1
    named = max(results, key=lambda name: out.get(name, IMAGES + 1))
    end = max(n for name, n in out.items() if name != named) if ended else IMAGES
    dropped = {name: n for name, n in out.items() if n <= end and not (ended and name == named)}
    worse = False
    if dropped.keys() & set(best):
        until = {name: right[:end] for name, right in results.items()}
        p = betting.standings(until, "best", strict=strict).p
        worse = any(p[name] <= ALPHA for name in dropped.keys() & set(best))
    return Course(
        best[0] in dropped,
        any(name in dropped for name in best),
        worse,
        ended and named not in best,
        sum(dropped.get(name, end) for name in results),
    )


def answers(rng: np.random.Generator, accuracies: tuple[float, ...]) -> dict[str, Values]:
    """Draw which images methods get right; hard images are hard for all of them."""
    hard = rng.standard_normal(IMAGES)
    return {
        f"m{place}": (
            0.7 * hard + 0.7 * rng.standard_normal(IMAGES) < normal_quantile(accuracy)
        ).astype(float)
        for place, accuracy in enumerate(accuracies)
    }


def courses(accuracies: tuple[float, ...], strict: bool, runs: int) -> Values:
    """Return the means of a `Course` over studies, float64 [5]."""
    best = [f"m{place}" for place, a in enumerate(accuracies) if a == max(accuracies)]
    rng = np.random.default_rng(2)
    claims = [course(answers(rng, accuracies), best, strict) for _ in range(runs)]
    return np.asarray(np.mean(claims, axis=0))


def studies(runs: int) -> None:
    """Print how often studies of tied and unequal methods claim what is false."""
    print(f"{runs:,} studies of correlated methods per line, {IMAGES} images, each looked at")
    print("accuracies                       drops given best  some best  worse  named  images")
    for accuracies in STUDIES:
        for strict in (False, True):
            *claims, images = courses(accuracies, strict, runs).tolist()
            counts = {a: accuracies.count(a) for a in dict.fromkeys(accuracies)}
            words = ", ".join(f"{n} × {a}" for a, n in counts.items()) + " strict" * strict
            shares = "  ".join(f"{100 * share:6.1f} %" for share in claims)
            print(f"{words:32} {shares}  {images:7,.0f}", flush=True)


def normal_quantile(accuracy: float) -> float:
    """Return the bound below which a method of this accuracy is right on an image."""
    return float(norm.ppf(accuracy) * (0.7**2 + 0.7**2) ** 0.5)


def price(streams: int) -> None:
    """Print the images to "better" with both ends at 2.5 %, beside one end at 5 %."""
    rng, ends = np.random.default_rng(3), (log(1 / ALPHA), betting.END_LEVEL)
    for difference, discordant in ((0.1, 0.2), (0.1, 0.3), (0.2, 0.4)):
        stops = []
        for _ in range(streams):
            capital = betting.log_capital(drawn(rng, 2000, difference, discordant), 0.0)
            stops.append([int(np.append(capital < end, False).argmin()) + 1 for end in ends])
        before, now = np.mean(stops, axis=0)
        print(
            f"difference {difference}, discordant {discordant}: {now:.0f} images to “better”,"
            f" {before:.0f} with one end at 5 % ({100 * (now / before - 1):+.0f} %)",
            flush=True,
        )


def misordered(accuracies: tuple[float, ...], runs: int) -> float:
    """Return the share of studies with `stop = "ranked"` that order two tied methods.

    p falls with every image, so that the last look has every order that was ever claimed.
    """
    rng, wrong = np.random.default_rng(4), 0
    for _ in range(runs):
        shown = betting.standings(answers(rng, accuracies), "ranked")
        open_pairs = {frozenset(pair) for pair in shown.unresolved}
        names = combinations(enumerate(accuracies), 2)
        tied = [frozenset({f"m{i}", f"m{j}"}) for (i, a), (j, b) in names if a == b]
        wrong += any(pair not in open_pairs for pair in tied)
    return wrong / runs


def audits(size: int) -> float:
    """Return the largest probability, exactly, that an audit's interval ever misses the truth.

    Over the lattice of images drawn and of those that agree, whose steps have hypergeometric odds,
    for each number of agreeing decisions among `size`.
    """
    intervals = {
        (n, count): betting.count_interval(count, n, size)
        for n in range(1, size + 1)
        for count in range(n + 1)
    }
    largest = 0.0
    for truth in range(size + 1):
        alive, kept = {0: 1.0}, 1.0  # agreeing images → probability of paths that never missed
        for n in range(1, size + 1):
            after: dict[int, float] = {}
            for count, probability in alive.items():
                agrees = (truth - count) / (size - n + 1)
                for more, odds in ((1, agrees), (0, 1 - agrees)):
                    low, high = intervals[n, min(count + more, n)]
                    if odds > 0 and low <= truth <= high:
                        after[count + more] = after.get(count + more, 0) + probability * odds
            alive, kept = after, sum(after.values())
        largest = max(largest, 1 - kept)
    return largest


def table(runs: int) -> None:
    """Print what each question bounds, over what, and how often it was false."""
    pairs = {
        population: max(
            at_the_limit(parse_question(text + population), draw, difference, discordant, runs)[1]
            for text, difference in QUESTIONS
            for discordant in DISCORDANT
        )
        for draw, population in POPULATIONS.items()
    }
    rng = np.random.default_rng(6)
    widths = [
        np.mean(
            [misses(np.where(rng.random(IMAGES) < a, 1.0, -1.0), 2 * a - 1) for _ in range(runs)]
        )
        for a in (0.5, 0.7, 0.95)
    ]
    means = np.array([courses(a, strict, runs) for a in STUDIES for strict in (False, True)])
    _, _, worse, named, _ = means.max(axis=0)
    ranked = max(
        misordered(accuracies, runs) for accuracies in STUDIES if len(set(accuracies)) == 1
    )
    figures = (pairs[""], pairs[" on this split"], max(widths), named, worse, ranked, audits(60))
    print("| question | false in at most 5 %, at any number of images | over | simulated |")
    print("|---|---|---|--:|")
    for bound, figure in zip(BOUNDS, figures, strict=True):
        print(f"| {' | '.join(bound)} | {100 * figure:.1f} % |", flush=True)


def agreeing(_: int) -> None:
    """Print the exact coverage of two seeds that agree, and how often they are called equal."""
    class_metrics.PERMUTATIONS = 999  # a study has 20,000
    print("| images | seeds | cover, % | at d | called equal, % | at d |")
    print("| --: | --- | --: | --: | --: | --: |")
    for n, (kind, agree) in product((20, 34, 52, 110, 210), AGREEING.items()):
        shares = {d: two_seeds(n, d, agree + (1 - agree) * d) for d in (0.02, 0.05, 0.1, 0.2)}
        cover = min(shares, key=lambda d: shares[d][0])
        equal = max(shares, key=lambda d: shares[d][1])
        cells = (f"{100 * shares[cover][0]:.1f}", cover, f"{100 * shares[equal][1]:.1f}", equal)
        print(f"| {n} | {kind} | {' | '.join(map(str, cells))} |", flush=True)


def two_seeds(n: int, d: float, again: float) -> tuple[float, float]:
    """Return the probabilities that the interval has -d, and that equality within d is claimed.

    `again` is the probability that the second seed is wrong where the first one is. Tables with a
    probability below 1e-6 are left out of the sums, which are divided by what is left.
    """
    odds = multinomial(n, [d * again, 2 * d * (1 - again), 1 - 2 * d + d * again])
    both, one = np.indices((n + 1, n + 1)).reshape(2, -1)
    both, one = (counts[both + one <= n] for counts in (both, one))
    weights = odds.pmf(np.stack([both, one, n - both - one], axis=1))
    likely = weights > 1e-6
    held = claimed = 0.0
    for full, half, weight in zip(both[likely], one[likely], weights[likely], strict=True):
        wrong = np.ones((2, 1, n))
        wrong[:, :, :full], wrong[:1, :, full : full + half] = 0, 0
        tested = compare_over_images(np.ones((2, 1, n)), wrong, d)
        held += weight * (tested.interval[0] <= -d <= tested.interval[1])
        claimed += weight * ((tested.p_equal or 0.0) < ALPHA)
    return held / weights[likely].sum(), claimed / weights[likely].sum()


def groups(runs: int) -> None:
    """Print how often the interval of the worst group has the lowest accuracy of all groups."""
    print("| groups | accuracy | Wilson of the one that looks worst | stored | its mean width |")
    print("| --- | --- | --: | --: | --: |")
    for words, sizes, accuracies in GROUPS:
        n, truth = np.array(sizes), np.array(accuracies)
        tables = np.random.default_rng(5).binomial(n, truth, (runs, len(n)))
        worst = (tables / n).argmin(axis=1)
        low, high = wilson(tables[np.arange(runs), worst], n[worst])
        ends = np.array([lowest_interval(counts, n) for counts in tables])
        shares = [
            100 * np.mean((lows <= truth.min()) & (truth.min() <= highs))
            for lows, highs in ((low, high), ends.T)
        ]
        width = 100 * np.mean(ends[:, 1] - ends[:, 0])
        cells = (*(f"{share:.1f} %" for share in shares), f"{width:.0f} points")
        print(f"| {words} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print one of the tables."""
    parts = {boundary: 2000, interval: 10_000, studies: 200, price: 200, table: 500}
    parts |= {agreeing: 0, groups: 10_000}
    names = {part.__name__: part for part in parts}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=names)
    parser.add_argument("--runs", type=int)
    chosen = parser.parse_args()
    part = names[chosen.part]
    part(chosen.runs or parts[part])


if __name__ == "__main__":
    main()
