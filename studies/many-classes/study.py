"""How the cost of a decision grows to a thousand classes, and whether screening wins there.

    python studies/many-classes/study.py        # everything; an interrupted one resumes
    python studies/many-classes/study.py --models analytic pooled --images 100 --subsets 5

Trained networks, recorded errors and played decisions are kept in the cache folder. Printed and
written beside this file: `rows.json`, `table.md` and `growth.svg`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from glyph_networks import Kind, trained
from glyphs import Glyphs, distinct_glyphs, photograph
from models import Analytic, Draws, Ints, Model, network_model
from numpy.typing import NDArray
from report import NOT_PLAYED, Played, Row, rows_of, share, verdict, write
from strategies import Question, Tree, clairvoyant, families, question
from torch import Tensor

from bench.machine.cache import cache_dir

CLASSES, SIZES = 1000, (10, 30, 100, 300)
SEEDS = 3  # of draws; validation images have two
MOST, FEWER = 5000, 8  # classes of the analytic model at most, for so many times fewer pictures
MODELS = ("analytic", "pooled", "cross", "table")
SPREAD = 0.7  # s of the analytic model: standard deviation of a pixel within a class
DRAWS = {"analytic": 250, "table": 10, "pooled": 10, "cross": 10}
SUBSETS, IMAGES = 20, 400  # random subsets of each size, and test pictures of a half
STEPS = {"table": 3000, "pooled": 3000, "cross": 3000}
CHOSEN_AT = 300  # number of classes at which settings are chosen
VALIDATION_SUBSETS = 2
RECALLED = (1, 5, 10, 20, 50, 100)  # sizes of shortlists whose recall is measured
LEAST = 0.99  # lower end of the agreement that a setting must have there, on validation images


class World:
    """The classes, their halves, groups and pictures, and a model with its recorded errors."""

    def __init__(
        self, name: str, glyphs: Glyphs, images: int, seeds: int = SEEDS, fresh: int = 0
    ) -> None:
        """`images` is the number of test pictures of each half, `seeds` that of their draws.

        With another number for `fresh`, these pictures and draws are others.
        """
        self.seeds, self.fresh = seeds, fresh
        self.name, self.glyphs, self.n_draws = name, glyphs, DRAWS[name]
        self.pictures = glyphs.pictures()
        order = np.random.default_rng(3).permutation(len(glyphs))
        self.half_a, self.half_b = (
            np.sort(order[: len(order) // 2]),
            np.sort(order[len(order) // 2 :]),
        )
        groups = groups_of(glyphs.names)
        self.tree = Tree(groups, len(glyphs))
        self.folder = cache_dir("many-classes")
        if name == "analytic":
            self.model: Model = Analytic(self.pictures, SPREAD)
            self.held_out = np.zeros(len(glyphs), dtype=bool)
        else:
            network = trained(cast("Kind", name), glyphs, self.folder, STEPS[name])
            self.model, self.held_out = network_model(network), network.held_out
        self.model.add(groups)
        self.draws = [Draws.of(1000 * fresh + seed, self.n_draws) for seed in range(SEEDS)]
        self.sets = {
            "validation": self.photographs(self.half_a, images, 11),
            "A": self.photographs(self.half_a, images, 1000 * fresh + 12),
            "B": self.photographs(self.half_b, images, 1000 * fresh + 13),
        }

    def photographs(self, half: Ints, n: int, seed: int) -> tuple[Ints, Tensor]:
        """Return classes and pictures of n images of a half."""
        rng = np.random.default_rng(seed)
        labels = half[rng.permutation(len(half))[np.arange(n) % len(half)]]
        if isinstance(self.model, Analytic):
            noise = rng.standard_normal((n, self.pictures.shape[1]))
            return labels, torch.from_numpy(self.pictures[labels] + SPREAD * noise).float()
        return labels, photograph(self.glyphs.drawings, labels, rng)

    def errors(self, part: str, image: int, seed: int) -> NDArray[np.float32]:
        """Return the errors of all rows, [P, N]: computed, or those of a network once recorded."""
        x_0 = self.sets[part][1][image]
        if isinstance(self.model, Analytic):
            return self.model.errors(x_0, self.draws[seed])
        record = self.recording(part, seed)
        if np.isnan(record[image, 0, 0]):
            record[image] = self.model.errors(x_0, self.draws[seed])
        return np.array(record[image])

    def recording(self, part: str, seed: int) -> NDArray[np.float32]:
        """Return the recorded errors of a part, [images, P, N] on disk; NaN where none are yet."""
        shape = (len(self.sets[part][0]), len(self.model.told), self.n_draws)
        which = f"{self.name}-{STEPS[self.name]}-{part}-{shape[0]}-{shape[2]}-{seed}"
        file = self.folder / f"{which}{f'-fresh-{self.fresh}' * bool(self.fresh)}.npy"
        if not file.exists():
            record = np.lib.format.open_memmap(file, "w+", np.float32, shape)
            record[:, 0, 0] = np.nan
        return np.lib.format.open_memmap(file, "r+")

    @cached_property
    def nearest(self) -> Ints:
        """The classes in the order of their distance from each class, itself first, [P, P]."""
        squares = np.square(self.pictures).sum(axis=1)
        gaps = squares - 2 * self.pictures @ self.pictures.T
        return np.asarray(gaps.argsort(axis=1, kind="stable"))

    def ask(self, part: str, image: int, seed: int, rows: Ints) -> Question:
        """Return the question of a picture of a part among some classes."""
        errors, x_0 = self.errors(part, image, seed), self.sets[part][1][image]
        return question(self.model, x_0, self.draws[seed], errors, rows, self.tree, self.pictures)

    def questions(self, kind: str, k: int, subsets: int) -> Iterator[tuple[int, int, Question]]:
        """Yield image, class and question of each decision of a kind among k classes.

        Random subsets have the true class and k - 1 others of its half; subset number j has the
        draws of seed j mod `seeds`. There is one subset of nearest siblings, and one of all
        classes, with all seeds for the chosen settings (`all`) and one for every setting
        (`reaches`).
        """
        parts = {"validation": ["validation"], "all": ["A", "B"], "reaches": ["A", "B"]}.get(
            kind, ["B"]
        )
        half = self.half_a if kind == "validation" else self.half_b
        start = 0
        for part in parts:
            labels, _ = self.sets[part]
            for image, label in enumerate(labels):
                repeats = {"all": self.seeds, "half B": subsets, "validation": VALIDATION_SUBSETS}
                seeds = VALIDATION_SUBSETS if kind == "validation" else self.seeds
                for j in range(repeats.get(kind, 1)):
                    if kind in ("all", "reaches"):
                        rows = np.arange(len(self.glyphs))
                    elif kind == "siblings":
                        near = self.nearest[label]
                        rows = np.sort(near[np.isin(near, half)][:k])
                    else:
                        rng = np.random.default_rng([image, k, j])
                        others = rng.choice(half[half != label], k - 1, replace=False)
                        rows = np.sort(np.append(others, label))
                    yield start + image, int(label), self.ask(part, image, j % seeds, rows)
            start += len(labels)


def groups_of(names: Sequence[str]) -> list[Ints]:
    """Return the groups of classes that may be nodes of the tree, larger ones first.

    They share the first word (about a block), the first three words, or the name before "WITH".
    """
    found: dict[tuple[int, ...], None] = {}
    for key in (
        lambda name: name.split()[0],
        lambda name: " ".join(name.split()[:3]),
        lambda name: name.split(" WITH ")[0],
    ):
        keys = [key(name) for name in names]
        for value in dict.fromkeys(keys):
            if keys.count(value) > 1:
                found[tuple(row for row, own in enumerate(keys) if own == value)] = None
    return [np.array(group) for group in sorted(found, key=len, reverse=True)]


def play_kind(
    world: World, kind: str, k: int, subsets: int, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Played]:
    """Return what settings, by strategy and text, decide on a kind of question."""
    settings = {
        (name, text): setting
        for name, family in families(world.n_draws).items()
        for text, setting in family.items()
        if (name, text) in keys
    }
    raw: dict[tuple[str, str], list[list[tuple[bool, bool, bool, float]]]] = {}
    for image, label, asked in world.questions(kind, k, subsets):
        sweep, truth = asked.sweep, int(np.flatnonzero(asked.rows == label)[0])
        exact = int(asked.distances.argmin())
        decided = {key: setting(asked) for key, setting in settings.items()}
        decided["full", ""] = sweep, float(asked.errors.size)
        decided["clairvoyant", ""] = sweep, clairvoyant(asked)
        decided["nearest picture", ""] = exact, 0.0
        for key, (winner, cost) in decided.items():
            lines = raw.setdefault(key, [])
            if len(lines) == image:
                lines.append([])
            lines[image].append((winner == sweep, winner == truth, winner == exact, cost))
    if kind == "all":
        name = "full, seeds 1 and 2" if world.seeds == SEEDS else "full, seed 1, validation images"
        raw[name, ""] = other_seeds(world)
    out = {}
    for key, lines in raw.items():
        table = np.array(lines, dtype=np.float64)
        facts = table[:, :, :3].astype(bool)
        out[key] = Played(facts[:, :, 0], facts[:, :, 1], facts[:, :, 2], table[:, :, 3])
    return out


def other_seeds(world: World) -> list[list[tuple[bool, bool, bool, float]]]:
    """Return whether the sweeps of other seeds decide as that of seed 0, among all classes."""
    n, lines = len(world.glyphs), []
    whole = world.seeds == SEEDS
    for part in ("A", "B") if whole else ("validation",):
        labels, pictures = world.sets[part]
        for image, label in enumerate(labels):
            seeds = range(SEEDS if whole else VALIDATION_SUBSETS)
            tables = [world.errors(part, image, seed)[:n] for seed in seeds]
            first, *others = (int(t.astype(np.float64).mean(axis=1).argmin()) for t in tables)
            exact = int(np.square(world.pictures - pictures[image].numpy()).sum(axis=1).argmin())
            size = float(tables[0].size)
            lines.append([(w == first, w == label, w == exact, size) for w in others])
    return lines


def recalls(world: World) -> dict[tuple[str, str], Played]:
    """Return whether the sweep's winner, and the true class, is among the k nearest pictures."""
    found: dict[int, list[tuple[bool, bool]]] = {k: [] for k in RECALLED}
    for part in ("A", "B"):
        for image, label in enumerate(world.sets[part][0]):
            asked = world.ask(part, image, 0, np.arange(len(world.glyphs)))
            order = asked.distances.argsort().tolist()
            for k, lines in found.items():
                lines.append((asked.sweep in order[:k], label in order[:k]))
    out = {}
    for k, lines in found.items():
        facts = np.array(lines)[:, None]
        nothing = np.zeros(facts.shape[:2])
        out["recall", f"k={k}"] = Played(facts[:, :, 0], facts[:, :, 1], nothing > 0, nothing)
    return out


def cached_play(
    world: World, kind: str, k: int, subsets: int, chosen: Mapping[str, Sequence[str]] | None
) -> dict[tuple[str, str], Played]:
    """Return what all settings, or those `chosen` of each strategy, decide on a kind of question.

    What was played before is in the cache folder; what is missing there is played and added.
    """
    images, steps = len(world.sets["B"][0]), STEPS.get(world.name, 0)
    name = f"{world.name}-{steps}-{world.n_draws}-{kind}-{k}-{images}-{subsets}"
    if world.seeds != SEEDS and kind != "validation":
        name = f"{name}-{world.seeds}"
    file = world.folder / f"played-{name}{f'-fresh-{world.fresh}' * bool(world.fresh)}.npz"
    arrays = dict(np.load(file)) if file.exists() else {}
    wanted = {
        (strategy, text)
        for strategy, family in families(world.n_draws).items()
        for text in family
        if chosen is None or text in chosen[strategy]
    }
    stored = {tuple(key.split("|")[:2]) for key in arrays}
    if missing := wanted - stored:
        for key, own in play_kind(world, kind, k, subsets, missing).items():
            arrays |= {"|".join((*key, field)): values for field, values in vars(own).items()}
        np.savez_compressed(file, **arrays)
        print(f"{world.name}: {kind}, {k} classes", file=sys.stderr, flush=True)
    facts = ("same", "right", "exact", "costs")
    keys = dict.fromkeys(tuple(key.split("|")[:2]) for key in arrays)
    always = [key for key in keys if key[0] in NOT_PLAYED or key[0].startswith("full,")]
    return {
        (name, text): Played(*(arrays[f"{name}|{text}|{field}"] for field in facts))
        for name, text in [*sorted(wanted), *always]
    }


def choose(played: dict[tuple[str, str], Played]) -> dict[str, list[str]]:
    """Return the setting of each strategy: the cheapest that agrees often enough on validation.

    If none does, the one that agrees most, and of several the cheapest.
    """
    best: dict[str, tuple[tuple[bool, float, float], str]] = {}
    for (name, setting), own in played.items():
        agreement, lowest, _ = share(own.same)
        enough = lowest >= LEAST
        rank = (not enough, 0.0 if enough else -agreement, float(own.costs.mean()))
        if name not in best or rank < best[name][0]:
            best[name] = rank, setting
    return {name: [setting] for name, (_, setting) in best.items()}


def run(world: World, subsets: int) -> list[Row]:
    """Return the rows of a model: settings chosen on half A, and what they do elsewhere."""
    validation = cached_play(world, "validation", CHOSEN_AT, VALIDATION_SUBSETS, None)
    chosen = choose(validation)
    rows = rows_of(world.name, "validation", CHOSEN_AT, validation, chosen)
    reaches = cached_play(world, "reaches", CLASSES, 1, None)
    rows += rows_of(world.name, "reaches", CLASSES, reaches, chosen)
    rows += rows_of(world.name, "recall", CLASSES, recalls(world), {})
    for k in SIZES:
        for kind in ("half B", "siblings"):
            played = cached_play(world, kind, k, subsets, chosen)
            rows += rows_of(world.name, kind, k, played, chosen)
    everything = [world]
    if world.name == "analytic":
        images = len(world.sets["B"][0]) // FEWER
        everything.append(World("analytic", distinct_glyphs().first(MOST), images))
    for whole in everything:
        k = len(whole.glyphs)
        rows += rows_of(
            world.name, "all", k, cached_play(whole, "all", k, whole.seeds, chosen), chosen
        )
    return rows


def confirm(world: World, fresh: int) -> list[Row]:
    """Return what the settings chosen on half A do on other pictures, and on these and the first.

    All classes are asked, and pictures and draws are others.
    """
    validation = cached_play(world, "validation", CHOSEN_AT, VALIDATION_SUBSETS, None)
    chosen, images = choose(validation), len(world.sets["B"][0])
    other = World(world.name, world.glyphs, images, world.seeds, fresh)
    first, second = (cached_play(w, "reaches", CLASSES, 1, chosen) for w in (world, other))
    both = {
        key: Played(
            *(
                np.concatenate([getattr(p[key], f.name) for p in (first, second)])
                for f in fields(Played)
            )
        )
        for key in second
    }
    named = (f"{world.name}, other pictures", second), (f"{world.name}, both", both)
    return [row for name, p in named for row in rows_of(name, "reaches", CLASSES, p, chosen)]


def main() -> None:
    """Play the study, print the table and the decision, and write them and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--images", type=int, default=IMAGES, help="test pictures of each half")
    parser.add_argument("--subsets", type=int, default=SUBSETS, help="random subsets of each size")
    parser.add_argument("--seeds", type=int, choices=(1, SEEDS), default=SEEDS)
    parser.add_argument("--fresh", type=int, default=0, help="confirm on other pictures: a number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    glyphs = distinct_glyphs()
    steps = (0.05, 0.25, 0.5, 0.75, 0.95)
    near = ", ".join(f"{np.quantile(glyphs.nearest[1:], step):.3f}" for step in steps)
    same = int((glyphs.nearest == 0).sum())
    print(
        f"{len(glyphs.nearest):,} glyphs, {same} identical to an earlier one,"
        f" {len(glyphs):,} shapes; distance from the nearest earlier one at the quantiles"
        f" {', '.join(map(str, steps))}: {near}"
    )
    glyphs = glyphs.first(CLASSES)
    rows: list[Row] = []
    for name in options.models:
        world = World(name, glyphs, options.images, options.seeds)
        if options.fresh:
            rows += confirm(world, options.fresh)
        else:
            rows += run(world, options.subsets)
    if options.fresh:
        print(verdict(rows))
    else:
        write(rows, Path(__file__).parent)


if __name__ == "__main__":
    main()
