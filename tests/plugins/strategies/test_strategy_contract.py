"""What every registered strategy must keep, whatever the shape of the problem."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers.tables import evaluations, make, make_problem, make_table

from bench.discovery.loading import load_plugins

NAMES = [spec.name for spec in load_plugins().strategies]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "adaptive": [{"samples": (1,), "keep": (1,)}, {"samples": (3, 7), "keep": (4, 1)}],
    "uniform": [{"samples": 1}],
    "halving": [{"budget": 1}],
    "paired-ttest": [{"min_scores": 3, "cutoff": 0.05}],
    "race": [{"bound": "betting"}, {"bound": "serfling", "span": 1.0}, {"order": "300-500"}],
}
# prompts, draws, prompts a class
SHAPES = [(10, 40, 1), (12, 40, 3), (3, 1, 1), (1, 20, 1), (4, 9, 4), (1000, 12, 1)]


def _cases() -> Iterator[Any]:
    for name in NAMES:
        for params in [{}, *VARIANTS.get(name, [])]:
            for shape in SHAPES:
                yield pytest.param(name, params, shape, id=f"{name}-{params}-{shape}")


@pytest.mark.parametrize(("name", "params", "shape"), list(_cases()))
def test_ask_and_tell(name: str, params: dict[str, Any], shape: tuple[int, int, int]) -> None:
    prompts, draws, per_class = shape
    errors = make_table(prompts, draws)
    problem = make_problem(errors, per_class)
    # The plan's draws may be more than the problem's: a classifier backbone has a single one.
    strategy = make(name, 500, **params)
    session = strategy.start(problem)
    asked = np.zeros(errors.shape, dtype=int)
    for request in evaluations(session, errors):
        assert len(request.prompts) and len(request.draws), "an empty block"
        asked[np.ix_(request.prompts, request.draws)] += 1
        assert asked.max() == 1, "a cell was asked for twice"
    assert session.ask() is None
    assert asked.any(axis=1).all(), "every prompt is looked at"
    assert (strategy.at_least(problem) or 0) <= asked.sum() <= strategy.at_most(problem)
    outcome = session.outcome()
    classes = len(set(problem.class_of_prompt.tolist()))
    assert sorted(outcome.ranking) == list(range(classes))
    assert outcome.scores.shape == outcome.draws.shape == (classes,)
    assert np.isfinite(outcome.scores).all() and (outcome.draws > 0).all()
    assert 0 <= outcome.confidence <= 1
    best = problem.class_of_prompt == outcome.ranking[0]
    means = [errors[p][asked[p] > 0].astype(float).mean() for p in np.flatnonzero(best)]
    assert any(np.isclose(outcome.scores[outcome.ranking[0]], mean) for mean in means)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("per_class", [1, 2])
def test_a_clear_winner_wins(name: str, per_class: int) -> None:
    for seed in range(20):
        errors = make_table(10, 100, seed=seed, gap=0.05)
        problem = make_problem(errors, per_class)
        strategy = make(name, 100, **({"samples": (10, 100)} if name == "adaptive" else {}))
        session = strategy.start(problem)
        list(evaluations(session, errors))
        assert session.outcome().ranking[0] == errors.mean(axis=1).argmin() // per_class
