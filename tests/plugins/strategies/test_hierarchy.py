"""`hierarchy` finds the class by the tree, keeps what its rules keep, and costs nothing twice."""

from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import pytest
from helpers.refusals import refused
from helpers.tables import make, make_problem, make_table
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Problem
from bench.recordings.replay import decide as replay
from bench.testing.strategies import Told, decide

# Eight classes; nodes 8 and 9 above four each, and 10 and 11 below 8, above two each.
PARENTS = np.array([10, 10, 11, 11, 9, 9, 9, 9, -1, -1, 8, 8])
RULES: list[dict[str, Any]] = [
    {"rule": "race"},
    {"rule": "fixed", "samples": 4},
    {"rule": "dynamic", "samples": 4, "deviations": 0.5},
]


def tree_problem(draws: int, parents: NDArray[np.int64] = PARENTS) -> Problem:
    return make_problem(np.zeros((len(parents), draws), np.float32), parents=parents)


def tree_errors(winner: int, draws: int = 60, seed: int = 0) -> NDArray[np.float32]:
    """Return errors in which the winner, and the nodes above it, are clearly ahead."""
    errors = make_table(len(PARENTS), draws, seed=seed, gap=0.0) + 0.2
    node = winner
    while node >= 0:
        errors[node] -= 0.1
        node = int(PARENTS[node])
    return errors


def run(errors: NDArray[np.float32], **params: Any) -> Told:
    draws = errors.shape[1]
    return decide(make("hierarchy", draws, **params).strategy, errors, tree_problem(draws))


@pytest.mark.parametrize("params", RULES)
@pytest.mark.parametrize("winner", range(8))
def test_the_way_down_leads_to_the_winner(winner: int, params: dict[str, Any]) -> None:
    told = run(tree_errors(winner), **params)
    assert told.outcome.ranking[0] == winner
    assert sorted(told.outcome.ranking) == list(range(8)), "inner nodes are no classes"
    assert told.asked.max() == 1


@pytest.mark.parametrize("params", RULES)
def test_a_dropped_node_costs_its_classes_nothing_and_ranks_them_last(
    params: dict[str, Any],
) -> None:
    told = run(tree_errors(5), **params)
    assert told.asked[:4].sum() == 0 and told.asked[[10, 11]].sum() == 0
    assert set(told.outcome.ranking[-4:]) == {0, 1, 2, 3}
    assert told.decided.evaluations < 8 * 60


@pytest.mark.parametrize("params", RULES)
def test_classes_without_a_tree_are_raced_or_scheduled(params: dict[str, Any]) -> None:
    errors = make_table(6, 60, gap=0.05)
    told = decide(make("hierarchy", 60, **params).strategy, errors, make_problem(errors))
    assert told.outcome.ranking[0] == errors.mean(axis=1).argmin()
    usual = (
        make("race", 60, first=2)
        if params["rule"] == "race"
        else make("adaptive", 60, samples=(6, 60))
    )
    assert np.array_equal(told.asked, decide(usual.strategy, errors, make_problem(errors)).asked)


def test_a_class_at_the_top_is_compared_with_nodes_and_asked_once() -> None:
    parents = np.array([3, 3, -1, -1])
    errors = make_table(4, 60, gap=0.0) + 0.2
    errors[2] -= 0.05
    told = decide(make("hierarchy", 60, rule="race").strategy, errors, tree_problem(60, parents))
    assert told.outcome.ranking[0] == 2 and told.asked.max() == 1


def test_full_hierarchy_decides_as_full_and_asks_for_every_node() -> None:
    errors = tree_errors(5)
    told = decide(make("full-hierarchy", 60).strategy, errors, tree_problem(60))
    assert told.asked.all() and told.outcome.ranking[0] == errors[:8].mean(axis=1).argmin()


@pytest.mark.parametrize("name", ["full", "vote", "race", "adaptive", "uniform", "halving"])
def test_a_strategy_that_uses_no_tree_sees_the_classes_alone(name: str) -> None:
    """Also where the recording has inner nodes, in any place, with lower errors than any class."""
    errors = make_table(8, 60, gap=0.01)
    order = np.array([10, 0, 8, 1, 2, 3, 11, 4, 5, 6, 9, 7])  # the class or node of each prompt
    leaves = np.flatnonzero(order < 8)
    whole = np.zeros((12, 60), np.float32)
    whole[leaves] = errors
    problem = replace(tree_problem(60), class_of_prompt=order)
    parameters = {"samples": (6, 60)} if name == "adaptive" else {}
    strategy = make(name, 60, **parameters)
    decided = replay(Sample("x", 0, {}), whole, strategy, problem)
    alone = replay(Sample("x", 0, {}), errors, strategy, make_problem(errors))
    assert decided.outcome is not None and alone.outcome is not None, decided.error
    assert np.array_equal(decided.outcome.ranking, alone.outcome.ranking)
    assert decided.evaluations == alone.evaluations
    assert all(np.isin(request.prompts, leaves).all() for request, _ in decided.cells)
    assert strategy.at_most(problem) == strategy.at_most(make_problem(errors))


@pytest.mark.parametrize(
    "params", [{"rule": "slow"}, {"samples": 0}, {"keep": 0.0}, {"deviations": -1.0}]
)
def test_parameters_are_checked(params: dict[str, Any]) -> None:
    with refused(next(iter(params)), kind=Exception):
        make("hierarchy", 20, **params)


def random_tree(rng: np.random.Generator) -> tuple[int, NDArray[np.int64]]:
    """Return a number of classes, and the parents of classes and inner nodes, at any depth."""
    classes = int(rng.integers(2, 10))
    parents, open_nodes = [-1] * classes, list(range(classes))
    while len(open_nodes) > 1 and rng.random() < 0.8:
        members = rng.permutation(open_nodes)[: rng.integers(2, 5)].tolist()
        for node in members:
            parents[node] = len(parents)
            open_nodes.remove(node)
        open_nodes.append(len(parents))
        parents.append(-1)
    return classes, np.array(parents)


def by_hand(
    errors: NDArray[np.float32], classes: int, parents: NDArray[np.int64], params: dict[str, Any]
) -> tuple[int, int]:
    """Return the class that a rule after the paper decides for, and the cells that it evaluates."""
    draws, cells = errors.shape[1], set[tuple[int, int]]()

    def scores(nodes: list[int], count: int) -> list[float]:
        grid = [(2 * j + 1) * draws // (2 * count) for j in range(count)]
        cells.update((node, draw) for node in nodes for draw in grid)
        return [sum(float(errors[node, draw]) for draw in grid) / count for node in nodes]

    def best(nodes: list[int], by: list[float], count: int) -> list[int]:
        return sorted(node for _, node in sorted(zip(by, nodes, strict=True))[:count])

    nodes = [node for node, parent in enumerate(parents) if parent < 0]
    while max(nodes) >= classes:
        if len(nodes) > 1:
            by = scores(nodes, params["samples"])
            if params["rule"] == "fixed":
                nodes = best(nodes, by, ceil(params["keep"] * len(nodes)))
            else:
                limit = min(by) + params["deviations"] * float(np.std(by))
                nodes = [node for node, score in zip(nodes, by, strict=True) if score <= limit]
        kept = set(nodes)
        nodes = [n for n, up in enumerate(parents) if (n in kept and n < classes) or up in kept]
    for count, keep in ((draws // 10, 5), (draws, 1)):
        nodes = (
            best(nodes, scores(nodes, count), keep) if len(nodes) > 1 or count < draws else nodes
        )
    return nodes[0], len(cells)


@pytest.mark.parametrize("rule", ["fixed", "dynamic"])
def test_rules_after_the_paper_decide_as_by_hand(rule: str) -> None:
    """150 random trees each; errors are small whole numbers, so that many scores are equal."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        classes, parents = random_tree(rng)
        errors = rng.integers(0, 4, (len(parents), 20)).astype(np.float32)
        params = {
            **{"rule": rule, "samples": int(rng.integers(1, 6))},
            **{"keep": float(rng.choice([0.3, 0.5, 1.0])), "deviations": float(rng.uniform(0, 2))},
        }
        told = decide(make("hierarchy", 20, **params).strategy, errors, tree_problem(20, parents))
        decided = int(told.outcome.ranking[0]), int(told.asked.sum())
        assert decided == by_hand(errors, classes, parents, params)
