"""Questions that end a run: their error, the images that they take, and what peeking does instead.

    python benchmarks/sequential.py levels [--runs 10000]  false answers under looks at every image
    python benchmarks/sequential.py images                 images to an answer, and of a fixed test
    python benchmarks/sequential.py published              every pair of published runs
    python benchmarks/sequential.py cost                   evaluations to an answer, as a picture

*levels*: two runs of one accuracy differ on a share of 2,000 images, exactly one of them right. The
share of simulated comparisons that ever call them different, if every image is looked at, by the
sequential test and by McNemar's exact test with its fixed level (*peeking*); and how often the
interval up to the stop, or to the last image, misses the true difference of two runs that differ.

*images*: mean and 90 % quantile of the images until an answer, beside McNemar's exact test of a
number of images fixed beforehand, at a power of 80 and 90 %.

*published*: images used, the answer, and what all images of the split say.

*cost*: evaluations of the diffusion model until "does it differ from this classifier?" is answered,
of each dataset's cheapest published race: if all images were swept, raced, or raced until the
answer. A sweep is every prompt on every draw of the race. The passes of the classifier, one per
image, are left out. Writes design/sequential-cost.png.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.inputs.subsets import shuffle_samples
from bench.reports.measured import compare
from bench.stats.paired import ALPHA, mcnemar
from bench.stats.power import images_needed
from bench.stats.sequential import BETS, LOG_PRIOR, log_capital
from bench.store.questions import QuestionAnswer
from bench.store.runs import StoredRun, read_run

IMAGES, AT_ONCE = 2000, 500
ACCURACIES, DISCORDANT = (0.3, 0.5, 0.86, 1.0), (0.02, 0.1, 0.5)
DIFFERENCES = ((0.02, 0.05), (0.02, 0.1), (0.05, 0.1), (0.1, 0.2), (0.1, 0.3), (0.2, 0.4))


def capital_table(size: int) -> NDArray[np.float64]:
    """Return the logarithm of the capital against "B is no better", [wins, losses]."""
    counts = np.arange(size)
    won, lost = (np.multiply.outer(counts, np.log1p(sign * BETS)) for sign in (1, -1))
    table = np.empty((size, size))
    for wins in counts:
        paths = won[wins] + lost + LOG_PRIOR
        largest = paths.max(axis=1)
        table[wins] = largest + np.log(np.exp(paths - largest[:, None]).sum(axis=1))
    return table


def levels(runs: int) -> None:
    """Print how often equal runs are called different, and how often intervals miss."""
    table = capital_table(int(IMAGES * max(DISCORDANT)) + 200)
    print(f"{runs:,} comparisons of equal runs per line, {IMAGES:,} images, every one looked at")
    print("accuracy  discordant  sequential  peeking")
    for accuracy in ACCURACIES:
        for discordant in DISCORDANT:
            if discordant / 2 > min(accuracy, 1 - accuracy) + 1e-9:
                print(f"{accuracy:8}  {discordant:10}  impossible: no pair can differ so often")
                continue
            rejected = peeked = 0
            rng = np.random.default_rng(0)
            done = 0
            while done < runs:
                some = min(AT_ONCE, runs - done)
                shares = [discordant / 2, discordant / 2, 1 - discordant]
                outcome = rng.choice(3, size=(some, IMAGES), p=shares)
                wins, losses = (np.cumsum(outcome == side, axis=1) for side in (0, 1))
                capital = np.maximum(table[wins, losses], table[losses, wins])
                rejected += int((capital >= log(2 / ALPHA)).any(axis=1).sum())
                peeked += int((mcnemar(wins, losses) < ALPHA).any(axis=1).sum())
                done += some
            print(
                f"{accuracy:8}  {discordant:10}  {100 * rejected / runs:8.2f} %"
                f"  {100 * peeked / runs:5.1f} %",
                flush=True,
            )
    print("\nIntervals of runs that differ: share that misses the true difference")
    print("difference  discordant  up to the stop  ever")
    for difference, discordant in DIFFERENCES:
        rng, fewer = np.random.default_rng(1), max(runs // 20, 1)
        missed = np.zeros(2)
        for _ in range(fewer):
            shares = [(discordant + difference) / 2, (discordant - difference) / 2]
            values = rng.choice([1.0, -1.0, 0.0], size=IMAGES, p=[*shares, 1 - discordant])
            outside = np.maximum(
                log_capital(values, difference), log_capital(-values, -difference)
            ) >= log(2 / ALPHA)
            decided = np.maximum(log_capital(values, 0.0), log_capital(-values, 0.0))
            stops = np.flatnonzero(decided >= log(2 / ALPHA))
            at = stops[0] if len(stops) else IMAGES - 1
            missed += [outside[: at + 1].any(), outside.any()]
        print(
            f"{difference:10}  {discordant:10}  "
            + "  ".join(f"{100 * share:9.2f} %" for share in missed / fewer)
            + f"   ({fewer:,} comparisons)",
            flush=True,
        )


def images() -> None:
    """Print how many images an answer takes, beside fixed tests."""
    print("difference  discordant  mean  90 %   fixed at 80 %  at 90 %")
    for difference, discordant in DIFFERENCES:
        stops = simulated_stops(difference, discordant)
        fixed = [images_needed(difference, discordant, power) for power in (0.8, 0.9)]
        print(
            f"{difference:10}  {discordant:10}  {round(stops.mean()):5,}"
            f" {round(np.quantile(stops, 0.9)):5,}  {fixed[0]:13,}  {fixed[1]:7,}"
        )


def simulated_stops(difference: float, discordant: float) -> NDArray[np.float64]:
    """Simulate after how many images 400 comparisons of two runs are decided, float64 [400].

    To save time, the test is evaluated at about 400 numbers of images, up to ten times those of a
    fixed test of a power of 80 %. A comparison that is open there counts as ending there.
    """
    needed = images_needed(difference, discordant)
    assert needed is not None
    most = 10 * max(needed, 10)
    rng, step = np.random.default_rng(0), max(1, most // 400)
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    counts = rng.multinomial(step, shares, size=(400, most // step)).cumsum(axis=1)
    wins, losses = counts[..., 0, None], counts[..., 1, None]
    decided = np.zeros(wins.shape[:2], dtype=bool)
    for won, lost in ((wins, losses), (losses, wins)):
        paths = won * np.log1p(BETS) + lost * np.log1p(-BETS) + LOG_PRIOR
        decided |= np.logaddexp.reduce(paths, axis=-1) >= log(2 / ALPHA)
    return np.where(decided.any(axis=1), (decided.argmax(axis=1) + 1.0) * step, most)


def published(results: Path) -> None:
    """Print images used, the answer, and what all images say, for every pair of published runs."""
    print(f"{'A':44} {'B':44} {'images':>9}  answer   all images")
    folders = sorted(path.parent for path in results.glob("*/manifest.json"))
    used = total = disagreeing = decided = 0
    for a, b in combinations(folders, 2):
        try:
            both = compare(a, b, sequential=True)
        except UserError:
            continue
        answer = both.sequential
        assert answer is not None
        found, whole = both.difference, "same"
        if found.significant:
            whole = "better" if found.estimate > 0 else "worse"
        images = found.n or 0
        print(
            f"{a.name:44} {b.name:44} {answer.n:4} / {images:<4} {answer.verdict:8}"
            f" {whole:7} {found.estimate:+.4f}"
        )
        used, total = used + answer.n, total + images
        decided += answer.verdict != "open"
        disagreeing += answer.verdict not in ("open", whole)
    print(
        f"{decided} pairs decided; {used:,} of {total:,} images used; {disagreeing} answers are not"
        " what McNemar's test of all images says"
    )


class Cost(NamedTuple):
    """Evaluations of a diffusion model until it is compared with a classifier."""

    pair: str
    answer: QuestionAnswer
    sweep: float  # every prompt on every draw of every image
    races: float  # a race of every image
    stopped: float  # races of the images that the answer takes


def evaluations(results: Path) -> list[Cost]:
    """Return what it takes to answer whether a race's model is better than each classifier."""
    runs = [read_run(path.parent) for path in sorted(results.glob("*/manifest.json"))]
    races = [run for run in runs if run.manifest.strategy.name == "race" and run.summary]
    races = [run for run in races if not run.manifest.replayed_from]
    cheapest: dict[str, StoredRun] = {}
    for race in sorted(races, key=lambda run: run.decided().equivalents.sum(), reverse=True):
        cheapest[race.manifest.dataset.name] = race
    costs = []
    for name, race in sorted(cheapest.items()):
        manifest, decided = race.manifest, race.decided()
        sweep = len(manifest.prompts) * manifest.strategy.params["draws"] * len(decided)
        by_id = dict(zip(decided.sample_ids.to_pylist(), decided.equivalents, strict=True))
        order = shuffle_samples(by_id, manifest.identity.dataset.fingerprint)
        for other in runs:
            if other.manifest.dataset.name == name and other.manifest.classifier:
                answer = compare(other.path, race.path, sequential=True).sequential
                assert answer is not None
                stopped = sum(by_id[image] for image in order[: answer.n])
                words = f"{manifest.backbone.name} or {other.manifest.backbone.name}?"
                costs.append(Cost(words, answer, sweep, sum(by_id.values()), stopped))
    return costs


def draw(results: Path, out: Path) -> None:
    """Draw the evaluations of the diffusion model in each way to answer, per pair of models."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    costs = evaluations(results)
    figure = Figure((8, 4.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(costs))
    ways = (
        ("full sweeps of all images", [c.sweep for c in costs], "s", "#57606a"),
        ("races of all images", [c.races for c in costs], "o", "#1f5fbf"),
        ("races that stop at the answer", [c.stopped for c in costs], "D", "#ad3c0e"),
    )
    for label, values, shape, colour in ways:
        axes.plot(values, places, shape, color=colour, label=label, markersize=7)
    for place, cost in enumerate(costs):
        axes.plot([cost.stopped, cost.sweep], [place, place], color="#d5dae0", zorder=0)
        text = f"{cost.answer.n} of {cost.answer.total} images: {cost.answer.verdict}"
        axes.annotate(text, (cost.stopped, place), (0, 7), textcoords="offset points", fontsize=8)
        print(f"{cost.pair:32} {cost.sweep:9,} {cost.races:9,.0f} {cost.stopped:9,.0f}  {text}")
    axes.set_yticks(places, [cost.pair for cost in costs])
    axes.set_ylim(len(costs) - 0.4, -0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("evaluations of the diffusion model until “is A better than B?” is answered")
    axes.set_ylabel("A and B")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(out, dpi=150)
    print(f"Wrote {out}")


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["levels", "images", "published", "cost"])
    parser.add_argument("--runs", type=int)
    parser.add_argument("--results", type=Path, default=Path("results/published"))
    parser.add_argument("--out", type=Path, default=Path("design/sequential-cost.png"))
    chosen = parser.parse_args()
    if chosen.part == "levels":
        levels(chosen.runs or 10_000)
    elif chosen.part == "images":
        images()
    elif chosen.part == "published":
        published(chosen.results)
    else:
        draw(chosen.results, chosen.out)


if __name__ == "__main__":
    main()
