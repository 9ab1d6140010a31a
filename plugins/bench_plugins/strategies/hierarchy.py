"""Descent in a tree of classes, after Hierarchical Diffusion Classifiers (arXiv 2411.12073, 2024).

The nodes of the tree are the C classes, numbered from 0, and the inner nodes, numbered from C.
"""

from collections.abc import Generator, Iterator
from dataclasses import replace
from math import ceil, inf
from typing import Any, ClassVar

import numpy as np

from bench.contracts.draw_order import sub_grid
from bench.contracts.strategy import (
    NO_PARENT,
    ErrorTable,
    Evaluate,
    Ints,
    Outcome,
    Problem,
    Reply,
    Session,
    Strategy,
)
from bench_plugins.strategies._racing import RaceSession
from bench_plugins.strategies.elimination import Adaptive
from bench_plugins.strategies.race import Race

TREE_RULES = ("fixed", "dynamic", "race")


class DownTree(Strategy):
    """Descend in a tree of classes (--hierarchy): compare nodes on a few draws, and drop some.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(DownTree(draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations  # of one level
    ([3, 2, 4, 1, 0], 55)

    Each round evaluates the prompts of the nodes reached so far, beginning with those that have no
    parent. The inner nodes that are kept are replaced by their children, until only classes are
    left. The error of an inner node is not a bound on the errors of its classes, so under every
    rule a dropped node may hold the full sweep's winner. Only a calibration (`--risk`) can promise
    anything.

    `fixed` keeps a share of the nodes in each round, and `dynamic` those whose score is within some
    standard deviations (of the nodes' scores) of the lowest. The schedule of `adaptive` then
    decides among the classes; docs/hierarchy.md has the differences from the authors' code. With
    `race`, nodes and classes are dropped as by the strategy `race`.

    Args:
        rule: `race`, `fixed` or `dynamic`.
        samples: draws per round, for `race` the maximum; None for a tenth of the draws.
        keep: for `fixed`: share of the nodes to keep, rounded up.
        deviations: for `dynamic`: number of standard deviations a node may be behind.
        delta: for `race`: significance level of one comparison.
        first: for `race`: draws before the first test.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "hierarchy",
        "recorder": "full-hierarchy",
        "safest_first": (
            {"samples": 16, "delta": 1e-4},
            {"samples": 8, "delta": 1e-4},
            {"samples": 8, "delta": 1e-3},
            {"samples": 4, "delta": 1e-3},
            {"samples": 4, "delta": 0.02},
            {"samples": 2, "delta": 0.02},
        ),
    }
    uses_hierarchy = True

    def __init__(
        self,
        rule: str = "race",
        samples: int | None = None,
        keep: float = 0.5,
        deviations: float = 2.0,
        delta: float = 0.02,
        first: int = 2,
        draws: int = 500,
    ) -> None:
        samples = max(1, draws // 10) if samples is None else samples
        if rule not in TREE_RULES:
            raise ValueError(f"rule must be one of {', '.join(TREE_RULES)}, got {rule}")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if not 0 < keep <= 1:
            raise ValueError(f"keep must be above 0 and at most 1, got {keep:g}")
        if deviations < 0:
            raise ValueError(f"deviations must not be negative, got {deviations:g}")
        self.rule, self.samples, self.keep, self.draws = rule, min(samples, draws), keep, draws
        self.deviations = deviations
        self.race = Race(delta=delta, first=first, draws=draws)
        self.settled = {"samples": self.samples}

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return Descent(self, problem)


class Descent:
    """One image on its way down the tree of C classes and J inner nodes.

    `parents` is int64 [C + J]. `below`, bool [C, C + J], says whether a class is that node or lies
    below it. `rounds` [C] counts the rounds that a class, or a node above it, survived. `rank` [C]
    is the rank in the last round: from 1 for its last class up to its best; 0 for other classes.
    """

    def __init__(self, strategy: DownTree, problem: Problem) -> None:
        self.strategy, self.problem = strategy, problem
        self.table = ErrorTable(problem)
        n, parents = problem.n_classes, problem.parents
        self.parents = np.full(n, NO_PARENT) if parents is None else parents
        self.below = np.zeros((n, len(self.parents)), dtype=bool)
        node = np.arange(n)  # climbs from every class to its root, one level per step
        while (inside := node >= 0).any():
            self.below[np.flatnonzero(inside), node[inside]] = True
            node = np.where(inside, self.parents[node], NO_PARENT)
        self.rounds = np.zeros(n, dtype=np.int64)
        self.rank = np.zeros(n, dtype=np.int64)
        self._requests = self._descend()
        self._request = next(self._requests, None)

    def ask(self) -> Evaluate | None:
        """Return the next cells, or None when the image is decided."""
        return self._request

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Record the errors and prepare the next request."""
        self.table.tell(request, reply)
        self._request = next(self._requests, None)

    def outcome(self) -> Outcome:
        """Rank the classes by the number of rounds survived, then by rank in the last round."""
        n, survived = len(self.rounds), np.zeros(len(self.parents), dtype=np.int64)
        survived[:n] = self.rounds * (n + 1) + self.rank  # `rank` is at most n
        return self.table.outcome(survived[self.problem.class_of_prompt])

    def _descend(self) -> Iterator[Evaluate]:
        """Yield the requests of all rounds; updates `rounds` and, at the end, `rank`."""
        n, nodes = len(self.rounds), np.flatnonzero(self.parents < 0)
        while (nodes >= n).any():
            if len(nodes) > 1:
                nodes = yield from self._round(nodes)
            self.rounds[self.below[:, nodes].any(axis=1)] += 1
            children = np.flatnonzero(np.isin(self.parents, nodes[nodes >= n]))
            nodes = np.sort(np.concatenate([nodes[nodes < n], children]))
        prompts, problem = self._among(nodes)
        races, adaptive = self.strategy.rule == "race", Adaptive(draws=len(problem.timesteps))
        session = (self.strategy.race if races else adaptive).start(problem)
        yield from self._drive(session, prompts)
        worst_first = nodes[session.outcome().ranking[::-1]]
        self.rank[worst_first] = np.arange(1, len(nodes) + 1)

    def _round(self, nodes: Ints) -> Generator[Evaluate, None, Ints]:
        """Yield requests that compare the nodes, and return the nodes to keep."""
        strategy, draws = self.strategy, len(self.problem.timesteps)
        prompts, problem = self._among(nodes)
        if strategy.rule == "race":
            race = RaceSession(strategy.race, problem)
            yield from self._drive(race, prompts, strategy.samples)
            return nodes[np.unique(problem.class_of_prompt[race.alive])]
        grid = sub_grid(min(strategy.samples, draws), draws)
        yield from self._missing_cells(prompts, grid)
        means = self.table.errors[np.ix_(prompts, grid)] @ self.problem.weights[grid]
        means /= self.problem.weights[grid].sum()
        scores = np.full(len(nodes), inf)  # of each node's best prompt
        np.minimum.at(scores, problem.class_of_prompt, means)
        if strategy.rule == "fixed":
            best = np.argsort(scores, kind="stable")[: ceil(strategy.keep * len(nodes))]
            return nodes[np.sort(best)]
        return np.asarray(nodes[scores <= scores.min() + strategy.deviations * scores.std()])

    def _among(self, nodes: Ints) -> tuple[Ints, Problem]:
        """Return the prompts of some nodes, and the problem of deciding among these nodes."""
        prompts = np.flatnonzero(np.isin(self.problem.class_of_prompt, nodes))
        node_of_prompt = np.searchsorted(nodes, self.problem.class_of_prompt[prompts])
        return prompts, replace(self.problem, class_of_prompt=node_of_prompt, parents=None)

    def _drive(self, session: Session, prompts: Ints, max_draws: float = inf) -> Iterator[Evaluate]:
        """Yield what a session about `prompts` lacks, until it ends or has seen `max_draws`."""
        seen = 0
        while isinstance(request := session.ask(), Evaluate) and seen < max_draws:
            seen += len(request.draws)
            chosen = prompts[request.prompts]
            yield from self._missing_cells(chosen, request.draws)
            values = self.table.errors[np.ix_(chosen, request.draws)]
            session.tell(request, Reply(values, float(values.size)))

    def _missing_cells(self, prompts: Ints, draws: Ints) -> Iterator[Evaluate]:
        """Yield requests for the cells of a block that have not been evaluated yet.

        Prompts that lack the same draws share a request.
        """
        missing = np.isnan(self.table.errors[np.ix_(prompts, draws)])
        for lacking in np.unique(missing, axis=0):
            if lacking.any():
                alike = (missing == lacking).all(axis=1)
                yield Evaluate(prompts[alike], draws[lacking])
