"""How the cost grows with the number of prompts: full, race and screen-race, with the model.

    python benchmarks/screening_growth.py digits --out FOLDER
    python benchmarks/screening_growth.py ucmerced --data-dir … --backbone … --out FOLDER

Beside the data set's own prompts stand paraphrases of them (more prompts of the same class) and
unrelated texts (each a class of its own), up to K prompts in all. How far apart the embeddings lie
is reported, since distractors that the text encoder takes for one and the same would prove
nothing; so is the reach that the winner would have needed, since a reach learned for one set of
prompts has no level for another. Images are of the first classes, the same ones for every K.
`full` is run up to --exhaustive prompts, and costs K × draws beyond; agreement is with `full`
where it ran, else with `race`, and self-agreement that of the same under the first seed.
Writes growth.json and growth.png.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine.denoising import DenoisingEngine
from bench.engine.trees import leaves
from bench.errors import UserError
from bench.inputs.prompts import Prompts
from bench.inputs.subsets import select_subset
from bench.running.prepare import prepare
from bench.running.settings import RunConfig
from bench.stats.risk import distances

PARAPHRASES = (
    "this is {}", "a picture of {}", "an image showing {}", "we see {}", "{}, seen closely",
    "{}, seen from afar", "a clear view of {}", "a blurry view of {}", "a typical example of {}",
)  # fmt: skip
THINGS = (
    "a cat", "a dog", "a violin", "a bicycle", "a cup of tea", "an elephant", "a wedding cake",
    "a snow storm", "a wooden chair", "a red car", "a sleeping child", "a candle", "a guitar",
    "a sailing ship", "an old book", "a bowl of fruit", "a spider", "a goldfish", "a pair of shoes",
    "a steam train", "a clock tower", "a waterfall", "a field of tulips", "a penguin", "a lamp",
    "a stone bridge", "a birthday party", "a microscope", "a chess board", "a hot air balloon",
)  # fmt: skip
SCENES = (
    "{}", "a drawing of {}", "{} at night", "{} in the rain", "{} on a table", "two of {}",
    "{} under water", "a child with {}", "{} in a museum", "a cartoon of {}", "{} made of glass",
    "{} in front of a wall", "the shadow of {}", "{} in the desert", "{} on the moon",
    "a toy of {}", "{} covered in snow", "{} and a mirror", "a statue of {}", "{} on fire",
    "{} in a forest", "a poster of {}", "{} behind a window", "{} in a crowd", "the ruins of {}",
    "{} at sunrise",
    "a map of {}", "{} in black and white", "{} in a bottle", "the inside of {}", "{} from behind",
    "a photograph of {}",
)  # fmt: skip


def crowd(real: Prompts, phrases: list[str], count: int) -> Prompts:
    """Return `count` prompts: the real ones first, then a quarter paraphrases, the rest others."""
    texts, classes = list(real.texts[:count]), list(real.class_of_prompt[:count])
    known = list(enumerate(phrases[: len(texts)]))
    paraphrases = [(form.format(phrase), c) for form in PARAPHRASES for c, phrase in known]
    for text, index in paraphrases[: (count - len(texts)) // 4]:
        texts.append(text)
        classes.append(index)
    others = [form.format(thing) for form in SCENES for thing in THINGS]
    if count - len(texts) > len(others):
        raise SystemExit(f"there are texts for {len(texts) + len(others)} prompts only")
    for text in others[: count - len(texts)]:
        texts.append(text)
        classes.append(max(classes) + 1)
    return Prompts(tuple(texts), tuple(classes), tuple(texts))


def spread(engine: DenoisingEngine, n_real: int) -> dict[str, float]:
    """Return how far the embeddings lie apart, in units of the real prompts' mean distance.

    `nearest_*` is the mean distance to the nearest other prompt; `collapsed` is the share of
    added prompts that lie within a tenth of a unit of another prompt.
    """
    (conditioning,) = leaves(engine.evaluator.pool.tree).values()
    flat = conditioning.float().flatten(1).cpu().double().numpy()
    squares = (flat**2).sum(axis=1)
    far = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0.0))
    own = far[:n_real, :n_real]
    unit = float(own[~np.eye(n_real, dtype=bool)].mean())
    np.fill_diagonal(far, np.inf)
    nearest = far.min(axis=1) / unit
    found = {"nearest_real": float(nearest[:n_real].mean())}
    if len(far) > n_real:
        found["nearest_added"] = float(nearest[n_real:].mean())
        found["collapsed"] = float((nearest[n_real:] < 0.1).mean())
        added = far[n_real:, :n_real] / unit
        found["added_to_real"] = float(added.mean())
    return found


def measure(
    arguments: argparse.Namespace, name: str, count: int, seed: int, truth: list[int]
) -> dict[str, Any]:
    """Return cost and decisions of one strategy, and of a screen the reach that `truth` needed."""
    params: dict[str, Any] = {"draws": arguments.draws}
    if name != "full":
        params["first"] = arguments.first
    if name == "screen-race":
        params |= {k: getattr(arguments, k) for k in ("reach", "samples", "screens")}
    run = prepare(
        RunConfig(
            dataset=arguments.dataset,
            backbone=arguments.backbone,
            data_dir=arguments.data_dir,
            strategy=name,
            params=params,
            seed=seed,
        )
    )
    split, real = run.split, run.prompts
    assert split is not None
    phrases = [
        run.dataset.phrases.get(c, text) for c, text in zip(split.classes, real.texts, strict=True)
    ]
    run = replace(run, prompts=crowd(real, phrases, count))
    run.check()
    # The same images for every K: those of the classes that the smallest K has.
    most = min(arguments.prompts)
    mine = [i for i, c in zip(split.sample_ids, split.labels, strict=True) if c < most]
    labels = dict(zip(split.sample_ids, split.labels, strict=True))
    images = select_subset(mine, [labels[i] for i in mine], arguments.images)
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine)
    decided = list(engine.score(run.samples(images), run.strategy))
    by_id = {d.sample.sample_id: d.outcome for d in decided}
    needed = []
    for d in decided:
        for _, values in d.linearised[:1]:
            far = distances(values.astype(np.float64).mean(axis=1))
            winner = truth[images.index(d.sample.sample_id)]
            needed.append(float(far[np.array(run.prompts.class_of_prompt) == winner].min()))
    return {
        "reach_needed": sorted(needed),
        "images": len(images),
        "evaluations": float(np.mean([d.evaluations for d in decided])),
        "linearisations": float(np.mean([d.linearisations for d in decided])),
        "linearisation_cost": engine.linear.cost,
        "equivalents": float(np.mean([d.equivalents for d in decided])),
        "accuracy": float(np.mean([o and o.ranking[0] == labels[i] for i, o in by_id.items()])),
        "decisions": [int(o.ranking[0]) if (o := by_id[i]) else -1 for i in images],
        "spread": spread(engine, min(count, len(real.texts))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--backbone")
    parser.add_argument("--data-dir")
    parser.add_argument("--prompts", type=int, nargs="+", default=[10, 21, 100, 1000])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--reach", type=float, default=1.5)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--screens", type=int, default=2)
    parser.add_argument("--first", type=int, default=2, help="of both races")
    parser.add_argument("--exhaustive", type=int, default=100, help="most prompts that full scores")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for count in sorted(arguments.prompts):
        first_seed: list[int] = []  # what `truth` was under the first seed
        for seed in range(arguments.seeds):
            truth: list[int] = []
            for name in ("full", "race", "screen-race"):
                row: dict[str, Any] = {"prompts": count, "seed": seed, "strategy": name}
                if name == "full" and count > arguments.exhaustive:
                    row |= {"equivalents": float(count * arguments.draws), "not_run": True}
                else:
                    row |= measure(arguments, name, count, seed, truth)
                    truth = truth or row["decisions"]
                    first_seed = first_seed or truth
                    row["agreement"] = float(np.mean(np.equal(row["decisions"], truth)))
                    row["self_agreement"] = float(np.mean(np.equal(truth, first_seed)))
                rows.append(row)
                print(json.dumps(row), flush=True)
    (arguments.out / "growth.json").write_text(json.dumps(rows, indent=1), "utf-8")
    plot(rows, arguments.out / "growth.png")


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Plot evaluation equivalents per image against the number of prompts, a line per strategy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    counts = sorted({row["prompts"] for row in rows})
    for name in dict.fromkeys(row["strategy"] for row in rows):
        each = [
            [r["equivalents"] for r in rows if r["strategy"] == name and r["prompts"] == k]
            for k in counts
        ]
        axes.loglog(counts, [np.mean(costs) for costs in each], marker="o", label=name)
        for k, costs in zip(counts, each, strict=True):
            axes.plot([k] * len(costs), costs, ".", color="0.5")
    axes.set_xlabel("prompts")
    axes.set_ylabel("evaluation equivalents per image")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
