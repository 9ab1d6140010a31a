"""How often a study's tests call two methods different that are not, and what intervals miss.

    python benchmarks/study_levels.py [--studies 1000]
    python benchmarks/study_levels.py --influence [--studies 150]
    python benchmarks/study_levels.py --classes [--studies 500]

Two methods answer the same n images with S seeds each. Whether an image is right is a threshold on
its difficulty, which both methods share, on what one method makes of the image, on a shift of the
seed, and on noise of its own; the accuracy is 85 %. Two questions have their own null:

* *these*: the seeds' shifts are the same in both methods (in another order), so that these runs
  have the same accuracy over all images;
* *any*: the shifts are drawn anew for each method, so that the methods have the same accuracy over
  all seeds, and these runs have not.

Printed are the shares, in percent, of studies with p <= 0.05: `images`, the test over images, under
both nulls (under *any* it is right to reject: these runs do differ); `seeds`, the test over seeds,
under *any*; `Hillis`, the same with one t quantile and his degrees of freedom; and `off`, how many
studies had a p that contradicts its interval.

With `--influence`: the share of z tests of influence values with p <= 0.05, for two methods whose
scores of all classes are exchangeable, by the number of classes and of images in each.

With `--classes`: the share of 95 % intervals of the balanced accuracy that have the true value, by
the number of classes and of images in each; the smallest of three accuracies, whose classes differ
(0.6, 0.85 and 0.95 on average). *Bias*: the mean of the metric minus its true value, the largest.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from bench.contracts.metric import MetricInput
from bench.discovery.queries import metric_specs
from bench.stats.inference import class_metrics
from bench.stats.inference.class_metrics import class_average, image_values
from bench.stats.inference.difference_tests import compare_over_images, compare_over_seeds
from bench.stats.inference.paired import ALPHA, Difference
from bench.stats.inference.variance import image_error, seed_error, spread
from bench.stats.metrics.metric_values import make_metric

ACCURACY, OWN, NOISE = 0.85, 0.5, 0.5
IMAGES, SEEDS, SPREADS = (200, 2000, 10_000), (2, 3, 5, 8), (0.0, 0.01, 0.03)

CLASS_METRICS = ("balanced_accuracy",)  # others: `benchmarks/coverage.py classes`

Floats = NDArray[np.float64]


def methods(
    rng: np.random.Generator, n: int, seeds: int, spread: float, question: str
) -> tuple[Floats, Floats]:
    """Return whether two methods' runs are right, [seeds, 1, n] each.

    Args:
        rng: the source of the draws.
        n: images.
        seeds: of each method.
        spread: the standard deviation of a run's accuracy over seeds.
        question: `these` or `any`.
    """
    deviation = np.sqrt(1 + OWN**2 + NOISE**2)
    threshold = norm.ppf(ACCURACY) * deviation
    unit = spread * deviation / norm.pdf(norm.ppf(ACCURACY))
    hard, shifts = rng.standard_normal(n), unit * rng.standard_normal((2, seeds))
    if question == "these":
        shifts[1] = shifts[0, ::-1]
    a, b = (
        threshold
        + hard
        + OWN * rng.standard_normal(n)
        + shift[:, None, None]
        + NOISE * rng.standard_normal((seeds, 1, n))
        > 0
        for shift in shifts
    )
    return a.astype(np.float64), b.astype(np.float64)


def hillis_p(a: Floats, b: Floats) -> float:
    """Return the p of Obuchowski & Rockette's t with the degrees of freedom of Hillis (2007)."""
    error = seed_error(b - a)
    variance = error.of_seeds + error.of_images
    if not variance:
        return 1.0
    freedom = (len(a) - 1) * (variance / error.of_seeds) ** 2 if error.of_seeds else np.inf
    return float(2 * t.sf(abs(float((b - a).mean())) / np.sqrt(variance), freedom))


def contradicts(tested: Difference) -> bool:
    """Return whether p is at most 0.05 and the interval contains 0, or the other way round."""
    low, high = tested.interval
    return tested.significant != (low > 0 or high < 0)


def influence_level(name: str, classes: int, images: int, studies: int) -> float:
    """Return how often a z test of a metric's influence values rejects that methods are equal."""
    metric, rng, rejected = make_metric(metric_specs()[name]), np.random.default_rng(1), 0
    labels, names = np.arange(classes * images) % classes, tuple(map(str, range(classes)))
    for _ in range(studies):
        values, hard = [], rng.normal(size=(len(labels), classes))
        for _ in "ab":
            scores = hard + rng.normal(size=hard.shape)
            scores[np.arange(len(labels)), labels] -= 1.5
            decisions = MetricInput(names, labels, scores.argmin(axis=1), scores=scores)
            values.append(np.asarray(metric.influence(decisions)))
        change = values[1] - values[0]
        error = image_error(change[None, None])
        rejected += error > 0 and 2 * norm.sf(abs(change.mean()) / error) <= ALPHA
    return rejected / studies


def influence_levels(studies: int) -> None:
    """Print a line for each number of images in a class."""
    cases = list(product(("auroc", "average_precision"), (3, 10, 50)))
    print(f"| images in a class | {' | '.join(f'{name}, {c} classes' for name, c in cases)} |")
    print(f"| {'--: | ' * (1 + len(cases))}")
    for images in (2, 3, 5, 10, 20):
        shares = [100 * influence_level(name, c, images, studies) for name, c in cases]
        print(f"| {images} | {' | '.join(f'{share:.0f}' for share in shares)} |", flush=True)


def class_coverage(
    rng: np.random.Generator, classes: int, images: int, accuracy: float, runs: int
) -> dict[str, tuple[float, float]]:
    """Return how often the interval of each metric has its true value, and its bias."""
    labels = np.repeat(np.arange(classes), images)
    own = np.clip(rng.normal(accuracy, 0.4 * (1 - accuracy), classes), 0.05, 0.995)
    odds = np.zeros((classes, classes))
    for label in range(classes):
        others = np.arange(classes) != label
        odds[label, others] = (1 - own[label]) * rng.dirichlet(np.full(classes - 1, 0.5))
        odds[label, label] = own[label]
    limits, size = odds.cumsum(axis=1), np.full(classes, 1.0)
    results = {}
    for name in CLASS_METRICS:
        spec, held, bias = metric_specs()[name], 0, 0.0
        truth = class_average(spec, np.diag(odds), size, odds.sum(axis=0))
        for _ in range(runs):
            drawn = (rng.random(len(labels))[:, None] > limits[labels]).sum(axis=1)
            values = image_values(spec, labels, np.minimum(drawn, classes - 1))
            by_label = labels if spec.of_classes else None
            ends = spread(values[None, None], influence=True, classes=by_label).interval
            held += ends is not None and ends[0] <= truth <= ends[1]
            bias += float(values.mean()) - truth
        results[name] = held / runs, bias / runs
    return results


def class_coverages(runs: int) -> None:
    """Print a line for each number of classes and of images in each."""
    names = [name.replace("_", " ") for name in CLASS_METRICS]
    print(f"| classes × images | {' | '.join(f'{name} | bias' for name in names)} |")
    print(f"| --- {'| --: | --: ' * len(names)}|")
    rng = np.random.default_rng(2)
    for classes, images in ((21, 2), (21, 3), (10, 3), (21, 5), (3, 10), (21, 10), (21, 20)):
        cases = [class_coverage(rng, classes, images, a, runs) for a in (0.6, 0.85, 0.95)]
        cells = []
        for name in CLASS_METRICS:
            held, biases = zip(*(case[name] for case in cases), strict=True)
            cells += [f"{100 * min(held):.1f}", f"{100 * max(biases, key=abs):+.1f}"]
        print(f"| {classes} × {images} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print a line for each number of images and seeds and each spread over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=1000, help="simulated per line and null")
    parser.add_argument("--influence", action="store_true", help="only tests of influence values")
    parser.add_argument("--classes", action="store_true", help="only intervals of class averages")
    chosen = parser.parse_args()
    studies = chosen.studies
    if chosen.classes:
        class_coverages(studies)
        return
    if chosen.influence:
        influence_levels(studies)
        return
    class_metrics.PERMUTATIONS = 999  # a study has 20,000; the level is the same
    print("| images | seeds | ±seeds | images, these | images, any | seeds, any | Hillis | off |")
    print("| --: | --: | --: | --: | --: | --: | --: | --: |")
    for n, seeds, moved in product(IMAGES, SEEDS, SPREADS):
        rng = np.random.default_rng([n, seeds, round(1000 * moved)])
        found: dict[str, int] = dict.fromkeys(("these", "any", "seeds", "Hillis", "off"), 0)
        for _ in range(studies):
            tested = compare_over_images(*methods(rng, n, seeds, moved, "these"))
            found["these"] += tested.significant
            found["off"] += contradicts(tested)
            runs = methods(rng, n, seeds, moved, "any")
            for name, tested in (
                ("any", compare_over_images(*runs)),
                ("seeds", compare_over_seeds(*runs)),
            ):
                found[name] += tested.significant
                found["off"] += contradicts(tested)
            found["Hillis"] += hillis_p(*runs) <= 0.05
        shares = [
            f"{100 * found[name] / studies:.1f}" for name in ("these", "any", "seeds", "Hillis")
        ]
        cells = [f"{n:,}", str(seeds), f"{100 * moved:.0f}", *shares, str(found["off"])]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
