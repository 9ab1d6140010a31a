"""Weights over noise levels, learned from few labelled images: a curve over their number.

    python studies/few-shot-weights/curve.py record RESULTS --data-dir ~/data/UCMerced_LandUse
    python studies/few-shot-weights/curve.py table RESULTS --figure curve.svg
    python studies/few-shot-weights/curve.py split RUN

`record` sweeps the included models over images that they were not trained on, clean and corrupted:
those to learn from, and the test images (64,000 evaluations of tiny-digits and 44,100 of
tiny-landuse; an interrupted sweep resumes).
`table` draws one, two, four … images per class to learn from, twenty times, learns weights
as `--weighting learned:RUN` does (`bench.stats.calibration.level_weights`), and prints how often
the test images are then decided right. The images to learn from are never test images, of either
domain. `split` does so with the two halves of a single recorded run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tiny-backbones"))

import numpy as np
from numpy.typing import NDArray

import bench
from bench.recordings.recording import open_recording
from bench.stats.calibration.level_weights import BUCKETS, bucket_errors, bucket_of, fit_weights
from bench.stats.inference.difference_tests import compare_over_seeds
from bench.stats.inference.variance import spread
from bench.store.formats.cells import read_draws

DOMAINS = ("clean", "corrupted")
CORRUPTED = {"tiny-digits": "contrast:4", "tiny-landuse": "gaussian-noise:3"}
PARTS = ("learn", "test")
DRAWS = {"tiny-digits": 20, "tiny-landuse": 10}  # one in each bucket of levels, or in every other
LIMITS = {"tiny-digits": (80, 80), "tiny-landuse": (42, 63)}  # images to learn from, and to test
SHOTS, SEEDS = (1, 2, 4, 8), 20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recorded:
    """A sweep: the errors of each class in each bucket of levels, and the class of each image."""

    errors: Floats  # float64 [n, classes, 20]
    labels: Ints  # int64 [n]

    def right(self, weights: Floats) -> NDArray[np.bool_]:
        """Return whether each image is decided right with weights of the buckets, bool [n]."""
        return np.asarray((self.errors @ weights).argmin(axis=1) == self.labels)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    model: str
    learned_on: str  # domain of the images to learn from; empty for equal weights
    scored_on: str  # domain of the test images
    shots: int  # images per class to learn from; 0 for equal weights
    images: int  # number of test images
    accuracy: float
    interval: tuple[float, float]  # 95 %, over other test images and other images to learn from
    gain: float  # accuracy minus that with equal weights
    gain_interval: tuple[float, float]  # 95 %, in the same sense


def record(results: Path, data_dir: str | None) -> None:
    """Make the sweeps of both models, two parts and two domains, or resume them."""
    from data import load, read_recipe

    held_out = load(read_recipe("digits"), None)["validation"].rows
    digits = {"learn": held_out, "test": bench.load_dataset("digits", "test")}
    for model, limits in LIMITS.items():
        for domain in DOMAINS:
            corrupt = "none" if domain == "clean" else CORRUPTED[model]
            for part, limit in zip(PARTS, limits, strict=True):
                sweep = partial(
                    bench.run, backbone=model, strategy="full", params={"draws": DRAWS[model]},
                    plan="grid", corrupt=corrupt, limit=limit, save_errors=True,
                    results=str(results / f"{part}-{domain}" / model),
                )  # fmt: skip
                if model == "tiny-digits":
                    sweep(digits[part], template="a handwritten digit {class}")
                else:
                    split = "validation" if part == "learn" else "test"
                    sweep("ucmerced", split=split, data_dir=data_dir)


def complete(results: Path, part: str, model: str) -> list[str]:
    """Return the domains in which a sweep of a model on a part of the images is complete."""
    return [d for d in DOMAINS if any((results / f"{part}-{d}" / model).glob("*/summary.json"))]


def read(results: Path, part: str, domain: str, model: str) -> Recorded:
    """Return the sweep of a model on a part of the images in a domain."""
    (path,) = (
        file.parent for file in (results / f"{part}-{domain}" / model).glob("*/manifest.json")
    )
    return read_run(path)


def read_run(path: Path) -> Recorded:
    """Return a recorded sweep with a single prompt per class."""
    recording = open_recording(path)
    draws = read_draws(path, recording.n_draws)
    assert draws is not None
    buckets = bucket_of(draws.levels, draws.n_levels)
    errors = [recording.errors(r["sample_id"]).astype(np.float64) for r in recording.records]
    labels = np.array([record["label"] for record in recording.records])
    return Recorded(bucket_errors(np.stack(errors), buckets), labels)


def draw(labels: Ints, shots: int, seed: int) -> Ints:
    """Return the rows of so many images of each class; those of more shots include them."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    chosen = [order[labels[order] == label][:shots] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def halves(recorded: Recorded) -> tuple[Recorded, Recorded]:
    """Return two halves of a sweep, each with half of the images of every class."""
    first = draw(recorded.labels, int(np.bincount(recorded.labels).min()) // 2, seed=0)
    rest = np.setdiff1d(np.arange(len(recorded.labels)), first)
    a, b = (Recorded(recorded.errors[rows], recorded.labels[rows]) for rows in (first, rest))
    return a, b


def learned(learn: Recorded, shots: int, seeds: int) -> list[Floats]:
    """Return the weights of the buckets, float64 [20], learned from each drawing of images."""
    drawings = [draw(learn.labels, shots, seed) for seed in range(seeds)]
    return [fit_weights(learn.errors[rows], learn.labels[rows]) for rows in drawings]


def curve(
    model: str, learn: dict[str, Recorded], test: Recorded, scored_on: str, seeds: int = SEEDS
) -> Iterator[Row]:
    """Yield the rows of a model on the test images of a domain."""
    equal = test.right(np.ones(BUCKETS))[None, None].astype(np.float64)
    n = equal.shape[2]
    flat = spread(equal)
    assert flat.interval is not None
    yield Row(model, "", scored_on, 0, n, flat.value, flat.interval, 0.0, (0.0, 0.0))
    for learned_on, recorded in learn.items():
        for shots in SHOTS:
            if shots > np.bincount(recorded.labels).min():
                continue
            weights = learned(recorded, shots, seeds)
            right = np.stack([test.right(w) for w in weights])[:, None].astype(np.float64)
            mean = spread(right, over="seeds")
            assert mean.interval is not None
            gain = compare_over_seeds(np.broadcast_to(equal, right.shape), right)
            yield Row(
                model, learned_on, scored_on, shots, n, mean.value, mean.interval, gain.estimate,
                gain.interval,
            )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| model | scored on | learned on | images per class | accuracy, % | gain, points |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        accuracy = f"{100 * row.accuracy:.1f} ({_ends(row.interval)})"
        gain = f"{100 * row.gain:+.1f} ({_ends(row.gain_interval, '+')})" if row.shots else "–"
        cells = (
            row.model, f"{row.scored_on}, n = {row.images}", row.learned_on or "equal weights",
            str(row.shots or "–"), accuracy, gain,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ends(interval: tuple[float, float], sign: str = "") -> str:
    low, high = (f"{100 * end:{sign}.1f}" for end in interval)
    return f"{low} to {high}"


def write_rows(rows: Sequence[Row], file: Path) -> None:
    """Store the rows of a table as JSON."""
    file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read_rows(file: Path) -> list[Row]:
    """Return the rows that are stored in a file."""
    return [Row(**row) for row in json.loads(file.read_text())]


def draw_figure(rows: Sequence[Row], file: Path) -> None:
    """Draw the accuracies against the number of images per class, a panel per model and domain."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row.model, row.scored_on) for row in rows))
    figure = Figure((3.2 * len(panels), 3), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        own = [row for row in rows if (row.model, row.scored_on) == panel]
        axes.axhline(100 * own[0].accuracy, color="grey", linestyle="--", label="equal weights")
        for domain in DOMAINS:
            points = [row for row in own if row.learned_on == domain]
            x, y = [row.shots for row in points], [100 * row.accuracy for row in points]
            ends = [[100 * abs(r.accuracy - r.interval[k]) for r in points] for k in (0, 1)]
            axes.errorbar(x, y, ends, marker="o", capsize=3, label=f"learned on {domain}")
        axes.set(title=f"{panel[0]}, scored on {panel[1]}", xlabel="images per class", xscale="log")
        axes.set_xticks(SHOTS, map(str, SHOTS), minor=False)
        axes.minorticks_off()
    axes.legend(fontsize="small")
    figure.axes[0].set_ylabel("accuracy, %")
    figure.savefig(file)


def main() -> None:
    """Make the sweeps, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("action", choices=("record", "table", "split"))
    parser.add_argument("results", type=Path)
    parser.add_argument("--data-dir", help="UC Merced, for record")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.action == "record":
        record(options.results, options.data_dir)
        return
    if options.action == "split":
        learn_half, test_half = halves(read_run(options.results))
        print(table([*curve(options.results.name, {"clean": learn_half}, test_half, "clean")]))
        return
    rows: list[Row] = []
    for model in DRAWS:
        domains = complete(options.results, "learn", model)
        learn = {domain: read(options.results, "learn", domain, model) for domain in domains}
        for domain in complete(options.results, "test", model):
            rows += curve(model, learn, read(options.results, "test", domain, model), domain)
    print(table(rows))
    write_rows(rows, options.results / "rows.json")
    if options.figure:
        draw_figure(rows, options.figure)


if __name__ == "__main__":
    main()
