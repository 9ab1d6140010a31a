"""Strategies of the study, played on the recorded errors of one picture.

A setting is a way to decide one question. Those of `bench` are used as they are. A shortlist and a
screen come before a race; a pilot is a race of which most prompts begin with a single draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from models import Draws, Floats, Ints, Model
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit
from torch import Tensor

from bench.contracts.draw_order import sub_grid
from bench.contracts.strategy import Evaluate, Problem, Reply, Session, Strategy
from bench_plugins.strategies._bounds import successive_variance
from bench_plugins.strategies.elimination import Adaptive, Halving
from bench_plugins.strategies.full import Uniform
from bench_plugins.strategies.hierarchy import DownTree
from bench_plugins.strategies.race import Race

GRADIENT = 2.0  # cost of a forward and a backward pass for the conditioning, in evaluations
Decided = tuple[int, float]  # position of the winner among the classes, and cost in evaluations


@dataclass(frozen=True)
class Question:
    """One picture and K classes, with the errors of these and of the groups that hold them.

    Attributes:
        errors: float32 [K, N].
        group_errors: float32 [J, N]; of the inner nodes of the tree of these classes.
        parents: int64 [K + J], the tree.
        rows: the classes among all of the model, int64 [K].
        distances: squared distance of the picture from the class's upright picture, [K].
        screen: returns first-order errors, [K, n], at the mean of some of the classes.
    """

    errors: NDArray[np.float32]
    group_errors: NDArray[np.float32]
    parents: Ints
    rows: Ints
    distances: Floats
    screen: Callable[[Ints, Ints], Floats]

    def problem(self, classes: int) -> Problem:
        """Return the problem of deciding among so many classes."""
        n = self.errors.shape[1]
        return Problem(np.arange(classes), np.arange(n), np.ones(n))

    @property
    def sweep(self) -> int:
        """The class with the lowest mean error on all draws, as `full` decides."""
        return int(self.errors.astype(np.float64).mean(axis=1).argmin())


Setting = Callable[[Question], Decided]


class Tree:
    """Groups of classes that may be inner nodes, larger ones first; finds the tree of a subset."""

    def __init__(self, groups: Sequence[Ints], classes: int) -> None:
        self.groups = groups
        self.member = np.zeros((len(groups), classes), dtype=np.float32)
        for row, group in enumerate(groups):
            self.member[row, group] = 1
        self._last: tuple[bytes, tuple[Ints, Ints]] | None = None

    def of(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return the groups that are nodes among some classes, [J], and the tree, [K + J].

        A group is a node if it splits the subset and no later group holds the same part of it.
        """
        if self._last is None or self._last[0] != rows.tobytes():
            self._last = rows.tobytes(), self._find(rows)
        return self._last[1]

    def _find(self, rows: Ints) -> tuple[Ints, Ints]:
        inside = self.member[:, rows]
        sizes = inside.sum(axis=1)
        within = inside @ inside.T == sizes[:, None]  # whether a row's part lies in a column's
        same = np.triu(within & within.T, 1).any(axis=1)
        nodes = np.flatnonzero((sizes > 1) & (sizes < len(rows)) & ~same)
        parents, k = np.full(len(rows) + len(nodes), -1), len(rows)
        for place, node in enumerate(nodes):  # from large groups to small ones: the last one stays
            parents[:k][inside[node] > 0] = k + place
            larger = np.flatnonzero(within[node, nodes[:place]])
            if len(larger):
                parents[k + place] = k + larger[np.argmin(sizes[nodes[larger]])]
        return nodes, parents


def question(
    model: Model, x_0: Tensor, draws: Draws, errors: NDArray[np.float32], rows: Ints,
    tree: Tree, pictures: NDArray[np.float32],
) -> Question:  # fmt: skip
    """Return the question of a picture among some classes; `errors` are those of all rows."""
    nodes, parents = tree.of(rows)
    away = pictures[rows] - x_0.numpy()
    found: dict[bytes, Floats] = {}

    def screen(kept: Ints, at: Ints) -> Floats:
        key = kept.tobytes()
        if key not in found:
            found[key] = model.first_order(x_0, draws.rows(at), rows, rows[kept])
        return found[key]

    groups = errors[len(model.told) - len(tree.groups) + nodes]
    far = np.square(away).sum(axis=1).astype(np.float64)
    return Question(errors[rows], groups, parents, rows, far, screen)


def play(session: Session, errors: NDArray[np.float32]) -> Decided:
    """Return what a session decides on recorded errors, and at what cost."""
    cost = 0.0
    while isinstance(request := session.ask(), Evaluate):
        values = errors[np.ix_(request.prompts, request.draws)]
        cost += values.size
        session.tell(request, Reply(values, float(values.size)))
    return int(session.outcome().ranking[0]), cost


def plain(strategy: Strategy) -> Setting:
    """Return a strategy as a setting."""
    return lambda asked: play(strategy.start(asked.problem(len(asked.rows))), asked.errors)


def descent(strategy: DownTree) -> Setting:
    """Return a descent in the tree as a setting."""

    def decide(asked: Question) -> Decided:
        problem = replace(asked.problem(len(asked.parents)), parents=asked.parents)
        return play(strategy.start(problem), np.concatenate([asked.errors, asked.group_errors]))

    return decide


def among(asked: Question, kept: Ints, race: Race) -> Decided:
    """Return the decision of a race of some of the classes."""
    if len(kept) == 1:
        return int(kept[0]), 0.0
    winner, cost = play(race.start(asked.problem(len(kept))), asked.errors[kept])
    return int(kept[winner]), cost


def shortlist(size: int, race: Race) -> Setting:
    """Race the classes whose upright pictures are nearest to the image."""
    return lambda asked: among(asked, np.sort(asked.distances.argsort()[:size]), race)


def screened(reach: float, screens: int, race: Race, samples: int = 4) -> Setting:
    """Race the classes in reach of the best first-order score, as `screen-race` does.

    A class is in reach if its score is at most `reach` standard deviations of the scores above the
    lowest. A further screen is made at the mean of the classes kept, if the last one dropped any
    and it costs less than two draws of those that are left.
    """

    def decide(asked: Question) -> Decided:
        kept, cost = np.arange(len(asked.rows)), 0.0
        at = sub_grid(samples, asked.errors.shape[1])
        before = 0
        for _ in range(screens):
            if before and (before == len(kept) or GRADIENT * samples >= 2 * len(kept)):
                break
            before = len(kept)
            scores = asked.screen(kept, at).mean(axis=1)[kept]
            cost += GRADIENT * samples
            kept = kept[scores <= scores.min() + reach * scores.std()]
        winner, raced = among(asked, kept, race)
        return winner, cost + raced

    return decide


def piloted(pilots: int, delta: float, race: Race) -> Setting:
    """Drop most classes after one draw, with the variance that a few pilots show on two draws.

    The pilots are evenly spread among the classes. Rivals behind the leader of the first draw by
    more than the bound t allows for one draw are dropped, and the others race.
    """

    def decide(asked: Question) -> Decided:
        k, n = asked.errors.shape
        first, second = sub_grid(2, n)
        chosen = sub_grid(min(pilots, k), k)
        ahead = chosen[asked.errors[chosen, first].argmin()]
        others = np.setdiff1d(chosen, ahead)
        two = asked.errors[:, [first, second]].astype(np.float64)
        variance, dof = successive_variance(two[others] - two[ahead])
        total = dof * len(others)
        reach = abs(stdtrit(total, delta)) * sqrt((1 - 1 / n) * float(variance.mean()))
        kept = np.flatnonzero(two[:, 0] <= two[:, 0].min() + reach)
        winner, raced = among(asked, kept, race)
        return winner, k + len(chosen) + raced  # counts what the race evaluates again

    return decide


def clairvoyant(asked: Question, delta: float = 0.02) -> float:
    """Return the cost of a race that knows the winner and each rival's gap and variance.

    Each rival gets the fewest draws after which a normal bound drops it, the winner as many as the
    last rival.
    """
    differences = asked.errors.astype(np.float64) - asked.errors[asked.sweep]
    variance, _ = successive_variance(differences)
    noise = ndtri(delta) ** 2 * variance
    n = asked.errors.shape[1]
    gaps = np.square(differences.mean(axis=1))
    needed = np.ceil(noise / np.maximum(gaps + noise / n, np.finfo(float).tiny)).clip(1, n)
    rivals = np.delete(needed, asked.sweep)
    return float(rivals.sum() + rivals.max())


def families(n: int) -> Mapping[str, Mapping[str, Setting]]:
    """Return the settings of each strategy for n draws, among which validation images choose."""
    bounds = [(first, delta) for first in (2, 4) for delta in (0.02, 0.005, 0.001)]
    # The race after a pilot, a shortlist or a screen: its level is chosen as that of any other.
    races = {f"delta={d}": Race(first=2, delta=d, draws=n) for d in (0.005, 0.001)}
    unproven = Race(**{**Race.spec["unproven"], "draws": n})
    return {
        **{f"uniform {s}": {"": plain(Uniform(samples=s, draws=n))} for s in (1, 2, 4)},
        "published schedule": {"": plain(Adaptive(draws=n))},
        "race within the schedule": {"": plain(unproven)},
        "race": {f"first={f} delta={d}": plain(Race(first=f, delta=d, draws=n)) for f, d in bounds},
        "halving": {f"budget={b}": plain(Halving(b, n)) for b in (2, 3, 4, 8, 16) if b <= n},
        "hierarchy": {
            f"samples={s} delta={d}": descent(DownTree(samples=s, delta=d, draws=n))
            for s, d in ((2, 0.02), (4, 0.02), (8, 0.001), (16, 0.0001))
        },
        "race after a pilot": {
            f"level={d} {text}": piloted(50, d, race)
            for d in (0.02, 0.005, 0.001, 0.0001)
            for text, race in races.items()
        },
        "shortlist": {
            f"k={k} {text}": shortlist(k, race)
            for k in (5, 10, 20, 50, 100)
            for text, race in races.items()
        },
        "screening": {
            f"reach={reach:g} screens={screens} {text}": screened(reach, screens, race)
            for reach in (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
            for screens in (1, 2)
            for text, race in races.items()
        },
    }
