"""Cost and agreement of all strategies where prompts can hardly be told apart, on real models.

    python benchmarks/hard_recorded.py --results DIR [--images 400] [--only untrained,noise]
        [--compile] [--shard 1/2]

Each regime is recorded once, every prompt on every draw, and resumed where it was interrupted: some
hours on two cores for all of them, a seventh less with `--compile`. `--shard` records one part and
ends; when all are there, `bench results merge` makes the recording. Then every strategy is
replayed. A row has the mean cost in evaluations per image and the largest, the agreement with the
exhaustive decision (Wilson), and how many points that is above `adaptive`, paired image by image
(Tango), both with 95 % intervals. That interval reaches one point with 400 images and no
difference. Of UC Merced and the digits they are training images, since the other splits have fewer.
UC Merced and Caltech-101 are looked for beside the checkout (`tests/helpers/places.py`).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from helpers.places import CALTECH101, UCMERCED

import bench
from bench.recordings.recording import Recording, open_recording
from bench.recordings.replay import decide, strategy_for
from bench.stats.paired import paired_test
from bench.stats.shares import accuracy_interval
from benchmarks.hard_regimes import STRATEGIES

DRAWS = 40
VIEWS = (
    *("a satellite photo of", "an aerial photo of", "a satellite image of", "an aerial image of"),
    *("an overhead photo of", "a picture from above of", "a photo from the air of"),
)
BEACHES = ("a beach", "the beach", "some beach")
COPIES = 1000
TRAINING: dict[str, Any] = {"data_dir": str(UCMERCED), "split": "train"}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *STRATEGIES,
    ("paired-ttest", {"min_scores": 5}),
    ("race", {"first": 2, "ceiling": "adaptive"}),
    ("race", {"first": 2, "ceiling": "schedule"}),
]
HEAD = "| strategy | cost | at most | agreement, % | points above adaptive |\n|---|--:|--:|--:|--:|"


def record(results: Path, dataset: Any, backbone: str, draws: int = DRAWS, **settings: Any) -> Path:
    """Record a full sweep, or what is missing of it."""
    more = {"results": str(results), "save_errors": True, "batch_size": 64, **settings}
    return Path(bench.run(dataset, backbone, "full", {"draws": draws}, **more)["results_dir"])


def untrained(results: Path, **more: Any) -> Path:
    """A small network with random weights."""
    from helpers.pipelines import save_pipeline

    folder = results / "untrained"
    if not (folder / "scheduler").exists():
        save_pipeline(folder, "sd21")
    return record(results, "ucmerced", f"{folder}/", **TRAINING, **more)


def paraphrases(results: Path, **more: Any) -> Path:
    """Every class is asked with another wording of one of them."""
    texts = [f"{view} {beach}" for view in VIEWS for beach in BEACHES]
    file = results / "paraphrases.csv"
    classes = bench.load_dataset("ucmerced", data_dir=str(UCMERCED)).features["label"].names
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("prompt", "classname", "classidx"))
        rows.writerows((t, c, i) for i, (t, c) in enumerate(zip(texts, classes, strict=True)))
    return record(results, "ucmerced", "tiny-landuse", prompts=str(file), **TRAINING, **more)


def other_pictures(results: Path, **more: Any) -> Path:
    """The weights for digits, on landscapes."""
    return record(results, "ucmerced", "tiny-digits", **TRAINING, **more)


def noise(results: Path, **more: Any) -> Path:
    """Pure noise in the place of each image."""
    return record(results, "ucmerced", "tiny-landuse", control="noise", **TRAINING, **more)


def chance(results: Path, **more: Any) -> Path:
    """Caltech-101 with weights that were trained on landscapes alone."""
    return record(results, f"{CALTECH101}/", "tiny-landuse", draws=20, **more)


def near_duplicates(results: Path, **more: Any) -> Path:
    """A thousand classes whose prompts differ in a number."""
    import datasets

    digits = bench.load_dataset("digits", split="train")
    names = datasets.ClassLabel(names=[f"copy {number}" for number in range(COPIES)])
    rows = digits.cast_column("label", names)
    rows.info.dataset_name = "copies"
    template = "a handwritten digit three, {class}"
    return record(results, rows, "tiny-digits", draws=20, template=template, **more)


REGIMES: dict[str, Callable[..., Path]] = {
    "untrained": untrained,
    "paraphrases": paraphrases,
    "other pictures": other_pictures,
    "noise": noise,
    "chance": chance,
    "near duplicates": near_duplicates,
}


def replayed(recording: Recording) -> list[str]:
    """Return a row for each strategy."""
    samples, problem = recording.samples(), recording.problem
    prompts, n_draws = len(problem.class_of_prompt), len(problem.timesteps)
    tables = [recording.tables(sample.sample_id) for sample in samples]
    truth = [int(t.errors.astype(np.float64).mean(axis=1).argmin()) for t in tables]
    rows = []
    schedule = None
    for name, params in SETTINGS:
        strategy = strategy_for(recording, name, params)[1]
        decided = [decide(s, t, strategy, problem) for s, t in zip(samples, tables, strict=True)]
        winners = [d.outcome.ranking[0] if d.outcome else -1 for d in decided]
        right = np.array([a == b for a, b in zip(winners, truth, strict=True)])
        costs = np.array([d.equivalents for d in decided])
        low, high = (100 * end for end in accuracy_interval(int(right.sum()), len(right)))
        compared = ""
        if schedule is not None:
            found = paired_test(schedule, right)
            least, most = (100 * end for end in found.difference_ci95)
            compared = f"{100 * found.difference:+.1f} ({least:+.1f} to {most:+.1f})"
        schedule = right if name == "adaptive" else schedule
        if "ceiling" in params:
            ceiling = problem_ceiling(prompts, n_draws)
            assert costs.max() <= ceiling, f"{name} {params}: {costs.max()} is above {ceiling}"
        label = " ".join([name, *(f"{k}={v}" for k, v in params.items())])
        agreement = f"{100 * right.mean():.1f} ({low:.1f}–{high:.1f})"
        rows.append(
            f"| {label} | {costs.mean():,.0f} | {costs.max():,.0f} | {agreement} | {compared} |"
        )
    return rows


def problem_ceiling(prompts: int, draws: int) -> float:
    """Return what the default schedule of `adaptive` takes on so many prompts and draws."""
    first = max(1, draws // 10)
    return min(prompts * draws, prompts * first + min(5, prompts) * (draws - first))


def main() -> None:
    """Record what is missing; print a Markdown table for each regime."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--only", default=",".join(REGIMES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--shard")
    arguments = parser.parse_args()
    more = {"limit": arguments.images, "compile": arguments.compile, "shard": arguments.shard}
    arguments.results.mkdir(parents=True, exist_ok=True)
    for name in arguments.only.split(","):
        folder = REGIMES[name](arguments.results, **more)
        if arguments.shard:
            continue
        recording = open_recording(folder)
        prompts = len(recording.problem.class_of_prompt)
        print(
            f"\n*{name}*: {prompts:,} prompts, {recording.n_draws} draws,"
            f" n = {len(recording.records)}\n\n{HEAD}"
        )
        print("\n".join(replayed(recording)), flush=True)


if __name__ == "__main__":
    main()
